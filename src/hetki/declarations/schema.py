"""JSON Schema of a kind of declaration, for editors that complete and check while one writes."""

from __future__ import annotations

import msgspec

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(spec: type) -> bytes:
    """The schema of a spec as JSON text (UTF-8), indented."""
    document = {"$schema": DIALECT, **msgspec.json.schema(spec, schema_hook=_anything)}
    return msgspec.json.format(msgspec.json.encode(document), indent=2)


def _anything(kind: type) -> dict[str, str]:
    assert kind is object, f"{kind} is not a type that declarations use"
    return {"description": "any plain value"}
