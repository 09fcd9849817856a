"""The life of a machine, and what a program can do with it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

import doppel
from doppel.devices.backends.characters import Callback
from doppel.devices.backends.disk import MemoryDisk
from doppel.devices.device import Device
from doppel.devices.devicetree import DeviceTreeNode
from doppel.errors import DoppelError
from doppel.machine import BARE, Machine, Outcome

from .support import (
    MEMORY,
    PATIENCE,
    POWEROFF,
    RAM,
    RESULTS,
    SUPERVISOR,
    bare,
    has_run,
    powered_off,
    program,
    results,
    supervised,
    wait_until,
)

SPIN = "1: addi s0, s0, 1; j 1b"
# An address that no device claims.
VACANT = 0x5000_0000


def _threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith(("hart", "conductor"))}


# --- how it ends ---


@pytest.mark.parametrize("make", [bare, supervised])
@pytest.mark.parametrize("status", [0, 1, 200])
def test_the_guest_decides_the_status(make: object, status: int) -> None:
    value = 0x5555 if not status else status << 16 | 0x3333
    text = f"li t0, TEST; li t1, {value}; sw t1, 0(t0); 1: j 1b"
    with (bare if make is bare else supervised)(text) as machine:
        assert machine.run(PATIENCE) == Outcome("poweroff", status)
        assert machine.outcome == Outcome("poweroff", status)
        assert not machine.running
    assert not _threads()


@pytest.mark.parametrize("clock", ["host", "icount"])
def test_stopping_from_outside(clock: str) -> None:
    with supervised(SPIN, clock=clock) as machine:
        machine.start()
        assert machine.running
        machine.stop()
        assert machine.wait(0) == Outcome("stopped")
        machine.stop()
        assert machine.outcome == Outcome("stopped")
        with pytest.raises(DoppelError, match="has ended"):
            machine.start()


@pytest.mark.parametrize("clock", ["host", "icount"])
def test_stopping_a_machine_that_waits_for_ever(clock: str) -> None:
    with supervised("1: wfi; j 1b", clock=clock) as machine:
        machine.start()
        time.sleep(0.05)
        began = time.monotonic()
        machine.stop()
        assert time.monotonic() - began < 5
        assert machine.outcome == Outcome("stopped")


def test_waiting_takes_no_longer_than_said() -> None:
    with supervised(SPIN) as machine:
        machine.start()
        with pytest.raises(TimeoutError):
            machine.wait(0.05)
        assert machine.running


@pytest.mark.parametrize("clock", ["host", "icount"])
def test_a_waiting_machine_costs_nothing(clock: str) -> None:
    with supervised("1: wfi; j 1b", clock=clock, harts=2) as machine:
        machine.start()
        time.sleep(0.2)
        before = time.process_time()
        time.sleep(1)
        assert time.process_time() - before < 0.5


def test_a_reboot_that_is_not_wanted_ends_it() -> None:
    with supervised("li t0, TEST; li t1, RESET; sw t1, 0(t0); 1: j 1b", reboot=False) as machine:
        assert machine.run(PATIENCE) == Outcome("reboot")


def test_reset_begins_anew_whatever_the_machine_does() -> None:
    text = "li t0, UART; li t1, 'x'; sb t1, 0(t0); 1: wfi; j 1b"
    with supervised(text) as machine:
        machine.reset()
        assert not machine.running
        machine.start()
        machine.console.expect("x", PATIENCE)
        machine.reset()
        machine.console.expect("x", PATIENCE)
        assert machine.running
        machine.pause()
        machine.reset()
        assert not machine.running
        machine.resume()
        machine.console.expect("x", PATIENCE)
        machine.stop()
        machine.reset()
        assert machine.outcome is None
        machine.start()
        machine.console.expect("x", PATIENCE)
        assert machine.console.text == "xxxx"


def test_closing_is_final_and_may_be_repeated() -> None:
    machine = supervised(SPIN)
    machine.start()
    wait_until(has_run(machine))
    machine.close()
    machine.close()
    assert machine.outcome == Outcome("stopped")
    assert machine.statistics.instructions > 0
    assert not _threads()
    for use in (machine.start, machine.reset, machine.step, lambda: machine.boot(None)):
        with pytest.raises(DoppelError, match="closed"):
            use()


def test_closing_closes_what_it_was_given() -> None:
    class Watched(MemoryDisk):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    disk = Watched(size=512)
    with Machine(MEMORY, disks=[disk]):
        assert not disk.closed
    assert disk.closed == 1


def test_memory_goes_back_to_the_host() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    # Touches 32 MiB of its memory.
    text = (
        "li t0, 0x81000000; li t1, 0x83000000; li t2, 4096; 1: sd t0, 0(t0); add t0, t0, t2; bne t0, t1, 1b"
    )
    kernel = program(text + POWEROFF, SUPERVISOR)
    sizes = []
    for _ in range(4):
        with Machine(64 << 20) as machine:
            machine.boot(kernel)
            powered_off(machine)
            used = resident()
        del machine
        gc.collect()
        sizes.append(resident())
        assert used - sizes[-1] > 24 << 20
    assert sizes[-1] - sizes[0] < 8 << 20


def test_a_program_that_forgets_its_machine_ends_all_the_same() -> None:
    text = f"""
from pathlib import Path
from doppel.guests.kernel import Kernel, KernelKind, Segment
from doppel.machine import Machine
machine = Machine({MEMORY}, 2)
spin = bytes.fromhex("6f000000")
machine.boot(Kernel(KernelKind.RAW, Path("spin"), (Segment(0, spin, 4),), 0, True))
machine.start()
print("started")
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(doppel.__file__).parents[1])}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", text], capture_output=True, timeout=PATIENCE, env=environment
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"started\n", b"")


# --- pausing ---


@pytest.mark.parametrize("clock", ["host", "icount"])
def test_a_paused_machine_executes_nothing(clock: str) -> None:
    with supervised(SPIN, clock=clock) as machine:
        ran = has_run(machine)
        machine.start()
        machine.start()
        wait_until(ran)
        machine.pause()
        machine.pause()
        assert not machine.running
        ran = has_run(machine)
        time.sleep(0.05)
        assert not ran()
        machine.resume()
        wait_until(ran)


def test_pausing_often_changes_nothing() -> None:
    # Counts to ten million in two registers, which must agree in the end.
    text = """
        li s2, 10000000
    1:  addi s0, s0, 1
        addi s1, s1, 1
        bne s0, s2, 1b
        li t0, RESULTS
        sd s0, 0(t0)
        sd s1, 8(t0)
    """
    with supervised(text + POWEROFF) as machine:
        while machine.outcome is None:
            machine.start()
            time.sleep(0.001)
            machine.pause()
        assert machine.outcome == Outcome("poweroff")
        assert results(machine, 2) == [10_000_000] * 2


def test_states_that_are_asked_for_at_the_same_time() -> None:
    """Many threads pause, resume and reset one machine; in the end it does what it is told."""
    with supervised(SPIN, harts=2) as machine:
        machine.start()
        deadline = time.monotonic() + 2

        def worry(action: str) -> None:
            while time.monotonic() < deadline:
                getattr(machine, action)()

        threads = [threading.Thread(target=worry, args=(action,)) for action in ("pause", "resume")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        machine.resume()
        assert machine.running
        machine.stop()
        assert machine.outcome == Outcome("stopped")


@pytest.mark.parametrize("clock", ["host", "icount"])
@pytest.mark.parametrize("action", ["pause", "stop"])
def test_a_callback_may_pause_and_stop_its_machine(action: str, clock: str) -> None:
    machines: list[Machine] = []
    refused: list[str] = []

    def hear(data: bytes) -> None:
        try:
            machines[0].close()
        except DoppelError as error:
            refused.append(str(error))
        getattr(machines[0], action)()

    text = "li t0, UART; li t1, 10; sb t1, 0(t0); 1: addi s0, s0, 1; j 1b"
    with supervised(text, clock=clock, harts=2, console=Callback(hear)) as machine:
        machines.append(machine)
        machine.start()
        wait_until(lambda: not machine.running)
        assert refused and "callback" in refused[0]
        assert machine.outcome == (Outcome("stopped") if action == "stop" else None)


@pytest.mark.parametrize("clock", ["host", "icount"])
def test_a_console_that_breaks_ends_the_machine_with_a_message(clock: str) -> None:
    def broken(data: bytes) -> None:
        raise ValueError("no more paper")

    for character in ("\\n", "x"):
        text = f"li t0, UART; li t1, '{character}'; sb t1, 0(t0)"
        with supervised(text + POWEROFF, clock=clock, console=Callback(broken)) as machine:
            outcome = machine.run(PATIENCE)
            assert outcome.kind == "failed"
            assert "no more paper" in outcome.message


# --- what went on ---


def test_commands_need_a_machine_that_runs() -> None:
    with supervised(SPIN) as machine, pytest.raises(DoppelError, match="not running"):
        machine.sh("true")


def test_statistics() -> None:
    text = """
        li t0, UART
        li t2, 100
    1:  lbu t1, 5(t0)
        addi t2, t2, -1
        bnez t2, 1b
        li t2, 100000
    2:  addi t2, t2, -1
        bnez t2, 2b
    """
    with supervised(text + POWEROFF) as machine:
        assert machine.statistics.instructions == 0
        assert machine.statistics.native_share == machine.statistics.mips == 0
        powered_off(machine)
        statistics = machine.statistics
    assert statistics.accesses == {"uart0": 100, "test": 1}
    assert statistics.exits["device"] == 101
    assert 200_300 <= statistics.instructions <= 200_320
    assert 0.99 < statistics.native_share < 1
    assert 0 < statistics.seconds < PATIENCE
    assert statistics.mips == pytest.approx(statistics.instructions / statistics.seconds / 1e6)


def test_seconds_count_while_it_runs() -> None:
    with supervised(SPIN) as machine:
        machine.start()
        time.sleep(0.2)
        machine.pause()
        seconds = machine.statistics.seconds
        assert seconds >= 0.2
        time.sleep(0.1)
        assert machine.statistics.seconds == seconds


def test_two_machines_know_nothing_of_each_other() -> None:
    text = "li t0, UART; li t1, '{}'; li t2, 200; 1: sb t1, 0(t0); addi t2, t2, -1; bnez t2, 1b"
    with supervised(text.format("a") + POWEROFF) as one, supervised(text.format("b") + POWEROFF) as other:
        one.memory.write_u64(RESULTS, 1)
        one.start()
        other.start()
        assert one.wait(PATIENCE) == other.wait(PATIENCE) == Outcome("poweroff")
        assert (one.console.text, other.console.text) == ("a" * 200, "b" * 200)
        assert results(other, 1) == [0]
        assert one.statistics.accesses["uart0"] == other.statistics.accesses["uart0"] == 200


# --- what goes wrong on doppel's side ---


class Faulty(Device):
    """Raises whenever it is touched."""

    def __init__(self, error: Exception) -> None:
        super().__init__("faulty")
        self.error = error

    def read(self, offset: int, size: int) -> int:
        raise self.error

    def reset(self) -> None:
        return

    def describe(self, node: DeviceTreeNode) -> None:
        node.set_strings("compatible", "doppel,faulty")

    def load(self, state: Mapping[str, object]) -> None:
        return


@pytest.mark.parametrize("error", [ValueError("a bug"), MemoryError(), RecursionError("deep")])
@pytest.mark.parametrize("clock", ["host", "icount"])
def test_a_device_that_fails_ends_the_machine_with_a_message(error: Exception, clock: str) -> None:
    with Machine(MEMORY, 2, firmware=BARE, clock=clock) as machine:  # type: ignore[arg-type]
        machine.board.attach(VACANT, Faulty(error))
        machine.boot(program(f"csrr t0, mhartid; bnez t0, .; li t0, {VACANT}; lw t1, 0(t0); j .", RAM))
        outcome = machine.run(PATIENCE)
        assert (outcome.kind, outcome.status) == ("failed", 1)
        assert outcome.message.startswith("the device faulty failed: " + type(error).__name__)
        assert outcome.error is error
    assert not _threads()


def test_a_host_without_memory_ends_the_machine_with_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    with supervised("li t0, 0x80800000; sd t0, 0(t0); j .") as machine:

        def no_frames(frames: int) -> int:
            raise MemoryError("none left")

        monkeypatch.setattr(machine.memory._pool, "allocate", no_frames)
        outcome = machine.run(PATIENCE)
        assert outcome.kind == "failed"
        assert "0x80800000" in outcome.message and "none left" in outcome.message


def test_running_out_of_room_for_decoded_code() -> None:
    """Two harts keep executing new pages until there is no room; then all of it is discarded."""
    text = """
        # 64 pages of code, each of which is a return, a megabyte further for each hart.
        csrr t0, mhartid
        slli s0, t0, 20
        li t1, 0x80100000
        add s0, s0, t1
        li s1, 64
        li t2, 0x8067
        mv t3, s0
    1:  sw t2, 0(t3)
        li t4, 4096
        add t3, t3, t4
        addi s1, s1, -1
        bnez s1, 1b
        fence.i
        li s2, 30
    rounds:
        li s1, 64
        mv t3, s0
    2:  jalr ra, 0(t3)
        add t3, t3, t4
        addi s1, s1, -1
        bnez s1, 2b
        addi s2, s2, -1
        bnez s2, rounds
        li t0, RESULTS
        li t1, 1
        amoadd.d zero, t1, (t0)
        csrr t2, mhartid
        bnez t2, .
        li t2, 2
    3:  ld t1, 0(t0)
        bne t1, t2, 3b
    """
    with bare(text + POWEROFF, harts=2) as machine:
        # Room for 20 pages, as if that were all there is.
        machine._processor._state.code_capacity = 20
        powered_off(machine)
        assert machine.statistics.exits["code_full"] > 10
