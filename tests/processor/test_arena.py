"""Memory for code: what is written at one address is executed at another."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path

import pytest

from doppel.processor.arena import CodeArena
from doppel.processor.coverage import Coverage

# mov eax, 42; ret
ANSWER = bytes.fromhex("b82a000000c3")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the code is for x86-64")
def test_code_is_executed() -> None:
    arena = CodeArena(1 << 16)
    address = arena.place(ANSWER)
    assert address is not None
    assert ctypes.CFUNCTYPE(ctypes.c_int)(address)() == 42
    arena.close()


def test_no_mapping_is_writable_and_executable() -> None:
    before = Path("/proc/self/maps").read_text().splitlines()
    arena = CodeArena(1 << 20)
    new = [line for line in Path("/proc/self/maps").read_text().splitlines() if line not in before]
    rights = sorted(line.split()[1] for line in new if "/dev/zero" in line)
    assert rights == ["r-xs", "rw-s"]
    arena.close()
    left = [line for line in Path("/proc/self/maps").read_text().splitlines() if line not in before]
    assert not any("/dev/zero" in line for line in left)


def test_room_is_bounded_and_given_back() -> None:
    arena = CodeArena(4096)
    first = arena.place(bytes(100))
    second = arena.place(bytes(3900))
    assert first == arena.address
    assert second == arena.address + 128
    assert arena.holds(arena.address) and not arena.holds(arena.address + 4096)
    assert arena.place(bytes(100)) is None
    arena.clear()
    assert arena.place(bytes(4096)) == arena.address
    arena.close()


def test_coverage() -> None:
    coverage = Coverage()
    assert coverage.share is None
    coverage.add(5, [(0, 4), (10, 6), (4090, 6)])
    held = [offset for offset in range(0, 4096, 2) if coverage.holds(5 * 4096 + offset)]
    assert held == [0, 2, 10, 12, 14, 4090, 4092, 4094]
    coverage.count({5 * 4096: 3, 5 * 4096 + 4: 1, 6 * 4096: 4})
    assert coverage.share == 3 / 8
    coverage.forget()
    coverage.count({5 * 4096: 8})
    assert coverage.share == 3 / 16
