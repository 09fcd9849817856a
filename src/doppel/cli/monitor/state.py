"""Commands that show and change the state of harts and memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from doppel.cli.monitor import addresses
from doppel.cli.monitor.commands import command
from doppel.cli.monitor.formats import UNITS, Form, items, parse_form
from doppel.cli.monitor.session import MonitorError, Session, number
from doppel.errors import DoppelError
from doppel.isa.csr import CSR_BY_NAME
from doppel.isa.disassembler import disassemble
from doppel.isa.names import F_NAMES, X_NAMES, x_register
from doppel.isa.words import MASK64

__all__ = ["instruction_lines"]

COLUMNS = 4
LINE_BYTES = 16
MAX_TEXT = 4096
DEFAULT_INSTRUCTIONS = 8


@command("registers,display", " [HART]", "show the registers of a hart", most=1)
def _registers(session: Session, words: list[str]) -> Iterator[str]:
    if words:
        session.hart_index = session.select(words[0])
    hart = session.hart
    yield (
        f"hart {session.hart_index}  pc {hart.pc:#018x}{session.label(hart.pc)}  mode {hart.mode.name}"
        f"  {hart.instructions} instructions"
    )
    yield from _columns(X_NAMES, [hart.registers[name] for name in X_NAMES])


@command("fregisters", " [HART]", "show the floating-point registers, as raw bits", most=1)
def _fregisters(session: Session, words: list[str]) -> Iterator[str]:
    if words:
        session.hart_index = session.select(words[0])
    yield from _columns(F_NAMES, [session.hart.registers[name] for name in F_NAMES])


def _columns(names: tuple[str, ...], values: list[int]) -> Iterator[str]:
    cells = [f"{name:>4} {value:016x}" for name, value in zip(names, values, strict=True)]
    rows = len(cells) // COLUMNS
    for row in range(rows):
        yield "  ".join(cells[row::rows]).rstrip()


@command("hart", " NUMBER", "choose the hart that commands are about", least=1, most=1)
def _hart(session: Session, words: list[str]) -> Iterator[str]:
    session.hart_index = session.select(words[0])
    session.next_address = None
    yield from instruction_lines(session, session.hart.pc, 1)


@command(
    "csr",
    " [NAME [VALUE]]",
    "show all control and status registers that are not 0, or one, or set one",
    most=-1,
)
def _csr(session: Session, words: list[str]) -> Iterator[str]:
    csr = session.hart.csr
    if not words:
        for name in CSR_BY_NAME:
            # Floating-point registers cannot be read while the guest has them switched off.
            with suppress(DoppelError):
                if value := csr[name]:
                    yield f"{name:>13} {value:016x}"
        return
    name = words[0].lower()
    if name not in CSR_BY_NAME:
        raise MonitorError(f"there is no register {name!r}; csr lists those that are not 0")
    if len(words) > 1:
        csr[name] = session.value(" ".join(words[1:]))
    yield f"{name:>13} {csr[name]:016x}  {CSR_BY_NAME[name].doc}"


@command("set", " REGISTER VALUE", "change a register or pc", least=2, most=-1)
def _set(session: Session, words: list[str]) -> Iterator[str]:
    name, value = words[0].removeprefix("$"), session.value(" ".join(words[1:]))
    if name == "pc":
        session.hart.pc = value
        yield from instruction_lines(session, value, 1)
        return
    index = x_register(name)
    name = X_NAMES[index] if index is not None else name
    if name not in (*X_NAMES[1:], *F_NAMES):
        raise MonitorError(f"{words[0]} is no register that can be changed")
    session.hart.registers[name] = value
    yield f"{name} {session.hart.registers[name]:016x}"


@command(
    "x,examine", "/NFU [ADDRESS]", "show memory by the guest's addresses: x/4xg sp, x/s a0, x/8i pc", most=-1
)
def _examine(session: Session, words: list[str]) -> Iterator[str]:
    yield from _show_memory(session, words, physical=False)


@command("xp", "/NFU [ADDRESS]", "show memory by physical addresses", most=-1)
def _examine_physical(session: Session, words: list[str]) -> Iterator[str]:
    yield from _show_memory(session, words, physical=True)


def _show_memory(session: Session, words: list[str], *, physical: bool) -> Iterator[str]:
    form = Form(1, session.examine_format, session.examine_unit)
    if words and words[0].startswith("/"):
        form = parse_form(words[0][1:], session.examine_format, session.examine_unit)
        words = words[1:]
    address = _address(session, words)
    session.examine_format = form.format
    if form.format not in "csi":
        session.examine_unit = form.unit
    if form.format == "i":
        yield from instruction_lines(session, address, form.count, physical=physical)
        return
    if form.format == "s":
        for _ in range(form.count):
            text = _text(session, address, physical=physical)
            yield f"{address:#018x}: {text.decode('utf-8', 'backslashreplace')!r}"
            address = address + len(text) + 1 & MASK64
        session.next_address = address
        return
    data = addresses.read(session, address, form.count * form.unit, physical=physical)
    shown = items(data, form)
    per_line = max(1, LINE_BYTES // form.unit // (2 if form.format == "t" else 1))
    for start in range(0, len(shown), per_line):
        yield f"{address + start * form.unit & MASK64:#018x}: {' '.join(shown[start : start + per_line])}"
    session.next_address = address + len(data) & MASK64


def _address(session: Session, words: list[str]) -> int:
    if words:
        return session.value(" ".join(words))
    return session.hart.pc if session.next_address is None else session.next_address


def _text(session: Session, address: int, *, physical: bool) -> bytes:
    text = bytearray()
    while len(text) < MAX_TEXT:
        byte = addresses.read(session, address + len(text) & MASK64, 1, physical=physical)
        if byte == b"\0":
            break
        text += byte
    return bytes(text)


@command(
    "store",
    "/U ADDRESS VALUE...",
    "change memory: store/g sp 1 2 (b, h, w or g: 1, 2, 4 or 8 bytes each)",
    least=2,
    most=-1,
)
def _store(session: Session, words: list[str]) -> Iterator[str]:
    yield from _change_memory(session, words, physical=False)


@command("storep", "/U ADDRESS VALUE...", "change memory by physical address", least=2, most=-1)
def _store_physical(session: Session, words: list[str]) -> Iterator[str]:
    yield from _change_memory(session, words, physical=True)


def _change_memory(session: Session, words: list[str], *, physical: bool) -> Iterator[str]:
    unit = UNITS["w"]
    if words[0].startswith("/"):
        if words[0][1:] not in UNITS:
            raise MonitorError(f"{words[0]} is not a unit: {' '.join(UNITS)}")
        unit = UNITS[words[0][1:]]
        words = words[1:]
    address = session.value(words[0])
    data = b""
    for word in words[1:]:
        value = session.value(word)
        signed = value - (value >> 63 << 64)
        if value >> 8 * unit and signed >> 8 * unit - 1 != -1:
            raise MonitorError(f"{word} does not fit into {unit} bytes")
        data += (value & (1 << 8 * unit) - 1).to_bytes(unit, "little")
    addresses.write(session, address, data, physical=physical)
    yield f"{len(data)} bytes at {address:#x}"


@command("disassemble", " [ADDRESS [COUNT]]", "show instructions, from pc on by default", most=2)
def _disassemble(session: Session, words: list[str]) -> Iterator[str]:
    count = number(words[1]) if len(words) == 2 else DEFAULT_INSTRUCTIONS
    if not 1 <= count <= MAX_TEXT:
        raise MonitorError(f"{count} instructions are too many or too few")
    yield from instruction_lines(session, _address(session, words[:1]) & ~1, count)


@command("translate", " ADDRESS", "show where the guest's page tables lead", least=1, most=-1)
def _translate(session: Session, words: list[str]) -> Iterator[str]:
    address = session.value(" ".join(words))
    yield f"{address:#x} is at physical address {addresses.physical_address(session, address):#x}"


def instruction_lines(session: Session, address: int, count: int, *, physical: bool = False) -> Iterator[str]:
    """Instructions as text, one a line, with an arrow at the one that comes next."""
    for _ in range(count):
        address &= MASK64
        code = addresses.read(session, address, 2, physical=physical)
        if code[0] & 3 == 3:
            code += addresses.read(session, address + 2 & MASK64, 2, physical=physical)
        word = int.from_bytes(code, "little")
        arrow = "=>" if address == session.hart.pc and not physical else "  "
        shown = f"{word:0{2 * len(code)}x}"
        yield f"{arrow} {address:#018x}{session.label(address)}: {shown:<8}  {disassemble(word, address)}"
        address += len(code)
        session.next_address = address & MASK64
