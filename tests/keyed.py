"""Write keys for tests: known keys, declared as their digests. `hetki key` makes those of people."""

from __future__ import annotations

from pathlib import Path

from hetki.consent.source import WriteKey, digest_of


def keyed(*keys: str) -> list[WriteKey]:
    """What a source declares of keys."""
    return [WriteKey(digest_of(key)) for key in keys]


def entry(key: str, more: str = "") -> str:
    """The same of one key as YAML in one line; `more` are further fields of it."""
    return f"{{digest: {digest_of(key)}{', ' if more else ''}{more}}}"


def open_sources(project: Path, prefix: str) -> None:
    """Give each source of a project a key, its own name behind a prefix."""
    for file in sorted((project / "sources").glob("*.yaml")):
        text = file.read_text()
        assert "write_keys: []" in text, file
        file.write_text(text.replace("write_keys: []", f"write_keys: [{entry(prefix + file.stem)}]"))
