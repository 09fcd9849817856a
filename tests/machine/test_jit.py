"""A guest program that makes and changes code while it runs, under Debian's kernel."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from doppel.guests.catalog import prepare
from doppel.guests.initramfs import overlay
from doppel.machine import Machine

from .test_linux import PATIENCE, PROMPT

COMPILER = "riscv64-linux-gnu-gcc"
CHANGES = 5000


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"needs {COMPILER}")
@pytest.mark.parametrize("harts", [1, 2])
def test_code_made_by_a_guest_program(tmp_path: Path, harts: int) -> None:
    """Its own generator, with the system call that fences: every call gives what it must."""
    program = tmp_path / "jit"
    source = Path(__file__).with_name("jit.c")
    subprocess.run([COMPILER, "-O2", "-static", "-o", program, source], check=True, timeout=PATIENCE)
    debian = prepare("debian")
    initrd = tmp_path / "initrd"
    initrd.write_bytes(debian.initrd.read_bytes() + overlay({"bin/jit": program.read_bytes()}))
    with Machine(256 << 20, harts) as machine:
        machine.boot(debian.kernel, initrd, "")
        machine.start()
        machine.console.expect(PROMPT, PATIENCE)
        results = machine.sh(f"jit {CHANGES} & jit {CHANGES}; wait", 2 * PATIENCE)
        assert results.status == 0
        assert results.output.count(f"jit ok {3 * CHANGES}") == 2, results.output
