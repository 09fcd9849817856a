"""Commands that make the machine do something, and those that tell about it."""

from __future__ import annotations

from collections.abc import Iterator

from doppel.cli.monitor.commands import COMMANDS, Resume, command
from doppel.cli.monitor.session import MonitorError, Session, number
from doppel.cli.monitor.state import instruction_lines
from doppel.cli.summary import detail_lines, summary_line

__all__: list[str] = []

MAX_STEPS = 100_000_000
MAX_TRACE = 10_000


@command("step", " [N]", "execute N instructions of the hart (1 by default); other harts stand still", most=1)
def _step(session: Session, words: list[str]) -> Iterator[str]:
    session.machine.step(session.hart_index, _count(words, MAX_STEPS))
    yield from instruction_lines(session, session.hart.pc, 1)


@command("trace", " [N]", "the same, showing each instruction", most=1)
def _trace(session: Session, words: list[str]) -> Iterator[str]:
    for _ in range(_count(words, MAX_TRACE)):
        yield from instruction_lines(session, session.hart.pc, 1)
        session.machine.step(session.hart_index, 1)
    yield from instruction_lines(session, session.hart.pc, 1)


def _count(words: list[str], limit: int) -> int:
    count = number(words[0]) if words else 1
    if not 1 <= count <= limit:
        raise MonitorError(f"{count} instructions are too many or too few: 1 to {limit} are possible")
    return count


@command("continue,c,begin", "", "leave the prompt; the machine goes on")
def _continue(session: Session, words: list[str]) -> Iterator[str]:
    raise Resume(leave=False)
    yield


@command("quit,stop", "", "end the machine and leave doppel")
def _quit(session: Session, words: list[str]) -> Iterator[str]:
    raise Resume(leave=True)
    yield


@command("reset", "", "start the machine again from the beginning; continue then boots it")
def _reset(session: Session, words: list[str]) -> Iterator[str]:
    session.machine.reset()
    session.next_address = None
    yield from instruction_lines(session, session.hart.pc, 1)


@command("info", " devices|harts|machine|memory", "tell about parts of the machine", least=1, most=1)
def _info(session: Session, words: list[str]) -> Iterator[str]:
    topics = {"devices": _devices, "harts": _harts, "machine": _machine, "memory": _memory}
    chosen = [topic for topic in topics if topic.startswith(words[0])]
    if len(chosen) != 1:
        raise MonitorError(f"info knows {', '.join(topics)}")
    yield from topics[chosen[0]](session)


def _devices(session: Session) -> Iterator[str]:
    for region in session.machine.board.bus:
        yield (
            f"{region.base:#012x}-{region.end - 1:#012x}  {region.device.name:<12}"
            f" {region.reads} reads, {region.writes} writes"
        )


def _harts(session: Session) -> Iterator[str]:
    for index, hart in enumerate(session.machine.harts):
        here = "*" if index == session.hart_index else " "
        waiting = ", waits for an interrupt" if hart.waiting else ""
        yield (
            f"{here} hart {index}: pc {hart.pc:#x}{session.label(hart.pc)}, mode {hart.mode.name}{waiting}, "
            f"{hart.instructions} instructions"
        )


def _machine(session: Session) -> Iterator[str]:
    yield summary_line(session.machine.statistics)
    yield from detail_lines(session.machine.statistics)


def _memory(session: Session) -> Iterator[str]:
    ram = session.machine.ram
    end = ram.base + ram.size - 1
    yield f"{ram.base:#012x}-{end:#012x}  {ram.size >> 20} MiB, {ram.mapped_bytes / 2**20:.1f} MiB in use"


@command("help", " [COMMAND]", "list the commands", most=1)
def _help(session: Session, words: list[str]) -> Iterator[str]:
    if words and words[0] not in COMMANDS:
        raise MonitorError(f"there is no command {words[0]!r}")
    for name in sorted(COMMANDS):
        found = COMMANDS[name]
        if name != found.name or (words and found is not COMMANDS[words[0]]):
            continue
        aliases = [other for other, same in COMMANDS.items() if same == found and other != name]
        also = f" (also: {', '.join(aliases)})" if aliases else ""
        yield f"{name + found.usage:<34}{found.summary}{also}"
    if not words:
        yield "Commands may be cut short. Values are numbers, registers, symbols, or sums of them."
