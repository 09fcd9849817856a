"""Shows what becomes of guest code: ``python -m doppel.translate.regions.show [FILE]``.

Reads guest assembly language from a file or from standard input, takes it for the code at the beginning of a
page, and prints the guest's instructions, the LLVM IR of the region before and after optimization, and the
host's assembly language.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from doppel.isa.assembler import AssemblyError, assemble_program
from doppel.isa.disassembler import disassemble
from doppel.memory.entry import PAGE_SIZE
from doppel.translate.regions.compiler import RegionCompiler, RegionRequest

__all__ = ["main", "show"]


def show(text: str, *, every_branch: bool = False) -> Iterator[tuple[str, str]]:
    """Titles and listings for a piece of guest assembly language; ``every_branch`` as for a region's IR.

    Raises:
        AssemblyError: the text is not assembly language, or more than a page.
    """
    code = assemble_program(text, 0).code
    if len(code) > PAGE_SIZE:
        raise AssemblyError(f"{len(code)} bytes are more than a page")
    yield "guest instructions", "\n".join(_instructions(code))
    executed = (b"\1" * (len(code) // 2)).ljust(PAGE_SIZE // 2, b"\0")
    request = RegionRequest(code.ljust(PAGE_SIZE, b"\0"), 0, executed, every_branch=every_branch)
    stages = RegionCompiler().stages(request)
    if stages is None:
        yield "region", "none: the interpreter executes the first instruction"
        return
    text, optimized, assembly = stages
    yield "LLVM IR", _function(text)
    yield "LLVM IR, optimized", _function(optimized)
    yield "host instructions", "\n".join(_code(assembly))


def _instructions(code: bytes) -> Iterator[str]:
    offset = 0
    while offset < len(code):
        word = int.from_bytes(code[offset : offset + 4], "little")
        length = 4 if word & 3 == 3 else 2
        word &= (1 << 8 * length) - 1
        yield f"{offset:4x}: {word:0{2 * length}x}{' ' * (8 - 2 * length)}  {disassemble(word, offset)}"
        offset += length


def _function(text: str) -> str:
    """What is between a function's first line and its last."""
    lines = text.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("define"))
    return "\n".join(lines[first : lines.index("}", first) + 1])


def _code(text: str) -> Iterator[str]:
    """Instructions and labels, without comments and what else the assembler is told."""
    for line in text.splitlines():
        line = line.partition("#")[0].rstrip()
        if line and (line.startswith(".LBB") or not line.lstrip().startswith(".")):
            yield line


def main() -> int:
    """The command; the exit status."""
    parser = argparse.ArgumentParser("python -m doppel.translate.regions.show", description=__doc__)
    parser.add_argument("file", nargs="?", help="guest assembly language; standard input by default")
    parser.add_argument("--icount", action="store_true", help="as for a clock that counts instructions")
    arguments = parser.parse_args()
    try:
        text = Path(arguments.file).read_text("utf-8") if arguments.file else sys.stdin.read()
        for title, listing in show(text, every_branch=arguments.icount):
            print(f"== {title}\n{listing}\n")
    except (AssemblyError, OSError, UnicodeDecodeError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
