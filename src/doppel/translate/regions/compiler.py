"""From guest instructions to host code: explore, generate, optimize, link."""

from __future__ import annotations

import functools
from typing import Any

import llvmlite.binding as llvm
import msgspec

from doppel.translate.build import load_kit, target_machine
from doppel.translate.layout import MAX_REGION
from doppel.translate.regions.generate import region_text
from doppel.translate.regions.graph import explore
from doppel.translate.regions.link import link

__all__ = ["Region", "RegionCompiler", "RegionRequest"]


class RegionRequest(msgspec.Struct, frozen=True):
    """What is to be compiled: the code at ``entry`` in a page of guest memory.

    ``executed``: a byte for every two of the page, not 0 where an instruction is worth compiling.
    ``limit``: instructions at most.
    """

    page: bytes
    entry: int
    executed: bytes
    limit: int = MAX_REGION
    every_branch: bool = False


class Region(msgspec.Struct, frozen=True):
    """Compiled code: ``entries`` are offsets in the page of instructions that it can begin with;
    ``ranges``: starts and lengths of the bytes that it was made from.
    """

    entries: tuple[int, ...]
    ranges: tuple[tuple[int, int], ...]
    instructions: int
    code: bytes


class RegionCompiler:
    """Compiles regions, one at a time."""

    def __init__(self, optimization: int = 2) -> None:
        kit = load_kit()
        self._templates, self._probes = kit.templates, kit.probes
        self._machine = target_machine(optimization)
        options = llvm.create_pipeline_tuning_options(speed_level=2)
        self._builder = llvm.create_pass_builder(self._machine, options)
        self._passes = llvm.create_new_function_pass_manager()
        self._passes.add_sroa_pass()
        self._passes.add_instruction_combine_pass()
        self._passes.add_simplify_cfg_pass()
        self._head = (
            f'target triple = "{self._machine.triple}"\n'
            f'target datalayout = "{self._machine.target_data}"\n{kit.declarations}'
        )

    def text(self, request: RegionRequest) -> tuple[Any, str] | None:
        """The region and its IR; None if there is nothing to compile."""
        executed = frozenset(2 * index for index, flag in enumerate(request.executed) if flag)
        graph = explore(request.page, request.entry, executed, self._templates, request.limit)
        if graph is None:
            return None
        return graph, region_text(graph, self._head, self._probes, every_branch=request.every_branch)

    def compile(self, request: RegionRequest) -> Region | None:
        """The compiled region; None if the interpreter must execute what is at its entry."""
        made = self.text(request)
        if made is None:
            return None
        graph, text = made
        code = link(self._machine.emit_object(self._optimized(text)))
        return Region(tuple(graph.entries), tuple(graph.ranges), graph.instructions, code)

    def stages(self, request: RegionRequest) -> tuple[str, str, str] | None:
        """What compiling goes through, for people: IR, optimized IR, the host's assembly language."""
        made = self.text(request)
        if made is None:
            return None
        module = self._optimized(made[1])
        return made[1], str(module), self._machine.emit_assembly(module)

    def _optimized(self, text: str) -> Any:
        module = llvm.parse_assembly(text)
        function = next(f for f in module.functions if not f.is_declaration)
        self._passes.run(function, self._builder)
        return module


@functools.cache
def shared_compiler() -> RegionCompiler:
    """One for the whole process."""
    return RegionCompiler()
