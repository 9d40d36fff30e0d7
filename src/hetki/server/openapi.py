"""OpenAPI: what programs may ask of the server, made from the tables and types that route and decode.

A path is one of `KINDS`, a body is the struct that the parser decodes, a status is one of `SAID`. What is
said here in words alone is what a call needs beside its own fields (`NEEDS`); `tests/test_openapi.py` asks
each path for each status. The console is for people and is not described.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, structs

from hetki import __version__
from hetki.events import cloudevents
from hetki.events.cloudevents import CloudEvent
from hetki.events.segment import NAMES, Batch, Message
from hetki.events.wire import INT64_MAX
from hetki.server.ingest import HEALTHY, KINDS, Answer
from hetki.server.status import AGAIN, SAID, Refusal
from hetki.settings import Limits

PATH = "/openapi.json"
#: What a call needs beside whose it is; without it the event is rejected and the answer counts it.
NEEDS = {"track": ("event",), "group": ("groupId",), "alias": ("userId", "previousId")}
WHOSE = ("userId", "anonymousId")
#: What the fields hold whose bytes the parser keeps as they are.
Fields = dict[str, object] | None
Call = Literal["track", "identify", "page", "screen", "group", "alias"]
_REF = "#/components/schemas/{name}"
Json = dict[str, object]


def document(limits: Limits) -> bytes:
    """The description as JSON text (UTF-8), with the limits of one project."""
    paths: dict[str, Json] = {f"/v1/{path}": {"post": _way_in(path, kind)} for path, kind in KINDS.items()}
    paths["/v1/health"] = {"get": _reading("health", "Whether the server runs", _json({"const": HEALTHY}))}
    paths[PATH] = {"get": _reading("openapi", "This description", _json({"type": "object"}))}
    whole = {
        "openapi": "3.1.0",
        "info": {"title": "Hetki", "version": __version__, "description": _told(limits)},
        "paths": paths,
        "components": {
            "schemas": _schemas(limits),
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic", "description": "The write key is the user."},
                "bearer": {"type": "http", "scheme": "bearer", "description": "The write key."},
            },
        },
    }
    return msgspec.json.encode(whole)


def _told(limits: Limits) -> str:
    bounds = ", ".join(f"{name} = {getattr(limits, name)}" for name in limits.__struct_fields__)
    return (
        "The Segment HTTP tracking API and CloudEvents 1.0. A 200 says that everything which could be read "
        "is on the disk; n_rejected counts the events that broke a rule, which are kept with their reason. "
        "An event is known by its source and id: to send it again has no further effect. "
        f"A body may be compressed (Content-Encoding: gzip). Limits: {bounds}."
    )


def _way_in(path: str, kind: str) -> Json:
    """One path of `/v1/`."""
    answers: Json = {
        str(status): {
            "description": words,
            "content": _json(_ref(Answer if status == 200 else Refusal)),
            **({"headers": {"Retry-After": _seconds()}} if status in AGAIN else {}),
        }
        for status, words in SAID.items()
        if status not in (404, 405, 409)  # of other paths and methods
    }
    attributes = ["specversion", "id", "source", "type", "subject", "time"]
    names = [f"ce-{each}" for each in attributes] if kind == cloudevents.KIND else []
    return {
        "operationId": f"post_{path}",
        "summary": f"Take in {'events' if kind == 'batch' else 'CloudEvents' if names else f'one {kind}'}",
        "security": [{"basic": []}, {"bearer": []}, *([] if names else [{}])],
        "parameters": [
            _header("Sec-GPC", {"type": "string", "description": "1 refuses every purpose with gpc"}),
            *(_header(name, {"type": "string"}) for name in names),
        ],
        "requestBody": {"required": True, "content": _bodies(kind)},
        "responses": answers,
    }


def _bodies(kind: str) -> Json:
    """What a path reads, by its media type; those of the tracking API look at none."""
    if kind == "batch":
        return _json({"allOf": [_ref(Batch), _with_key()]})
    if kind == cloudevents.KIND:
        many: Json = {"type": "array", "items": _ref(CloudEvent)}
        return {
            cloudevents.STRUCTURED: {"schema": _ref(CloudEvent)},
            cloudevents.BATCH: {"schema": many},
            **_json({"type": "object", "description": "The data alone; the attributes are ce- headers."}),
        }
    return _json({"allOf": [_ref(Message), _with_key(), *_needs(kind)]})


def _needs(kind: str) -> list[Json]:
    """What a call must tell for its event to be kept."""
    either: Json = {"anyOf": [_given([name]) for name in WHOSE]}
    return [either, *([_given(NEEDS[kind])] if kind in NEEDS else [])]


def _given(names: Iterable[str]) -> Json:
    """Members that are there and say something."""
    wanted = list(names)
    said: Json = {"type": ["string", "integer"], "minLength": 1, "pattern": r"\S"}
    return {"required": wanted, "properties": dict.fromkeys(wanted, said)}


def _with_key() -> Json:
    key = {"type": "string", "description": "The write key, where no header has it."}
    return {"type": "object", "properties": {"writeKey": key}}


def _schemas(limits: Limits) -> Json:
    """The types that are decoded and encoded, as JSON Schema."""
    described = [_described(kind, parts) for kind, parts in _parts(limits).items()]
    _, found = msgspec.json.schema_components(
        [*described, Answer, Refusal], schema_hook=_anything, ref_template=_REF
    )
    calls: list[Json] = [
        {
            "if": {"properties": {"type": {"const": call}}, "required": ["type"]},
            "then": {"allOf": _needs(call)},
        }
        for call in NAMES
    ]
    found["Batch"]["properties"]["batch"]["items"] = {
        "allOf": [{"$ref": _REF.format(name="Message")}, {"required": ["type"]}, *calls]
    }
    return dict(found)


def _parts(limits: Limits) -> dict[type[msgspec.Struct], dict[str, Any]]:
    """What fields hold that the decoder lets pass, to be judged one by one."""
    time = Annotated[datetime, Meta(tz=True)] | None
    told = Annotated[str, Meta(min_length=1, max_length=limits.id_chars_max)]
    name = Annotated[str, Meta(max_length=limits.text_chars_max, pattern=r"\S")]
    text = Annotated[str, Meta(max_length=limits.text_chars_max)]
    number = Annotated[int, Meta(ge=-INT64_MAX - 1, le=INT64_MAX)]
    whose = text | number | None
    fields = {"properties": Fields, "traits": Fields, "context": Fields}
    times = {"timestamp": time, "original_timestamp": time, "sent_at": time}
    ids = dict.fromkeys(("user_id", "anonymous_id", "previous_id", "group_id"), whose)
    named = {"type": Call | None, "message_id": told | number | None, "event": text | None}
    packed = Meta(extra_json_schema={"contentEncoding": "base64", "contentMediaType": "application/json"})
    attributes = {
        "data_base64": Annotated[str, packed] | None,
        "data": Fields,
        "time": time,
        "userid": whose,
        "anonymousid": whose,
    }
    return {
        Message: {**named, **fields, **times, **ids},
        Batch: {"batch": list[object], "sent_at": time},
        CloudEvent: {**attributes, "specversion": Literal["1.0"], "id": told, "source": told, "type": name},
    }


def _described(kind: type[msgspec.Struct], parts: dict[str, Any]) -> type[msgspec.Struct]:
    """The struct with the types of what it keeps as bytes, or as any text."""
    fields: list[Any] = []
    for each in structs.fields(kind):
        held = parts.get(each.name, each.type)
        default = None if isinstance(each.default, msgspec.Raw) else each.default
        fields.append((each.encode_name, held) if each.required else (each.encode_name, held, default))
    return msgspec.defstruct(kind.__name__, fields)


def _anything(kind: type) -> Json:
    assert kind is object, kind
    return {"description": "any value"}


def _ref(kind: type) -> Json:
    return {"$ref": _REF.format(name=kind.__name__)}


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _header(name: str, schema: Json) -> Json:
    return {"name": name, "in": "header", "required": False, "schema": schema}


def _seconds() -> Json:
    return {"description": "Come back after so many seconds", "schema": {"type": "integer"}}


def _reading(name: str, words: str, content: Json) -> Json:
    answers = {"200": {"description": words, "content": content}}
    return {"operationId": f"get_{name}", "summary": words, "security": [], "responses": answers}
