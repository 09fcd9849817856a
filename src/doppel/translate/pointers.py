"""What engine functions may do besides the language of :mod:`doppel.isa.words`: pointers, atomics, leaving.

Engine functions are compiled only; these names exist for the compiler and for type checkers. A parameter
annotated :class:`Pointer` is a host address. Offsets are bytes.
"""

from __future__ import annotations

from typing import Any, NoReturn

from doppel.isa.words import Word

__all__ = [
    "Pointer",
    "add_machine",
    "address_of",
    "call_native",
    "compare_exchange",
    "exchange",
    "fetch_add32",
    "fetch_and",
    "fetch_or",
    "fill_zero",
    "is_null",
    "machine",
    "memory_barrier",
    "null",
    "offset",
    "pointer_bits",
    "raise_exit",
    "read",
    "read_pointer",
    "set_machine",
    "symbol",
    "write",
    "write_pointer",
]


class Pointer:
    """A host address in native code."""


def _native_only() -> NoReturn:
    raise TypeError("engine functions run only as native code")


def machine(h: Any, name: str) -> Any:
    """A field of the hart's machine structure: a Word or a Pointer, as its type says."""
    _native_only()


def set_machine(h: Any, name: str, value: Any) -> None:
    """Set a field of the hart's machine structure."""
    _native_only()


def add_machine(h: Any, name: str, value: int) -> Word:
    """Atomically add to a field of the machine structure; what it held before."""
    _native_only()


def address_of(h: Any, name: str) -> Pointer:
    """The address of a field of the hart's structure."""
    _native_only()


def offset(base: Pointer, distance: int) -> Pointer:
    """The pointer ``distance`` bytes on."""
    _native_only()


def is_null(pointer: Pointer) -> bool:
    """Whether it points nowhere."""
    _native_only()


def null() -> Pointer:
    """The pointer to nowhere."""
    _native_only()


def pointer_bits(pointer: Pointer) -> Word:
    """The address as a number."""
    _native_only()


def symbol(name: str) -> Pointer:
    """The address of a symbol of the engine's module."""
    _native_only()


def read(base: Pointer, distance: int, size: int) -> Word:
    """Load ``size`` (constant) bytes, zero-extended; need not be aligned."""
    _native_only()


def write(base: Pointer, distance: int, size: int, value: int) -> None:
    """Store the low ``size`` (constant) bytes; need not be aligned."""
    _native_only()


def read_pointer(base: Pointer, distance: int) -> Pointer:
    """Load a pointer."""
    _native_only()


def write_pointer(base: Pointer, distance: int, value: Pointer) -> None:
    """Store a pointer; other harts see it after what was stored before."""
    _native_only()


def exchange(base: Pointer, distance: int, value: int) -> Word:
    """Atomically replace 8 bytes; the old ones."""
    _native_only()


def fetch_or(base: Pointer, distance: int, value: int) -> Word:
    """Atomically set bits in 8 bytes; the old ones."""
    _native_only()


def fetch_add32(base: Pointer, distance: int, value: int) -> Word:
    """Atomically add to 4 bytes; the old ones."""
    _native_only()


def fetch_and(base: Pointer, distance: int, value: int) -> Word:
    """Atomically keep only these bits in 8 bytes; the old ones."""
    _native_only()


def compare_exchange(base: Pointer, distance: int, size: int, expected: int, value: int) -> bool:
    """Atomically replace ``size`` (4 or 8) bytes if they are as expected; whether they were."""
    _native_only()


def memory_barrier() -> None:
    """A full barrier of the host."""
    _native_only()


def fill_zero(base: Pointer, size: int) -> None:
    """Zero ``size`` bytes."""
    _native_only()


def call_native(function: Pointer, *arguments: Any) -> Word:
    """Call a C function with integer and pointer arguments."""
    _native_only()


def raise_exit(h: Any, reason: int, address: int, size: int, access: int, value: int) -> NoReturn:
    """Leave for Python; the instruction runs again when the hart resumes."""
    _native_only()
