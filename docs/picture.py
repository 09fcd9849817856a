"""Draws docs/architecture.svg: the floors of the house, and the four journeys through them.

``python docs/picture.py > docs/architecture.svg``
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from html import escape

WIDTH, TOP, LABELS, COLUMN, GAP = 1328, 104, 168, 286, 6
INK, FAINT, PAPER = "#1d2733", "#5b6b7b", "#ffffff"
COLOURS = ("#1f6f4a", "#1c5fa8", "#a3541a", "#7a3b8f")


STEP_HEIGHT, STEP_GAP, LEAST_HEIGHT = 52, 8, 42


@dataclass(frozen=True)
class Floor:
    """One row: its folders, what they are, and whether it becomes native code."""

    name: str
    about: str = ""
    native: bool = False


FLOORS = (
    Floor("cli/", "the command doppel"),
    Floor("machine/", "board, boot, SBI, clock, console; beside it: conformance/"),
    Floor("devices/  guests/", "registers and backends; files of guest systems"),
    Floor("processor/", "the seam: run(budget) → Exit"),
    Floor("translate/", "the isa, made native by LLVM", native=True),
    Floor("isa/", "what instructions mean; imports nothing", native=True),
    Floor("memory/", "frames, f-map, pager, view for devices"),
    Floor("errors.py  cache.py"),
)
JOURNEYS = (
    ("An ordinary instruction", "native code only"),
    ("A load or store", "native code only"),
    ("A device access or a VM-fault", "an exit, and the same instruction again"),
    ("A device interrupt", "a bit set from outside"),
)
# Journey, floor, step, what happens, the file.
STEPS = (
    (0, 4, 1, "record → handler", "translate/handlers.py"),
    (0, 4, 3, "not decoded yet: decode it", "translate/engine/fetch.py"),
    (0, 4, 4, "another page: find or make it", "translate/engine/code.py"),
    (0, 5, 2, "its body, compiled", "isa/rv_i.py"),
    (1, 4, 1, "TLB hit → host address, done", "translate/hart_ops.py"),
    (1, 4, 2, "miss: walk, fill, access", "translate/engine/access.py"),
    (1, 5, 3, "walk φ, set A and D", "isa/privileged/translation.py"),
    (1, 5, 5, "φ undefined: an exception", "isa/privileged/trap.py"),
    (1, 6, 4, "f-map entry → frame", "memory/entry.py"),
    (2, 4, 1, "no memory, or no frame: leave", "translate/engine/access.py"),
    (2, 3, 2, "Hart.run() returns an Exit", "processor/processor.py"),
    (2, 1, 3, "the hart's thread serves it", "machine/execution.py"),
    (2, 1, 4, "by its reason", "machine/exits.py"),
    (2, 2, 5, "device: bus → read or write", "devices/bus.py"),
    (2, 6, 5, "VM-fault: a frame for the page", "memory/pager.py"),
    (2, 3, 6, "answer(), run() once more", "processor/processor.py"),
    (2, 4, 7, "repeated: takes the reply", "translate/engine/access.py"),
    (3, 2, 1, "the device drives its line", "devices/device.py"),
    (3, 2, 2, "the PLIC drives its outputs", "devices/plic.py"),
    (3, 1, 3, "wires into the harts", "machine/board.py"),
    (3, 3, 4, "Hart.set_lines(), any thread", "processor/processor.py"),
    (3, 4, 5, "lines set, limit raised, woken", "translate/engine/attention.py"),
    (3, 4, 6, "next block end: attend()", "translate/engine/attention.py"),
    (3, 5, 7, "take the trap, if enabled", "isa/privileged/trap.py"),
)


def text(x: float, y: float, what: str, size: int, colour: str = INK, extra: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" {extra}>{escape(what)}</text>'


def box(x: float, y: float, width: float, height: float, fill: str, extra: str = "") -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}" {extra}/>'


def floor_height(floor: int) -> int:
    most = max(
        (sum(step[:2] == (journey, floor) for step in STEPS) for journey in range(len(JOURNEYS))), default=0
    )
    lines = len(wrapped(FLOORS[floor].about, 23)) if FLOORS[floor].about else 0
    return max(LEAST_HEIGHT + 16 * lines, most * (STEP_HEIGHT + STEP_GAP) + STEP_GAP)


def floor_tops() -> list[int]:
    """The upper edge of each floor, and of what would come behind the last."""
    tops = [TOP]
    for floor in range(len(FLOORS)):
        tops.append(tops[-1] + floor_height(floor) + GAP)
    return tops


def wrapped(words: str, limit: int) -> list[str]:
    lines = [""]
    for word in words.split():
        if len(lines[-1]) + len(word) >= limit and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def draw_floors() -> list[str]:
    parts = []
    for number, (floor, top) in enumerate(zip(FLOORS, floor_tops(), strict=False)):
        colour = "#e4ecf4" if floor.native else "#f3f1ea"
        parts.append(box(8, top, WIDTH - 16, floor_height(number), colour, 'rx="6"'))
        parts.append(text(20, top + 25, floor.name, 15, INK, 'font-weight="bold"'))
        for line_number, line in enumerate(wrapped(floor.about, 23)):
            parts.append(text(20, top + 46 + 16 * line_number, line, 12, FAINT))
    return parts


def draw_seam() -> list[str]:
    """Where Python ends and native code begins."""
    tops = floor_tops()
    y = tops[4] - GAP / 2
    x = LABELS + COLUMN
    style = 'text-anchor="middle" font-style="italic"'
    return [
        f'<path d="M8 {y:g} H{WIDTH - 8}" stroke="{INK}" stroke-width="2" stroke-dasharray="7 5"/>',
        text(x, tops[1] + 60, "Python takes no part in these two", 14, FAINT, style),
        text(x, y - 28, "above: Python, the control plane", 14, FAINT, style),
        text(x, y - 9, "below: native code, which runs without the GIL", 14, FAINT, style),
    ]


def draw_journeys() -> list[str]:
    parts = []
    for number, (name, about) in enumerate(JOURNEYS):
        x = LABELS + number * COLUMN + 14
        parts.append(text(x, 62, name, 16, COLOURS[number], 'font-weight="bold"'))
        parts.append(text(x, 84, about, 13, FAINT))
    return parts


def draw_steps() -> list[str]:
    parts, used = [], dict[tuple[int, int], int]()
    tops = floor_tops()
    for journey, floor, number, what, file in sorted(STEPS, key=lambda step: (step[0], step[1], step[2])):
        place = used.get((journey, floor), 0)
        used[journey, floor] = place + 1
        x = LABELS + journey * COLUMN + 14
        y = tops[floor] + STEP_GAP + place * (STEP_HEIGHT + STEP_GAP)
        colour = COLOURS[journey]
        parts.append(
            box(x, y, COLUMN - 18, STEP_HEIGHT, PAPER, f'rx="5" stroke="{colour}" stroke-width="1.3"')
        )
        parts.append(f'<circle cx="{x + 17:g}" cy="{y + 19:g}" r="10" fill="{colour}"/>')
        parts.append(
            text(x + 17, y + 23.5, str(number), 13, PAPER, 'text-anchor="middle" font-weight="bold"')
        )
        parts.append(text(x + 33, y + 23, what, 13))
        parts.append(text(x + 33, y + 42, file, 12, FAINT, 'font-family="DejaVu Sans Mono, monospace"'))
    return parts


def picture() -> str:
    """The whole picture, as SVG."""
    height = floor_tops()[-1] + 4
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:g}" '
        f'viewBox="0 0 {WIDTH} {height:g}" font-family="DejaVu Sans, Verdana, sans-serif">'
    )
    title = text(
        20, 30, "doppel: a floor uses the floors below it, and nothing above", 19, INK, 'font-weight="bold"'
    )
    body = [*draw_floors(), *draw_seam(), *draw_journeys(), *draw_steps()]
    return "\n".join([head, box(0, 0, WIDTH, height, PAPER), title, *body, "</svg>"]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(picture())
