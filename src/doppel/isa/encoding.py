"""Encoding patterns: how an instruction is laid out in 16 or 32 bits, and what follows from that.

A pattern is the manual's instruction table row, most significant bit first::

    "imm[11:0] rs1 000 rd 0010011"

Binary literals are fixed bits. ``name[slices]`` places the listed bits of a value (``imm[12|10:5]``);
register and a few other fields have a known width and need no slices; a prime (``rd'``) is the three-bit
register field of the compressed formats. From a pattern come the mask and match for decoding, the encoder,
and the extraction of fields.

Every decoded instruction fits one shape, the *operands*: four register numbers ``rd rs1 rs2 rs3`` and one
signed 32-bit ``imm``. ``Field.slot`` says where a field goes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["Field", "Operands", "Pattern", "Piece", "Slot"]

Slot = Literal["rd", "rs1", "rs2", "rs3", "imm", ""]
SLOTS: tuple[Slot, ...] = ("rd", "rs1", "rs2", "rs3", "imm")

_REGISTER_SLOTS: dict[str, Slot] = {
    "rd": "rd",
    "rs1": "rs1",
    "rs2": "rs2",
    "rs3": "rs3",
    "fd": "rd",
    "fs1": "rs1",
    "fs2": "rs2",
    "fs3": "rs3",
}
# Fields with a width of their own; those without a slot do not change what the instruction does here.
_PLAIN_FIELDS: dict[str, tuple[int, Slot]] = {
    "csr": (12, "imm"),
    "rm": (3, "imm"),
    "zimm": (5, "rs1"),
    "aq": (1, ""),
    "rl": (1, ""),
    "fm": (4, ""),
    "pred": (4, ""),
    "succ": (4, ""),
}
_SIGNED = {"imm", "nzimm"}
_SLICED = {"imm", "nzimm", "uimm", "nzuimm", "shamt"}


@dataclass(frozen=True)
class Piece:
    """``width`` bits of the instruction from ``lsb`` up are bits ``value_lsb`` and up of the field's
    value."""

    lsb: int
    width: int
    value_lsb: int


@dataclass(frozen=True)
class Field:
    """One named field of a pattern."""

    name: str
    pieces: tuple[Piece, ...]
    slot: Slot
    signed: bool = False
    bias: int = 0

    @property
    def width(self) -> int:
        """Bits of the value, counted from bit 0 (a scaled immediate has zero bits below its lowest piece)."""
        return max(piece.value_lsb + piece.width for piece in self.pieces)

    @property
    def mask(self) -> int:
        """The instruction bits that the field occupies."""
        mask = 0
        for piece in self.pieces:
            mask |= ((1 << piece.width) - 1) << piece.lsb
        return mask

    def values(self) -> range:
        """Every value that can be encoded, in order."""
        step = 1 << min(piece.value_lsb for piece in self.pieces)
        if self.signed:
            return range(-(1 << (self.width - 1)), 1 << (self.width - 1), step)
        return range(self.bias, self.bias + (1 << self.width), step)

    def extract(self, word: int) -> int:
        """The field's value in an instruction."""
        value = 0
        for piece in self.pieces:
            value |= (word >> piece.lsb & ((1 << piece.width) - 1)) << piece.value_lsb
        if self.signed and value >> (self.width - 1):
            value -= 1 << self.width
        return value + self.bias

    def insert(self, value: int) -> int:
        """The instruction bits for a value.

        Raises:
            ValueError: the value cannot be encoded.
        """
        if value not in self.values():
            raise ValueError(f"{self.name} cannot be {value}")
        value -= self.bias
        word = 0
        for piece in self.pieces:
            word |= (value >> piece.value_lsb & ((1 << piece.width) - 1)) << piece.lsb
        return word


@dataclass
class Operands:
    """What the fields of one decoded instruction hold: register numbers and a signed immediate."""

    rd: int = 0
    rs1: int = 0
    rs2: int = 0
    rs3: int = 0
    imm: int = 0


@dataclass(frozen=True)
class Pattern:
    """A parsed encoding pattern."""

    text: str
    width: int
    mask: int
    match: int
    fields: tuple[Field, ...]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Parse a pattern; the widths must add up to 16 or 32 bits.

        Raises:
            ValueError: the text is not a pattern.
        """
        tokens = [_parse_token(token) for token in text.split()]
        width = sum(token.width for token in tokens)
        if width not in (16, 32):
            raise ValueError(f"pattern {text!r} has {width} bits")
        lsb, mask, match = width, 0, 0
        pieces: dict[str, list[Piece]] = {}
        for token in tokens:
            lsb -= token.width
            if token.bits is not None:
                mask |= ((1 << token.width) - 1) << lsb
                match |= token.bits << lsb
                continue
            offset = token.width
            for piece_width, value_lsb in token.slices:
                offset -= piece_width
                pieces.setdefault(token.name, []).append(Piece(lsb + offset, piece_width, value_lsb))
        return cls(
            text, width, mask, match, tuple(_field(name, tuple(parts)) for name, parts in pieces.items())
        )

    @property
    def length(self) -> int:
        """Bytes."""
        return self.width // 8

    def field(self, name: str) -> Field:
        """The field of that name.

        Raises:
            KeyError: the pattern has none.
        """
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(name)

    def encode(self, values: dict[str, int]) -> int:
        """The instruction with those field values; fields without a slot may be left out.

        Raises:
            ValueError: a value cannot be encoded.
            KeyError: a value is missing.
        """
        word = self.match
        for field in self.fields:
            word |= field.insert(values[field.name] if field.slot else values.get(field.name, 0))
        return word


@dataclass(frozen=True)
class _Token:
    name: str
    width: int
    slices: tuple[tuple[int, int], ...] = ()
    bits: int | None = None


def _parse_token(token: str) -> _Token:
    if re.fullmatch("[01]+", token):
        return _Token("", len(token), bits=int(token, 2))
    parsed = re.fullmatch(r"([a-z0-9]+'?)(?:\[([0-9|:]+)\])?", token)
    if parsed is None:
        raise ValueError(f"not a pattern token: {token!r}")
    name, slices_text = parsed.groups()
    if slices_text is None:
        if name.rstrip("'") in _REGISTER_SLOTS:
            width = 3 if name.endswith("'") else 5
        elif name in _PLAIN_FIELDS:
            width = _PLAIN_FIELDS[name][0]
        else:
            raise ValueError(f"field {name!r} needs slices")
        return _Token(name, width, ((width, 0),))
    slices = []
    for part in slices_text.split("|"):
        top, _, bottom = part.partition(":")
        slices.append((int(top) - int(bottom or top) + 1, int(bottom or top)))
    return _Token(name, sum(width for width, _ in slices), tuple(slices))


def _field(name: str, pieces: tuple[Piece, ...]) -> Field:
    plain = name.rstrip("'")
    if plain in _REGISTER_SLOTS:
        return Field(name, pieces, _REGISTER_SLOTS[plain], bias=8 if name.endswith("'") else 0)
    if name in _PLAIN_FIELDS:
        return Field(name, pieces, _PLAIN_FIELDS[name][1])
    if name not in _SLICED:
        raise ValueError(f"unknown field {name!r}")
    return Field(name, pieces, "imm", signed=name in _SIGNED)
