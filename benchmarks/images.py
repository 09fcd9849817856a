"""Disk images to read from."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["MIB", "write_image"]

MIB = 1 << 20


def write_image(path: Path, size: int) -> int:
    """A file of whole MiB (at least one) without holes, and thereby in the page cache; its size in bytes."""
    block = os.urandom(MIB)
    blocks = max(1, size // MIB)
    with path.open("wb") as file:
        for _ in range(blocks):
            file.write(block)
    return blocks * MIB
