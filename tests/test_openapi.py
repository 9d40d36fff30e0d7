"""The description of the ways in is true: every path answers with every status, and takes its bodies."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import msgspec
import pytest
from test_door import Served, connected, served, warm  # noqa: F401  (fixtures)
from test_ingest import AUTH, House

from hetki.server.ingest import KINDS, Answer
from hetki.server.openapi import NEEDS, document
from hetki.server.status import AGAIN, RETRY_AFTER_S, Refusal
from hetki.settings import Limits

SAID: dict[str, Any] = json.loads(document(Limits()))
WAYS = {path: each["post"] for path, each in SAID["paths"].items() if "post" in each}


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    found = House()
    yield found
    found.committer.stop()


def test_it_describes_every_way_in_and_nothing_that_is_not_there() -> None:
    assert set(SAID["paths"]) == {*(f"/v1/{path}" for path in KINDS), "/v1/health", "/openapi.json"}
    assert SAID["openapi"].startswith("3.1.")
    refs = set(find(SAID, "$ref"))
    assert refs == {f"#/components/schemas/{name}" for name in SAID["components"]["schemas"]}
    operations = [each["operationId"] for path in SAID["paths"].values() for each in path.values()]
    assert len(set(operations)) == len(operations)


def find(value: Any, key: str) -> Iterator[Any]:
    """Every value under a key, at any depth."""
    for name, each in value.items() if isinstance(value, dict) else ():
        if name == key:
            yield each
        yield from find(each, key)
    for each in value if isinstance(value, list) else ():
        yield from find(each, key)


# -- statuses ------------------------------------------------------------------------------------------


def asked(path: str, status: int) -> bytes:
    """A request, as bytes, that is answered so by a running server with little patience."""
    kind = KINDS[path.removeprefix("/v1/")]
    body = json.dumps(example(kind)).encode() if status != 400 else b"["
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {media(kind)}\r\n"
    head += "authorization: Bearer key-web\r\n" if status != 401 else ""
    length = {408: len(body) + 1, 413: 10**8}.get(status, len(body))
    head += "a: b\r\n" * (200 if status == 431 else 0) + f"content-length: {length}\r\n\r\n"
    if status == 414:
        head = head.replace(path, f"{path}?{'a' * 5_000}")
    return head.encode() + body


def media(kind: str) -> str:
    return "application/cloudevents+json" if kind == "cloudevents" else "application/json"


def example(kind: str) -> object:
    """The least that is kept."""
    if kind == "cloudevents":
        return {"specversion": "1.0", "id": "1", "source": "s", "type": "T"}
    if kind == "batch":
        return {"batch": [{"type": each, **least(each)} for each in ("track", "identify", "page", "group")]}
    return least(kind)


def least(call: str) -> dict[str, object]:
    return {"userId": "u", **dict.fromkeys(NEEDS.get(call, ()), "x")}


def test_a_running_server_answers_every_path_with_every_status(served: Served) -> None:  # noqa: F811
    told = httpx.get("http://{}:{}/openapi.json".format(*served.address))
    assert told.status_code == 200 and told.headers["content-type"] == "application/json"
    said = told.json()
    cases = [
        (path, int(status))
        for path, each in said["paths"].items()
        for status in each.get("post", {"responses": {}})["responses"]
        if int(status) not in AGAIN
    ]

    async def one(path: str, status: int) -> bytes:
        async with connected(served.address) as (reader, writer):
            writer.write(asked(path, status))
            return await asyncio.wait_for(reader.read(), 30)

    async def all_of_them() -> list[bytes]:
        return await asyncio.gather(*(one(*case) for case in cases))

    for (path, status), answer in zip(cases, asyncio.run(all_of_them()), strict=True):
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ".encode()), (path, status, answer)
        msgspec.json.decode(body, type=Answer if status == 200 else Refusal, strict=True)
    assert {status for _, status in cases} == {200, 400, 401, 408, 413, 414, 431}
    for path in ("/v1/health", "/openapi.json"):
        assert httpx.get("http://{}:{}{}".format(*served.address, path)).status_code == 200
        assert list(said["paths"][path]["get"]["responses"]) == ["200"]


@pytest.mark.parametrize("path", WAYS)
def test_who_is_to_come_again_is_told_when(path: str) -> None:
    kind = KINDS[path.removeprefix("/v1/")]
    full, stopped = House(n_requests_max=0), House()
    stopped.committer.stop()
    for status, house in ((429, full), (503, stopped)):
        body = json.dumps(example(kind)).encode()
        answer = house.send(path, body, {**AUTH, "content-type": media(kind)})
        assert answer.status_code == status and answer.headers["retry-after"] == str(RETRY_AFTER_S)
        msgspec.json.decode(answer.content, type=Refusal)
        assert "Retry-After" in WAYS[path]["responses"][str(status)]["headers"]
    full.committer.stop()
    assert {str(each) for each in AGAIN} <= set(WAYS[path]["responses"])


# -- bodies --------------------------------------------------------------------------------------------


class NoSuchValue(Exception):
    """A choice between parts that allows no value; another choice may."""


def listed(kinds: str | list[str]) -> list[str]:
    return [kinds] if isinstance(kinds, str) else kinds


def flat(schema: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """One schema without references and choices: what a value must keep of all its parts."""
    found = {key: each for key, each in schema.items() if key not in ("$ref", "allOf", "anyOf", "if", "then")}
    parts = [] if "$ref" not in schema else [SAID["components"]["schemas"][schema["$ref"].split("/")[-1]]]
    parts += schema.get("allOf", [])
    parts += [chance.choice(schema["anyOf"])] if "anyOf" in schema else []
    for part in parts:
        for key, each in flat(part, chance).items():
            if key == "required":
                found[key] = [*found.get(key, []), *each]
            elif key == "properties":
                held = found.setdefault(key, {})
                for name, inner in each.items():
                    held[name] = {"allOf": [held[name], inner]} if name in held else inner
            elif key == "type" and key in found:
                both = [kind for kind in listed(each) if kind in listed(found[key])]
                if not both:
                    raise NoSuchValue
                found[key] = both
            elif key == "minLength" or key not in found:
                found[key] = each
    return found


def made(schema: dict[str, Any], chance: random.Random) -> Any:
    """A value that the schema allows."""
    if "if" in str(schema.get("items", "")):
        return [made_call(schema["items"], chance) for _ in range(chance.randrange(4))]
    found = None
    while found is None:
        with suppress(NoSuchValue):
            found = flat(schema, chance)
    if "const" in found or "enum" in found:
        return found.get("const") or chance.choice(found["enum"])
    kind = found.get("type", "object")
    if isinstance(kind, list):
        kind = chance.choice(kind)
    if found.get("format") == "date-time":
        hour, zone = chance.randrange(10), chance.choice(["Z", "+02:00", "-03:30"])
        return f"2025-06-11T1{hour}:11:12.{chance.randrange(10**6):06}{zone}"
    if "contentEncoding" in found and kind == "string":
        return base64.b64encode(b'{"a": 1}').decode()
    if kind == "string":
        n_min, n_max = found.get("minLength", 0), min(found.get("maxLength", 40) - 1, chance.choice([8, 600]))
        return ("x" if "pattern" in found else "") + "".join(
            chance.choices('ab<>"\\é漢🎉 0', k=chance.randint(n_min, max(n_min, n_max)))
        )
    if kind == "integer":
        return chance.choice([0, 7, -1, 2**63 - 1])
    if kind in ("null", "boolean"):
        return None
    if kind == "array":
        return [made(found["items"], chance) for _ in range(chance.randrange(4))]
    return members(found, chance)


def members(found: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    needed = set(found.get("required", ()))
    told = {
        name: made(each, chance)
        for name, each in found.get("properties", {}).items()
        if name != "writeKey" and (name in needed or chance.random() < 0.3)
    }
    if "additionalProperties" in found:
        told |= {
            f"field {n}": chance.choice([1, "x", None, [1], {"a": 1.5}]) for n in range(chance.randrange(4))
        }
    return told


def made_call(item: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """One call of a batch, by the branch that its type leads to."""
    branch = chance.choice([each for each in item["allOf"] if "if" in each])
    plain = [each for each in item["allOf"] if "if" not in each]
    found: dict[str, Any] = made({"allOf": [branch["then"], *plain]}, chance)
    return {**found, "type": branch["if"]["properties"]["type"]["const"]}


@pytest.mark.parametrize("path", WAYS)
def test_what_the_description_allows_is_taken_in_whole(house: House, path: str) -> None:
    chance = random.Random(f"openapi {path}")

    async def story(client: httpx.AsyncClient) -> None:
        for n in range(40):
            for kind, held in WAYS[path]["requestBody"]["content"].items():
                value = made(held["schema"], chance)
                headers = {**AUTH, "content-type": kind}
                if "data alone" in str(held):
                    headers |= {"ce-specversion": "1.0", "ce-id": str(n), "ce-source": "s", "ce-type": "T"}
                answer = await client.post(path, content=json.dumps(value), headers=headers)
                assert (answer.status_code, answer.json()) == (200, {"success": True, "n_rejected": 0}), (
                    house.journal.rejected[-1].fault
                )

    house.run(story)


@pytest.mark.parametrize("call", NEEDS)
def test_without_what_a_call_needs_it_is_rejected(house: House, call: str) -> None:
    whole = least(call)
    for name in whole:
        if name == "userId" and call != "alias":
            continue  # an anonymous id would do; without either:
        lacking = {key: each for key, each in whole.items() if key != name}
        assert house.send(f"/v1/{call}", json.dumps(lacking).encode()).json()["n_rejected"] == 1, name
    assert house.send(f"/v1/{call}", b'{"event": "E", "groupId": "g"}').json()["n_rejected"] == 1
