"""A folder of test programs: which of them are for this machine, and all of them run."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from doppel.conformance.runner import INSTRUCTION_LIMIT, CompileMode, Result, Verdict, run_test
from doppel.errors import DoppelError
from doppel.isa.extensions import isa_names

__all__ = ["find_tests", "missing_extension", "run_suite"]

# "rv64uzba-p-sh1add": bits, then the group, then the environment (physical, virtual memory...) and the case.
_NAME = re.compile(r"rv(32|64)([a-z0-9]+?)-")
# The privilege mode that a group's name begins with: user, supervisor, machine, hypervisor.
_MODES = "usmh"
_GROUPS = {
    # Tests of a mode as such, not of an extension.
    "mi": "",
    "si": "",
    "mzicbo": "zicboz",
}


def find_tests(folder: Path) -> list[Path]:
    """The files of a folder that may be test programs, in the order of their names.

    Raises:
        DoppelError: the folder cannot be read or has no ELF file.
    """
    try:
        files = [path for path in sorted(folder.iterdir()) if path.is_file() and _is_elf(path)]
    except OSError as error:
        raise DoppelError(
            f"the folder {folder} cannot be read ({error.strerror or error})",
            "give a folder of ELF test programs",
        ) from error
    if not files:
        raise DoppelError(f"there is no ELF file in {folder}", "give a folder of ELF test programs")
    return files


def _is_elf(path: Path) -> bool:
    # One that is named as an ELF file and is none should be reported rather than passed over.
    if path.suffix == ".elf":
        return True
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def missing_extension(name: str, available: Iterable[str] | None = None) -> str:
    """What the test called ``name`` needs that the machine has not; empty if nothing.

    The names follow the riscv-tests: ``rv64uzbc-p-clmul`` needs Zbc, ``hypervisor-...`` needs H. A name of
    another form says nothing. ``available`` are extensions in lower case, by default the machine's own.
    """
    if name.startswith("hypervisor-"):
        needed = "h"
    elif (match := _NAME.match(name)) is None:
        return ""
    elif match[1] == "32":
        return "RV32"
    else:
        group = match[2]
        needed = _GROUPS.get(group, group[1:] if group[0] in _MODES else group)
        if group[0] == "h":
            needed = "h"
    if not needed or needed in set(isa_names() if available is None else available):
        return ""
    return needed.capitalize()


def run_suite(
    files: Iterable[Path],
    *,
    jobs: int = 0,
    limit: int = INSTRUCTION_LIMIT,
    compile: CompileMode = "hot",
    done: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Run test files; the results in the order of names.

    ``jobs`` are run at a time, 0 means one for each of the host's processors. ``compile`` is as for a
    Processor. ``done`` is called, in the caller's thread, with each result as it comes.
    """

    def run(path: Path) -> Result:
        missing = missing_extension(path.name)
        if missing:
            return Result(path.name, Verdict.NOT_APPLICABLE, f"needs {missing}")
        return run_test(path, limit, compile)

    results = []
    for result in _parallel(run, list(files), jobs or os.cpu_count() or 1):
        done(result)
        results.append(result)
    return sorted(results, key=lambda result: result.name)


def _parallel(run: Callable[[Path], Result], files: list[Path], jobs: int) -> Iterator[Result]:
    # Native code runs without the GIL, so threads are enough.
    with ThreadPoolExecutor(jobs, "test") as executor:
        futures = [executor.submit(run, path) for path in files]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            executor.shutdown(cancel_futures=True)
