"""Objects that cannot be put anywhere are refused."""

from __future__ import annotations

import struct

import llvmlite.binding as llvm
import pytest

from doppel.processor.arena import CodeArena
from doppel.translate.build import target_machine
from doppel.translate.regions.link import LinkError, link

FUNCTION = "define i64 @region(i64 %a) {\n  %r = mul i64 %a, 3\n  ret i64 %r\n}\n"


def compiled(text: str) -> bytes:
    machine = target_machine()
    module = llvm.parse_assembly(f'target triple = "{machine.triple}"\n{text}')
    return bytes(machine.emit_object(module))


def test_code_runs_where_it_is_put() -> None:
    import ctypes

    arena = CodeArena(1 << 16)
    function = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)
    for _ in range(3):
        address = arena.place(link(compiled(FUNCTION)))
        assert address is not None and function(address)(14) == 42
    arena.close()


@pytest.mark.parametrize(
    "text",
    [
        "declare i64 @elsewhere()\ndefine i64 @region() {\n  %r = call i64 @elsewhere()\n  ret i64 %r\n}\n",
        "@data = global i64 5\ndefine i64 @region() {\n  %r = load i64, ptr @data\n  ret i64 %r\n}\n",
        "@data = internal global i64 0\ndefine ptr @region() {\n  ret ptr @data\n}\n",
        "@data = external global i64\ndefine ptr @region() {\n  ret ptr @data\n}\n",
    ],
    ids=["a function elsewhere", "data that changes", "empty data", "data elsewhere"],
)
def test_what_refers_to_something_else(text: str) -> None:
    with pytest.raises(LinkError):
        link(compiled(text))


def test_another_host() -> None:
    image = bytearray(compiled(FUNCTION))
    struct.pack_into("<H", image, 18, 243)
    with pytest.raises(LinkError, match="machine 243"):
        link(bytes(image))


# --- the arena ---


def test_the_arena_gives_out_what_it_has_and_no_more() -> None:
    arena = CodeArena(8192)
    first = arena.place(b"\xc3" * 100)
    second = arena.place(b"\xc3" * 4000)
    assert first == arena.address and second is not None and second % 64 == 0 and second >= first + 100
    assert arena.place(b"\xc3" * 5000) is None
    assert arena.holds(first) and not arena.holds(arena.address - 1) and not arena.holds(arena.address + 8192)
    arena.clear()
    assert arena.place(b"\xc3" * 8192) == first
    assert arena.place(b"\xc3") is None
    arena.close()
