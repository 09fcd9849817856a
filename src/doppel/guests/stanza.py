"""Debian's control-file syntax (deb822(5)): package control files, apt's answers, `.sources` files."""

from __future__ import annotations

__all__ = ["parse"]


def parse(text: str) -> list[dict[str, str]]:
    """The stanzas of a file, each a mapping from field name to value.

    Field names are given in the spelling of the file; continuation lines are joined with newlines, without
    their leading blank. Comments and lines that are no field are ignored.
    """
    stanzas: list[dict[str, str]] = []
    fields: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if not line.strip():
            if fields:
                stanzas.append(fields)
            fields, name = {}, ""
        elif line.startswith("#"):
            continue
        elif line[0] in " \t":
            if name:
                fields[name] += "\n" + line.strip()
        elif ":" in line:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    if fields:
        stanzas.append(fields)
    return stanzas
