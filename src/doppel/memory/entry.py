"""The format of an f-map entry: one 64-bit word a guest page, read by native code at every TLB fill."""

from __future__ import annotations

__all__ = ["FRAME_MASK", "PAGE_SHIFT", "PAGE_SIZE", "Entry"]

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT

# Bits 12 and up: the frame's offset in the arena.
FRAME_MASK = ~(PAGE_SIZE - 1) & (1 << 64) - 1


class Entry:
    """Flag bits of an entry. Zero: no memory at that guest page (a device's or nobody's)."""

    PRESENT = 1 << 0
    WRITABLE = 1 << 1
    MEMORY = 1 << 2
    CODE = 1 << 3  # decoded instructions exist: a store must reach the engine
