"""Pages and regions to store; as a program, a process that stores them until it is killed."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from doppel.translate.regions.store import CodeStore, StoredRegion, chunk_hashes


def page(number: int) -> bytes:
    return random.Random(number).randbytes(4096)


def region(number: int, size: int = 1500, variant: int = 0) -> StoredRegion:
    """A region of `page(number)`, always the same for the same arguments."""
    chosen = random.Random(f"{number} {variant}")
    own = page(number)
    chunk = chosen.randrange(60)
    start = chunk * 64 + 2 * chosen.randrange(32)
    length = 2 * chosen.randrange(1, 60)
    beyond = chosen.randbytes(chosen.choice((0, 30)))
    ranges = ((start, length), (4096 + 2 * chosen.randrange(100), len(beyond)))[: 2 if beyond else 1]
    return StoredRegion(
        chunk=chunk,
        chunk_hash=chunk_hashes(own)[chunk],
        ranges=ranges,
        guest=own[start : start + length] + beyond,
        entries=(start, start + 2)[: chosen.randrange(3)],
        code=chosen.randbytes(size),
        extra=chosen.randbytes(chosen.randrange(20)),
    )


def main(path: str, first: int, count: int, batch: int) -> None:
    """Store regions from `first` on, telling after each batch how many there are."""
    store = CodeStore(Path(path), "version")
    for number in range(first, first + count):
        store.put(region(number))
        if (number + 1 - first) % batch == 0:
            store.flush()
            print(number + 1, store.problem, flush=True)
    store.close()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
