"""The native decoder: from instruction bits to a record, by a table made from the encoding patterns.

The table has a row for every instruction, sorted by :func:`doppel.isa.instruction.decode_key`; a row's
*format* says which fields go to which operand. Formats are few, and each is a piece of straight code.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from doppel.isa.encoding import SLOTS, Field
from doppel.isa.instruction import DECODE_KEYS, Instruction, InstructionSet, decode_keys
from doppel.isa.primitives import Hart
from doppel.isa.state import SINK
from doppel.isa.words import Word
from doppel.translate.emitter import Emitter, Value, constant
from doppel.translate.handlers import HandlerCompiler
from doppel.translate.layout import RECORD
from doppel.translate.lower import FunctionLowering, Lowering
from doppel.translate.pairs import pair_table
from doppel.translate.pointers import Pointer

__all__ = ["DECODE_OPERATION", "decode_record", "decoder_text"]

_SLOT_OFFSETS = {
    "rd": RECORD.rd,
    "rs1": RECORD.rs1,
    "rs2": RECORD.rs2,
    "rs3": RECORD.rs3,
    "imm": RECORD.imm,
}


def decode_record(h: Hart, record: Pointer, bits: Word, at: Word) -> Word:
    """Fill a record from an instruction; ``at`` is its offset in the page, 4096 or more if it stands alone.

    Returns the instruction's numbers for pairs (:class:`doppel.translate.pairs.PairTable`): as a first one in
    the low byte, as a second one in the byte above.
    """
    raise TypeError("native code only")


def _lower_decode(low: FunctionLowering, args: list[ast.expr]) -> Value:
    record, bits, at = (low.expression(a) for a in args[1:])
    words = f"i64 {low.out.word(bits).text}, i64 {low.out.word(at).text}"
    return low.out.op("i64", f"call i64 @decode_bits(ptr {record.text}, {words})")


DECODE_OPERATION: Lowering = _lower_decode

# What an operand slot is filled from: a field of the pattern, or a number.
_Source = Field | int


@dataclass(frozen=True)
class _Format:
    slots: tuple[tuple[str, _Source], ...]
    x_destination: bool


def _format_of(instruction: Instruction) -> _Format:
    sources: dict[str, _Source] = {}
    if instruction.expands is None:
        sources = {f.slot: f for f in instruction.pattern.fields if f.slot}
    else:
        for slot, source in instruction.bindings.items():
            sources[slot] = source if isinstance(source, int) else instruction.pattern.field(source)
    slots = tuple((slot, sources.get(slot, 0)) for slot in SLOTS)
    return _Format(tuple((s, src) for s, src in slots), instruction.destination == "rd")


def _extract(out: Emitter, field: Field) -> Value:
    value = Value("0", "i64")
    for piece in field.pieces:
        part = out.op("i64", f"lshr i64 %bits, {piece.lsb}")
        part = out.op("i64", f"and i64 {part.text}, {(1 << piece.width) - 1}")
        part = out.op("i64", f"shl i64 {part.text}, {piece.value_lsb}")
        value = out.op("i64", f"or i64 {value.text}, {part.text}")
    if field.signed:
        up = out.op("i64", f"shl i64 {value.text}, {64 - field.width}")
        value = out.op("i64", f"ashr i64 {up.text}, {64 - field.width}")
    if field.bias:
        value = out.op("i64", f"add i64 {value.text}, {field.bias}")
    return value


def decoder_text(instructions: InstructionSet, handlers: HandlerCompiler) -> str:
    """The table, the pairs and ``@decode_bits``."""
    pairs = pair_table(instructions, handlers)
    formats: dict[_Format, int] = {}
    by_key: list[list[str]] = [[] for _ in range(DECODE_KEYS)]
    for instruction in instructions.instructions:
        handler = handlers.handler(instruction)
        number = formats.setdefault(_format_of(instruction), len(formats))
        near = f"ptr {handler.near}" if handler.near else "ptr null"
        first, second = pairs.numbers(instruction)
        row = (
            f"{{ i32 {instruction.pattern.mask}, i32 {instruction.pattern.match}, "
            f"i32 {instruction.nonzero_mask}, i32 {number | first << 8 | second << 16}, "
            f"ptr {handler.far}, {near} }}"
        )
        for key in decode_keys(instruction.pattern):
            by_key[key].append(row)
    row_type = "{ i32, i32, i32, i32, ptr, ptr }"
    starts: list[int] = []
    rows: list[str] = []
    for group in by_key:
        starts.append(len(rows))
        rows.extend(group)
    starts.append(len(rows))
    table = ",\n  ".join(f"{row_type} {row}" for row in rows)
    index = ", ".join(f"i32 {start}" for start in starts)
    return (
        f"@decode_rows = internal constant [{len(rows)} x {row_type}] [\n  {table}\n]\n"
        f"@decode_starts = internal constant [{len(starts)} x i32] [{index}]\n"
        f"{pairs.text()}"
        f"define internal i64 @decode_bits(ptr %rec, i64 %bits, i64 %at) noinline nounwind {{\n"
        f"{_decode_body(formats)}\n}}\n"
    )


def _decode_body(formats: dict[_Format, int]) -> str:
    out = Emitter()
    # decode_key() in native code.
    low = out.op("i64", "and i64 %bits, 3")
    full = out.op("i1", f"icmp eq i64 {low.text}, 3")
    opcode = out.op("i64", f"and i64 {out.op('i64', 'lshr i64 %bits, 2').text}, 31")
    funct3 = out.op("i64", f"and i64 {out.op('i64', 'lshr i64 %bits, 7').text}, 224")
    long_key = out.op("i64", f"or i64 {opcode.text}, {funct3.text}")
    c_funct3 = out.op("i64", f"and i64 {out.op('i64', 'lshr i64 %bits, 11').text}, 28")
    short_key = out.op("i64", f"or i64 {out.op('i64', f'or i64 {low.text}, {c_funct3.text}').text}, 256")
    key = out.select(full, long_key, short_key)
    start = out.op("ptr", f"getelementptr i32, ptr @decode_starts, i64 {key.text}")
    row = out.alloca("i64")
    out.store(out.load("i32", start.text), "i64", row)
    end = out.word(out.load("i32", start.text, 4))
    out.begin("next")
    number = out.load("i64", row)
    out.branch(out.op("i1", f"icmp eq i64 {number.text}, {end.text}"), "illegal", "try")
    out.begin("try")
    entry = out.op(
        "ptr", f"getelementptr {{ i32, i32, i32, i32, ptr, ptr }}, ptr @decode_rows, i64 {number.text}"
    )
    out.store(out.op("i64", f"add i64 {number.text}, 1"), "i64", row)
    mask, match, nonzero = (out.word(out.load("i32", entry.text, at)) for at in (0, 4, 8))
    same = out.op("i1", f"icmp eq i64 {out.op('i64', f'and i64 %bits, {mask.text}').text}, {match.text}")
    out.branch(same, "check", "next")
    out.begin("check")
    free = out.op("i1", f"icmp eq i64 {nonzero.text}, 0")
    present = out.op("i1", f"icmp ne i64 {out.op('i64', f'and i64 %bits, {nonzero.text}').text}, 0")
    out.branch(out.op("i1", f"or i1 {free.text}, {present.text}"), "found", "next")
    out.begin("found")
    kind = out.load("i32", entry.text, 12)
    shape_number = out.op("i32", f"and i32 {kind.text}, 255")
    imm = out.alloca("i64")
    cases = " ".join(f"i32 {n}, label %format{n}" for n in formats.values())
    out.terminate(f"switch i32 {shape_number.text}, label %illegal [ {cases} ]")
    for shape, n in formats.items():
        out.lines.append(f"format{n}:")
        out.terminated = False
        for slot, source in shape.slots:
            value = constant(source) if isinstance(source, int) else _extract(out, source)
            if slot == "imm":
                out.store(value, "i64", imm)
                continue
            if slot == "rd" and shape.x_destination:
                value = out.word(value)
                none = out.op("i1", f"icmp eq i64 {value.text}, 0")
                value = out.select(none, Value(str(SINK), "i64"), value)
            out.store(value, "i8", "%rec", _SLOT_OFFSETS[slot])
        out.jump("operands")
    out.begin("operands")
    distance = out.load("i64", imm)
    near = out.load("ptr", entry.text, 24)
    target = out.op("i64", f"add i64 %at, {distance.text}")
    inside = out.op("i1", f"icmp ult i64 {target.text}, 4096")
    alone = out.op("i1", "icmp uge i64 %at, 4096")
    branches = out.op("i1", f"icmp ne ptr {near.text}, null")
    here = out.op("i1", f"and i1 {inside.text}, {out.op('i1', f'xor i1 {alone.text}, true').text}")
    is_near = out.op("i1", f"and i1 {here.text}, {branches.text}")
    far = out.load("ptr", entry.text, 16)
    scaled = out.op("i64", f"mul i64 {distance.text}, {RECORD.per_byte}")
    out.store(out.select(is_near, scaled, distance), "i32", "%rec", RECORD.imm)
    handler = out.select(is_near, near, far)
    out.raw(f"store atomic ptr {handler.text}, ptr %rec release, align 8")
    numbers = out.op("i64", f"lshr i64 {out.word(kind).text}, 8")
    # A branch out of the page is no second one: the pair's handler branches within it.
    leaves = out.op("i1", f"and i1 {branches.text}, {out.op('i1', f'xor i1 {is_near.text}, true').text}")
    as_first = out.op("i64", f"and i64 {numbers.text}, 255")
    out.terminate(f"ret i64 {out.select(leaves, as_first, numbers).text}")
    out.lines.append("illegal:")
    out.terminated = False
    out.raw("store atomic ptr @illegal, ptr %rec release, align 8")
    out.terminate("ret i64 0")
    return out.body()
