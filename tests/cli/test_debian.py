"""``doppel run`` with Debian's kernel: what a person types first. Downloads the guest unless it is cached."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from .support import doppel_run, on_terminal

pytestmark = [pytest.mark.network, pytest.mark.slow]


def test_shell_on_a_terminal() -> None:
    with on_terminal("-m", "doppel.cli", "run", env={"TERM": "vt220"}) as terminal:
        before = terminal.attributes()
        terminal.expect("~ # ")
        terminal.send('echo "$TERM $(stty size) $(uname -m)"\r')
        terminal.expect("vt220 40 200 riscv64")
        # The guest's own Ctrl-C.
        terminal.send('echo going to sl""eep; sleep 1000; echo aw""ake\r')
        terminal.expect("going to sleep")
        # A Ctrl-C that comes before the program has begun is the shell's.
        time.sleep(1)
        terminal.send("\x03")
        terminal.expect("~ # ")
        terminal.send("\x01c")
        terminal.expect("(doppel) ")
        # Linux has its own half of the address space, above all guests of its own.
        terminal.send("disassemble $pc 1\n")
        terminal.expect("=> 0x")
        terminal.expect("(doppel) ")
        terminal.send("step 1000\n")
        terminal.expect("=> 0x")
        terminal.send("continue\n")
        terminal.wait_raw(True)
        terminal.send("exit 3\r")
        assert terminal.wait() == 3
        assert terminal.attributes() == before
        assert re.search(r"\d\.\d\d billion instructions", terminal.errors)


@pytest.mark.parametrize(("firmware", "harts"), [("sbi", 1), ("sbi", 2), ("opensbi", 1), ("opensbi", 2)])
def test_command(firmware: str, harts: int) -> None:
    result = doppel_run(
        "run", "--firmware", firmware, "--harts", str(harts), "--command", "nproc; echo 'it\"s $HOME'; exit 7"
    )
    assert result.returncode == 7, result
    # The firmware has its say first, and the kernel the last word.
    assert f'{harts}\nit"s $HOME\n' in result.stdout


def test_a_command_keeps_its_last_words() -> None:
    """Linux drops what a terminal has not sent when its session ends; the guest's init waits for that."""
    for number in range(8):
        result = doppel_run("run", "--command", f"echo word {number}; exit 3")
        assert result.returncode == 3, result
        assert result.stdout == f"word {number}\n"


def test_disks_and_shares(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"from the host".ljust(1 << 20, b"\0"))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "note").write_text("shared\n")
    script = (
        "head -c 13 /dev/vda; echo; printf 'from the guest' | dd of=/dev/vda conv=notrunc; cat /mnt/here/note"
    )
    for option, expected in ((",snapshot", b"from the host"), ("", b"from the guest"[:13])):
        result = doppel_run(
            "run", "--disk", f"{disk}{option}", "--share", f"{folder}:here,readonly", "--command", script
        )
        assert result.returncode == 0, result
        assert "from the host" in result.stdout
        assert "shared" in result.stdout
        assert disk.read_bytes()[:13] == expected


def test_append_has_the_last_word() -> None:
    result = doppel_run("run", "--append", "one=1 loglevel=0", "--command", "cat /proc/cmdline")
    assert result.stdout.splitlines()[0].endswith("one=1 loglevel=0")
