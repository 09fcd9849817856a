"""Commands in a shell: the host's own, on a pseudo-terminal in place of a guest's serial port."""

from __future__ import annotations

import os
import pty
import subprocess
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doppel.errors import DoppelError
from doppel.machine.console import Console
from doppel.machine.shell import Shell, ShellResult

PATIENCE = 30.0


class HostShell:
    """A shell of the host behind a console, as a guest's would be."""

    def __init__(self, *command: str) -> None:
        master, slave = pty.openpty()
        self.master = master
        self.ended: list[str] = []
        self.console = Console(None, lambda: self.ended[0] if self.ended else None)
        environment = {"PATH": os.environ["PATH"], "PS1": "$ ", "TERM": "dumb", "LC_ALL": "C.UTF-8"}
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        self.console.connect(self._type)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.shell = Shell(self.console)

    def _type(self) -> None:
        while data := self.console.read(256):
            os.write(self.master, data)

    def _read(self) -> None:
        try:
            while data := os.read(self.master, 4096):
                self.console.write(data)
        except OSError:
            pass
        self.ended.append("the machine ended (poweroff)")
        self.console.notify_end()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.reader.join()
        os.close(self.master)


@pytest.fixture(scope="module", params=["sh -i", "bash --norc -i"])
def shell(request: pytest.FixtureRequest) -> Iterator[Shell]:
    host = HostShell(*request.param.split())
    yield host.shell
    host.close()


@pytest.mark.parametrize(
    ("command", "output", "status"),
    [
        ("echo hello", "hello\n", 0),
        ("printf hello", "hello", 0),
        ("true", "", 0),
        ("false", "", 1),
        ("(exit 77)", "", 77),
        ("echo one; echo; echo two", "one\n\ntwo\n", 0),
        ("echo 'single' \"double\" \\$HOME", "single double $HOME\n", 0),
        ("for i in 1 2 3\ndo\n  echo $i\ndone", "1\n2\n3\n", 0),
        ("cat <<END\nline\nEND", "line\n", 0),
        ("printf 'tab\there'", "tab\there", 0),
        ("echo grün %s %d \\\\", "grün %s %d \\\n", 0),
        ("nosuchcommand 2>/dev/null", "", 127),
        ("echo DOPPEL-1-BEGIN; echo DOPPEL-9-END 5", "DOPPEL-1-BEGIN\nDOPPEL-9-END 5\n", 0),
        ("", "", 0),
    ],
)
def test_output_and_status(shell: Shell, command: str, output: str, status: int) -> None:
    assert shell.run(command, PATIENCE) == ShellResult(output, status)


def test_the_shell_remembers(shell: Shell) -> None:
    shell.run("cd /; x=5", PATIENCE)
    assert shell.run('echo "$PWD $x"', PATIENCE).output == "/ 5\n"


def test_long_commands(shell: Shell) -> None:
    words = " ".join(f"word{number}" for number in range(800))
    assert shell.run(f"echo {words} | wc -w", PATIENCE).output.strip() == "800"


def test_long_output(shell: Shell) -> None:
    result = shell.run("seq 20000", PATIENCE)
    assert result.output == "".join(f"{number}\n" for number in range(1, 20001))


# Without carriage return and NUL: the one disappears from what a terminal shows, the other from what
# shells read.
TEXT = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"]) | st.sampled_from("\n\t'\"\\$`!%~\x1b\x03\x15")
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXT)
def test_any_text_gets_there(shell: Shell, text: str) -> None:
    quoted = "'" + text.replace("'", "'\\''") + "'"
    result = shell.run(f"printf %s {quoted} | od -A n -v -t x1", PATIENCE)
    assert bytes.fromhex(result.output) == text.encode()
    assert result.status == 0


def test_a_command_that_takes_too_long() -> None:
    host = HostShell("sh", "-i")
    with pytest.raises(TimeoutError, match=r"the command 'sleep 1' did not end within 0\.1 s"):
        host.shell.run("sleep 1", 0.1)
    # What was typed meanwhile is read when it has ended.
    assert host.shell.run("echo next", PATIENCE) == ShellResult("next\n", 0)
    host.close()


def test_a_command_that_ends_the_machine() -> None:
    host = HostShell("sh", "-i")
    with pytest.raises(DoppelError, match="the command 'exec true' did not end: the machine ended"):
        host.shell.run("exec true", PATIENCE)
    host.close()
