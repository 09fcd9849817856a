"""Writing LLVM IR as text: values, temporaries, labels, local variables."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Emitter", "LoweringError", "Value", "constant"]

WIDTHS = {"i1": 1, "i8": 8, "i16": 16, "i32": 32, "i64": 64, "i128": 128}


class LoweringError(Exception):
    """A definition is not in the language that can be compiled."""


@dataclass(frozen=True)
class Value:
    """An SSA value or, with ``type`` ``"const"``, an integer whose width the use decides."""

    text: str
    type: str
    number: int = 0


def constant(number: int) -> Value:
    """A compile-time integer, or a bool."""
    return Value(str(int(number)), "const", number if isinstance(number, bool) else int(number))


class Emitter:
    """The body of one function under construction; ``prefix`` begins every name that it makes."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.lines: list[str] = []
        self.allocas: list[str] = []
        self.terminated = False
        self._temporaries = 0
        self._labels = 0

    def temporary(self) -> str:
        """A fresh SSA name."""
        self._temporaries += 1
        return f"%{self.prefix}t{self._temporaries}"

    def label(self, stem: str) -> str:
        """A fresh block name."""
        self._labels += 1
        return f"{self.prefix}{stem}{self._labels}"

    def raw(self, line: str) -> None:
        """An instruction that gives no value; lost if the block has ended already."""
        if not self.terminated:
            self.lines.append("  " + line)

    def op(self, kind: str, text: str) -> Value:
        """An instruction that gives a value of type ``kind``."""
        name = self.temporary()
        self.raw(f"{name} = {text}")
        return Value(name, kind)

    def begin(self, label: str) -> None:
        """Start a block; the one before falls through to it if it has not ended."""
        self.jump(label)
        self.lines.append(f"{label}:")
        self.terminated = False

    def jump(self, label: str) -> None:
        """End the block with a branch."""
        self.terminate(f"br label %{label}")

    def branch(self, condition: Value, then: str, otherwise: str, *, unlikely: bool = False) -> None:
        """End the block with a conditional branch."""
        weights = ", !prof !0" if unlikely else ""
        self.terminate(f"br i1 {self.cast(condition, 'i1').text}, label %{then}, label %{otherwise}{weights}")

    def terminate(self, line: str) -> None:
        """End the block."""
        self.raw(line)
        self.terminated = True

    def alloca(self, kind: str) -> str:
        """A local variable; SROA makes it an SSA value."""
        self._temporaries += 1
        name = f"%{self.prefix}v{self._temporaries}"
        self.allocas.append(f"  {name} = alloca {kind}")
        return name

    def cast(self, value: Value, kind: str) -> Value:
        """The value as ``kind``: constants take any width, words are extended with zeros or cut."""
        if value.type == kind:
            return value
        if value.type == "const":
            if kind == "ptr":
                raise LoweringError("a constant is not a pointer")
            number = int(value.number != 0) if kind == "i1" else value.number % (1 << WIDTHS[kind])
            return Value(str(number), kind)
        if "ptr" in (value.type, kind):
            raise LoweringError(f"{value.type} is not {kind}")
        if kind == "i1":
            return self.op("i1", f"icmp ne {value.type} {value.text}, 0")
        action = "zext" if WIDTHS[kind] > WIDTHS[value.type] else "trunc"
        return self.op(kind, f"{action} {value.type} {value.text} to {kind}")

    def word(self, value: Value) -> Value:
        """The value as 64 bits."""
        return self.cast(value, "i64")

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        """``a`` if the condition holds, else ``b``; of one type."""
        kind = a.type if a.type != "const" else b.type if b.type != "const" else "i64"
        chosen, other = self.cast(a, kind), self.cast(b, kind)
        return self.op(
            kind,
            f"select i1 {self.cast(condition, 'i1').text}, {kind} {chosen.text}, {kind} {other.text}",
        )

    def address(self, base: str, offset: Value | int) -> str:
        """A pointer ``offset`` bytes behind ``base``."""
        if isinstance(offset, int):
            return base if offset == 0 else self.op("ptr", f"getelementptr i8, ptr {base}, i64 {offset}").text
        return self.op("ptr", f"getelementptr i8, ptr {base}, i64 {self.word(offset).text}").text

    def load(self, kind: str, base: str, offset: Value | int = 0, *, atomic: str = "") -> Value:
        """Load a value of ``kind``; ``atomic`` gives an ordering."""
        pointer = self.address(base, offset)
        if atomic:
            align = WIDTHS[kind] // 8
            return self.op(kind, f"load atomic {kind}, ptr {pointer} {atomic}, align {align}")
        return self.op(kind, f"load {kind}, ptr {pointer}")

    def store(self, value: Value, kind: str, base: str, offset: Value | int = 0) -> None:
        """Store a value as ``kind``."""
        pointer = self.address(base, offset)
        self.raw(f"store {kind} {self.cast(value, kind).text}, ptr {pointer}")

    def body(self) -> str:
        """The function's text between its braces."""
        return "\n".join(["entry:", *self.allocas, *self.lines])
