"""Names of the guest's code: from files, from kernels, and from files that are none."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doppel.errors import DoppelError
from doppel.guests.kallsyms import read_kallsyms
from doppel.guests.kernel import Kernel, KernelKind, Segment
from doppel.guests.symbols import CodeNames, kernel_symbols, read_symbols

BASE = 0xFFFF_FFFF_8000_0000
PLACE = 0x8020_0000
MAP = f"""\
{BASE:016x} T _start
{BASE + 0x2000:016x} T _text
{BASE + 0x2000:016x} t $x
{BASE + 0x2000:016x} T memset
{BASE + 0x2040:016x} W memcpy
{BASE + 0x3000:016x} D data
{BASE + 0x4000:016x} B _end
"""


def linux(data: bytes = bytes(0x3000), size: int = 0x4000) -> Kernel:
    return Kernel(KernelKind.LINUX, Path("Image"), (Segment(0, data, size),), 0, relocatable=True)


def named(tmp_path: Path, text: str, kernel: Kernel, place: int = PLACE) -> CodeNames:
    path = tmp_path / "System.map"
    path.write_text(text)
    return read_symbols(path).located(kernel, place)


def test_a_map_for_a_linux_image(tmp_path: Path) -> None:
    name = named(tmp_path, MAP, linux())
    assert name(PLACE) == "_start"
    assert name(PLACE + 0x1FFE) == "_start+0x1ffe"
    # The first of two functions at one address.
    assert name(PLACE + 0x2000) == "_text"
    assert name(PLACE + 0x2044) == "memcpy+0x4"
    assert name(PLACE + 0x3000) is None
    assert name(PLACE + 0x4000) is None
    assert name(PLACE - 2) is None
    assert name(BASE) is None


def test_a_map_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(DoppelError, match="_start"):
        named(tmp_path, MAP.replace("_start", "begin"), linux())


def test_a_map_for_a_raw_kernel_has_physical_addresses(tmp_path: Path) -> None:
    raw = Kernel(KernelKind.RAW, Path("k.bin"), (Segment(0, b"x", 1),), 0, relocatable=True)
    name = named(tmp_path, "0000000080000010 T begin\n0000000080000020 A end\n", raw)
    assert (name(0x8000_0012), name(0x8000_0020), name(0x8000_000E)) == ("begin+0x2", None, None)


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"\x7fELF" + bytes(200), b"text\n", bytes(range(256))])
def test_files_without_symbols(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DoppelError, match=str(path)):
        read_symbols(path)


# --- kallsyms ---


def aligned(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)


def tables(symbols: Sequence[tuple[int, str, str]], tokens: Sequence[bytes]) -> bytes:
    """What scripts/kallsyms.c makes of symbols, with names made of ``tokens``, the longest first."""
    numbers = sorted(range(256), key=lambda n: -len(tokens[n]))
    names, markers = bytearray(), []
    for number, (_, kind, name) in enumerate(symbols):
        if number % 256 == 0:
            markers.append(len(names))
        rest, made = (kind + name).encode(), bytearray()
        while rest:
            token = next(n for n in numbers if tokens[n] and rest.startswith(tokens[n]))
            made.append(token)
            rest = rest[len(tokens[token]) :]
        length = len(made)
        names += bytes([length]) if length < 0x80 else bytes([length & 0x7F | 0x80, length >> 7])
        names += made
    table, index = bytearray(), []
    for token in tokens:
        index.append(len(table))
        table += token + b"\0"
    return b"".join(
        (
            struct.pack("<Q", len(symbols)),
            aligned(bytes(names)),
            aligned(struct.pack(f"<{len(markers)}I", *markers)),
            aligned(bytes(table)),
            struct.pack("<256H", *index),
            aligned(struct.pack(f"<{len(symbols)}I", *(address for address, _, _ in symbols))),
            struct.pack("<Q", 0),
        )
    )


# As in real kernels: a character that occurs in names stands for itself, the others for groups of characters.
WORDS = [b"__", b"get_", b"set", b"memcpy", b"init", b".isra.0"]
TOKENS = [bytes([n]) if chr(n).isalnum() or chr(n) in "_.$" else WORDS[n % len(WORDS)] for n in range(256)]
NAMES = st.text(alphabet="abcdefgXYZ_.0123456789", min_size=1, max_size=200)


@given(
    st.lists(
        st.tuples(st.integers(0, 1 << 26), st.sampled_from("TtDdBbRr"), NAMES), min_size=1, max_size=700
    ),
    st.integers(0, 64),
)
def test_what_a_kernel_has_in_itself(symbols: list[tuple[int, str, str]], before: int) -> None:
    symbols = sorted(symbols, key=lambda symbol: symbol[0])
    image = b"\xff" * 8 * before + tables(symbols, TOKENS) + b"\xff" * 64
    lowest = symbols[0][0]
    assert read_kallsyms(image) == [(address - lowest, kind, name) for address, kind, name in symbols]


@given(st.data())
def test_damaged_tables(data: st.DataObject) -> None:
    symbols = [(16 * n, "T", f"function_{n}") for n in range(300)]
    image = bytearray(tables(symbols, TOKENS))
    for _ in range(data.draw(st.integers(1, 20))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(image)))
    found = read_kallsyms(image[:cut])
    assert len(found) <= 512


def test_a_linux_image_names_its_own_functions() -> None:
    image = bytes(0x1000) + tables([(0, "T", "_start"), (0x2000, "t", "idle"), (0x3000, "B", "_end")], TOKENS)
    kernel = linux(image, 0x4000)
    symbols = kernel_symbols(kernel)
    assert symbols is not None
    assert symbols.located(kernel, PLACE)(PLACE + 0x2010) == "idle+0x10"


def test_an_image_without_names() -> None:
    assert kernel_symbols(linux()) is None
