"""YAML to a tree with places.

Only plain data (law 10): tags, anchors, aliases and second documents are refused.
The scalars are those of YAML 1.2's core schema, so `no` and `2027-03-31` stay text.
"""

from __future__ import annotations

import re
from dataclasses import replace

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from hetki.declarations.tree import Kind, Node, Parsed, Scalar, place
from hetki.errors import Fault, shown
from hetki.settings import Limits

_INTEGER = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_HINTS = {
    "mapping values are not allowed here": "text that holds ': ' needs quotes",
    "found character '\\t' that cannot start any token": "indent with spaces, not with tabs",
    "found unexpected end of stream": "a quote or a bracket is not closed",
}


def parse_yaml(text: str, path: str) -> Parsed:
    """The tree of one YAML document; never raises. Broken YAML gives one fault at its place."""
    builder = _Builder(path)
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            builder.take(event)
            if builder.ended:
                break
    except ReaderError as error:
        character = error.character if isinstance(error.character, str) else chr(int(error.character))
        must = "text without control characters"
        return Parsed(None, [Fault(place(path, text, error.position), shown(character), must)])
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else path
        problem = str(error.problem or error.context or "it cannot be read")
        hint = _HINTS.get(problem, "")
        return Parsed(None, [Fault(where, f"broken YAML ({problem})", "well-formed YAML", hint)])
    except (YAMLError, ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        return Parsed(None, [Fault(path, f"broken YAML ({shown(str(error))})", "well-formed YAML")])
    return builder.parsed()


class _Builder:
    """Puts parser events together into nodes, with a stack instead of recursion."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.faults: list[Fault] = []
        self.open: list[tuple[Node, list[Node]]] = []
        self.root: Node | None = None
        self.n_documents = 0
        self.ended = False

    def take(self, event: Event) -> None:
        if isinstance(event, DocumentStartEvent):
            self.n_documents += 1
            if self.n_documents > 1:
                self._stop(self._where(event), "a second document", "one document per file")
        elif isinstance(event, (MappingStartEvent, SequenceStartEvent)):
            kind: Kind = "map" if isinstance(event, MappingStartEvent) else "list"
            self._refuse_references(event)
            self.open.append((Node(kind, self._where(event), index=event.start_mark.index), []))
            if len(self.open) > Limits().depth_max:
                self._stop(self._where(event), "deeper nesting", f"at most {Limits().depth_max} levels deep")
        elif isinstance(event, (MappingEndEvent, SequenceEndEvent)):
            node, children = self.open.pop()
            self._add(self._map(node, children) if node.kind == "map" else replace(node, items=children))
        elif isinstance(event, (ScalarEvent, AliasEvent)):
            self._add(self._scalar(event))

    def parsed(self) -> Parsed:
        if self.ended:
            return Parsed(None, self.faults)
        return Parsed(self.root or Node("nothing", f"{self.path}:1:1", index=0), self.faults)

    def _where(self, event: Event) -> str:
        return f"{self.path}:{event.start_mark.line + 1}:{event.start_mark.column + 1}"

    def _stop(self, where: str, got: str, must: str) -> None:
        self.faults, self.ended = [Fault(where, got, must)], True

    def _add(self, node: Node) -> None:
        if self.open:
            self.open[-1][1].append(node)
        else:
            self.root = node

    def _refuse_references(self, event: NodeEvent) -> bool:
        """Whether the event carries a tag, an anchor or an alias; each is a fault."""
        where, before = self._where(event), len(self.faults)
        if event.anchor is not None:
            got = f"{'*' if isinstance(event, AliasEvent) else '&'}{event.anchor}"
            self.faults.append(Fault(where, shown(got), "a value without references", "write it out"))
        tag = getattr(event, "tag", None)
        if tag is not None:
            self.faults.append(Fault(where, f"the tag {shown(str(tag))}", "a value without a tag"))
        return len(self.faults) > before

    def _scalar(self, event: ScalarEvent | AliasEvent) -> Node:
        where, index = self._where(event), event.start_mark.index
        if self._refuse_references(event) or isinstance(event, AliasEvent):
            return Node("broken", where, index=index)
        if event.style:
            return self._text(event, where, index)
        kind, value = _resolve(event.value)
        if kind == "broken":
            self.faults.append(Fault(where, shown(event.value), "a number of at most 18 digits"))
        return Node(kind, where, index=index, scalar=value)

    def _text(self, event: ScalarEvent, where: str, index: int) -> Node:
        """Quoted text. Escapes can write what no file may hold: NUL and halves of characters."""
        try:
            text = event.value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            self.faults.append(Fault(where, shown(event.value), "text without NUL and half characters"))
            return Node("broken", where, index=index)
        return Node("text", where, index=index, scalar=text)

    def _map(self, node: Node, children: list[Node]) -> Node:
        entries: dict[str, Node] = {}
        for key, value in zip(children[::2], children[1::2], strict=True):
            if key.kind in ("list", "map", "nothing"):
                self.faults.append(Fault(key.where, f"a {key.kind} as a key", "a name"))
            elif key.kind != "broken":
                name = key.scalar if isinstance(key.scalar, str) else str(key.scalar).lower()
                if name in entries:
                    first = entries[name].key_where.removeprefix(self.path + ":").split(":")[0]
                    got = f"{shown(name)} a second time"
                    self.faults.append(Fault(key.where, got, "given once", f"the first is in line {first}"))
                else:
                    entries[name] = replace(value, key_where=key.where)
        return replace(node, entries=entries)


def _resolve(text: str) -> tuple[Kind, Scalar]:
    """A plain scalar's kind and value."""
    if text in ("", "~", "null", "Null", "NULL"):
        return "nothing", None
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return "boolean", text.lower() == "true"
    if _INTEGER.fullmatch(text):
        return ("integer", int(text)) if len(text.lstrip("+-")) <= 18 else ("broken", None)
    if _NUMBER.fullmatch(text):
        number = float(text)
        return ("number", number) if abs(number) < 1e300 else ("broken", None)
    return "text", text
