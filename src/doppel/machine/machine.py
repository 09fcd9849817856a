"""A whole machine: harts, memory and devices, and what people do with it."""

from __future__ import annotations

import os
import random
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import RLock, Timer
from typing import Literal, Self

from doppel.devices.backends.alarm import HostAlarm
from doppel.devices.backends.characters import CharacterBackend
from doppel.devices.backends.disk import Disk
from doppel.devices.backends.network import NetworkBackend
from doppel.devices.backends.share import ShareServer
from doppel.devices.device import Alarm
from doppel.devices.virtio.blk import VirtioBlk
from doppel.devices.virtio.console import ConsolePort, VirtioConsole
from doppel.devices.virtio.net import VirtioNet
from doppel.devices.virtio.ninep import VirtioNineP
from doppel.devices.virtio.rng import VirtioRng
from doppel.errors import DoppelError
from doppel.guests.files import read_file
from doppel.guests.kernel import Kernel, load_kernel
from doppel.guests.symbols import SymbolFile, kernel_symbols, read_symbols
from doppel.machine.board import RAM_BASE, Board
from doppel.machine.boot import Images, Interface, Layout, enter_machine, enter_supervisor, load_firmware
from doppel.machine.clock import DEFAULT_EPOCH_NS, HostClock, InstructionAlarm, InstructionClock
from doppel.machine.console import Console
from doppel.machine.devicetree import Chosen, describe
from doppel.machine.execution import Execution, Threads
from doppel.machine.exits import ExitHandler, Next
from doppel.machine.firmware import Firmware
from doppel.machine.lifecycle import Lifecycle, Outcome
from doppel.machine.ram import Ram
from doppel.machine.registers import HartView
from doppel.machine.sbi.dispatch import Sbi
from doppel.machine.shell import Shell, ShellResult
from doppel.machine.statistics import Statistics
from doppel.machine.turns import Turns
from doppel.memory.view import GuestMemory
from doppel.processor.compilation import CompileMode
from doppel.processor.exits import Exit, ExitReason
from doppel.processor.perfmap import shared_perf_map
from doppel.processor.processor import Hart, Processor

__all__ = ["BARE", "Machine"]

BARE = "none"
"""In place of firmware: the kernel itself begins in M mode."""

INSTRUCTIONS_PER_TICK = 10
_SEED_BYTES = 64
# A hart that is stepped into WFI is left there after at most so many seconds.
_LONGEST_WAIT = 0.5

Entropy = Callable[[int], bytes]


def _seeded(seed: int) -> Entropy:
    return random.Random(seed).randbytes


class Machine:
    """A RISC-V computer of its own; several in one process know nothing of each other.

    ``memory`` is in bytes. ``firmware`` is None (doppel answers the guest's SBI calls), a file that runs
    in M mode first, or :data:`BARE`. ``clock`` is ``"host"``, or ``"icount"`` for a machine whose time is
    the number of instructions executed, and whose runs are the same every time; its date begins at
    ``epoch_ns`` and its entropy is pseudo-random. ``console`` is what the serial port is connected to
    besides :attr:`console`. ``shares`` are directories of the host: mount tag, path, read-only. ``ports``
    make a virtio console. With ``reboot`` false, a guest that resets the machine ends it. The machine
    closes the backends that it is given.

    ``compile``: ``"hot"`` compiles in the background what the guest executes often, ``"all"`` everything
    before it is executed for the first time (slow to begin with; for tests), ``"off"`` nothing. What the
    guest does is the same. ``perf_map`` writes /tmp/perf-PID.map, from which Linux's perf takes the names of
    compiled code and of the engine's own; it stays there when the machine ends.

    Raises:
        DoppelError: there cannot be such a machine.
    """

    def __init__(
        self,
        memory: int = 512 << 20,
        harts: int = 1,
        *,
        firmware: Path | str | None = None,
        clock: Literal["host", "icount"] = "host",
        console: CharacterBackend | None = None,
        disks: Sequence[Disk] = (),
        networks: Sequence[NetworkBackend] = (),
        shares: Sequence[tuple[str, Path, bool]] = (),
        ports: Sequence[ConsolePort] = (),
        entropy: Entropy | None = None,
        epoch_ns: int = DEFAULT_EPOCH_NS,
        reboot: bool = True,
        compile: CompileMode = "hot",
        perf_map: bool = False,
    ) -> None:
        self._interface = Interface.of(firmware)
        self._firmware = (
            load_firmware(Path(firmware))
            if firmware is not None and self._interface is Interface.PURE
            else None
        )
        self._reboot = reboot
        self._entropy = entropy or (os.urandom if clock == "host" else _seeded(0))
        self._arrange: Callable[[], Layout] | None = None
        self._layout: Layout | None = None
        self._disks, self._networks = tuple(disks), tuple(networks)
        self._ports = tuple(ports)
        self._shares: list[ShareServer] = []
        self.ram = Ram(RAM_BASE, memory)
        """Where memory is, how much there is, and how much of it is in use."""
        self._processor = Processor(
            self.ram.fmap,
            self.ram.pool,
            harts,
            clock=clock,
            instructions_per_tick=INSTRUCTIONS_PER_TICK,
            supervisor_calls=self._interface is Interface.IMPURE,
            compile=compile,
            perf_map=shared_perf_map() if perf_map else None,
        )
        self.memory = GuestMemory(self.ram.fmap, self.ram.pool, self.ram.pager, self._processor.code_written)
        """Guest-physical memory: read, write, and segments as buffers."""
        self.console = Console(console, self._why_silent)
        """The serial console: text, expect() and send()."""
        self._connect(clock, epoch_ns)
        try:
            self._add_virtio(shares)
        except BaseException:
            for share in self._shares:
                share.close()
            raise
        self._shell = Shell(self.console)
        self.harts = [HartView(hart, self._check_quiet) for hart in self._processor.harts]
        """Registers and CSRs by name."""
        self._closed = False
        # Native code must not run while the interpreter takes itself apart.
        self._finalizer = weakref.finalize(self, _abandon, self._life)

    def _connect(self, clock: str, epoch_ns: int) -> None:
        """Board, execution and firmware, which all need each other."""
        harts = self._processor.harts
        instruction_clock = InstructionClock(harts, INSTRUCTIONS_PER_TICK, epoch_ns)
        instruction_alarm = InstructionAlarm(instruction_clock)
        host_clock = HostClock(self._processor)

        def make_alarm(lock: RLock) -> Alarm:
            return HostAlarm(host_clock, lock) if clock == "host" else instruction_alarm

        self.board = Board(
            harts,
            self.memory,
            host_clock if clock == "host" else instruction_clock,
            make_alarm,
            self.console,
            pure=self._interface is not Interface.IMPURE,
            wake=lambda: self._execution.wake(),
            on_poweroff=self._guest_powers_off,
            on_reset=self._guest_resets,
        )
        lock = self.board.bus.lock
        self._handler = ExitHandler(self.board.bus, self.ram.pager, harts)
        discard = self._processor.discard_code
        self._execution: Execution = (
            Threads(harts, self._handler, discard)
            if clock == "host"
            else Turns(harts, self._handler, discard, instruction_clock, instruction_alarm, lock)
        )
        self._life = Lifecycle(self._execution, self._power_on, self._flush, self.console.notify_end)
        if self._interface is Interface.IMPURE:
            firmware = Firmware(
                harts,
                self.memory,
                self.board,
                self.console,
                self._execution,
                self._guest_powers_off,
                self._guest_resets,
            )
            self._handler.supervisor_call = Sbi(firmware).call

    def _add_virtio(self, shares: Sequence[tuple[str, Path, bool]]) -> None:
        board = self.board
        for number, disk in enumerate(self._disks):
            board.add_virtio(VirtioBlk(disk, serial=f"doppel{number}"))
        for network in self._networks:
            # A locally administered address; machines that share a network must not share it.
            mac = b"\x52\x54\x00" + self._entropy(3)
            board.add_virtio(VirtioNet(network, mac=mac.hex(":")))
        for tag, path, readonly in shares:
            self._shares.append(ShareServer(path, readonly=readonly))
            board.add_virtio(VirtioNineP(self._shares[-1], tag=tag))
        if self._ports:
            board.add_virtio(VirtioConsole(self._ports))
        board.add_virtio(VirtioRng(self._entropy))

    # --- booting ---

    def boot(
        self,
        kernel: Kernel | Path | str | None,
        initrd: bytes | Path | str | None = None,
        append: str = "",
        symbols: SymbolFile | Path | str | None = None,
    ) -> None:
        """Load a guest, to be started. A running machine is stopped first.

        A kernel may be left out if there is firmware, which then finds one by itself. Files are read again
        when the machine is reset. ``symbols`` is an ELF file or a System.map with the names of the kernel's
        functions for ``perf_map``; without it they come from the kernel itself, if it has them.

        Raises:
            DoppelError: a file is not there, is not what it should be, or does not fit.
        """
        self._check_open()
        if isinstance(symbols, (str, Path)):
            symbols = read_symbols(Path(symbols))

        def load() -> Kernel | None:
            return load_kernel(Path(kernel)) if isinstance(kernel, (str, Path)) else kernel

        def arrange() -> Layout:
            images = Images(
                self._interface,
                RAM_BASE,
                self.ram.size,
                load(),
                self._firmware,
                read_file(Path(initrd), "initrd") if isinstance(initrd, (str, Path)) else initrd or b"",
                append,
            )
            return images.arrange(self._tree, self._entropy(_SEED_BYTES))

        layout = arrange()
        if self._processor.perf_map is not None and (image := load()) is not None:
            named = symbols or kernel_symbols(image)
            self._processor.code_names = named.located(image, layout.kernel_at) if named else None
        if self._life.running:
            self._life.stop()
        self._layout, self._arrange = layout, arrange
        self._life.begin_anew()

    def _power_on(self) -> None:
        """The state after power-on, with the guest in memory."""
        if self._arrange is None:
            raise _nothing_to_run()
        # Kernels are large: what can be read again is not kept.
        layout, self._layout = self._layout or self._arrange(), None
        with self.board.bus.lock:
            self._execution.stop_all()
            self.board.bus.reset()
            if self.ram.mapped_bytes:
                self.ram.clear()
                self._processor.discard_code()
            layout.load(self.memory)
            for hart in self._processor.harts:
                # Interrupts and flushes that were asked for before are for the harts as they were.
                hart.run(0)
                if self._interface is not Interface.IMPURE:
                    enter_machine(hart, layout.entry, layout.tree, layout.information)
                    self._execution.start(hart.index, _nothing)
                elif hart.index == 0:
                    enter_supervisor(hart, layout.entry, layout.tree)
                    self._execution.start(0, _nothing)

    def _tree(self, chosen: Chosen) -> bytes:
        harts = len(self._processor.harts)
        return describe(self.board, harts, (self.ram.base, self.ram.size), chosen).flatten()

    @property
    def device_tree(self) -> bytes:
        """The flattened device tree of this board, without what a boot adds to it."""
        return self._tree(Chosen())

    # --- life ---

    def start(self) -> None:
        """Let the harts run, in threads of their own."""
        self._check_booted()
        self._life.start()

    def pause(self) -> None:
        """Stop all harts between two instructions. The host's time goes on.

        Returns when they have stopped; if it is called from a callback of the machine's own, before that.
        """
        self._life.pause()

    def resume(self) -> None:
        """Go on after a pause."""
        self.start()

    def reset(self) -> None:
        """Begin anew with the guest that was booted; a machine that runs goes on running."""
        self._check_booted()
        if self._life.running:
            self._life.restart()
        else:
            self._life.begin_anew()

    def stop(self) -> None:
        """End the machine; returns when it has ended, with the same exception as :meth:`pause`."""
        self._life.stop()

    def wait(self, timeout: float | None = None) -> Outcome:
        """How the machine ended, once it has; TimeoutError if it does not within ``timeout`` seconds."""
        return self._life.wait(timeout)

    def run(self, timeout: float | None = None) -> Outcome:
        """Start, and wait for the end."""
        self.start()
        return self.wait(timeout)

    @property
    def running(self) -> bool:
        """Whether the harts run, or wait for interrupts."""
        return self._life.running

    @property
    def outcome(self) -> Outcome | None:
        """How the machine ended, if it has."""
        return self._life.outcome

    def _guest_powers_off(self, status: int) -> None:
        self._life.end(Outcome("poweroff", status))

    def _guest_resets(self) -> None:
        if self._reboot:
            self._life.restart()
        else:
            self._life.end(Outcome("reboot"))

    def _flush(self) -> None:
        with self.board.bus.lock:
            self.board.uart.flush()

    def _why_silent(self) -> str | None:
        outcome = self._life.outcome
        if outcome is None:
            return None
        return f"the machine ended ({outcome.kind})" + (f": {outcome.message}" if outcome.message else "")

    # --- working with it ---

    def sh(self, command: str, timeout: float = 60.0) -> ShellResult:
        """Run a command in the shell at the guest's serial console.

        Raises:
            TimeoutError: it did not end within ``timeout`` seconds, or there is no shell.
            DoppelError: the machine does not run, or ended first.
        """
        if not self.running and self.outcome is None:
            raise DoppelError("the machine is not running", "start() it first")
        return self._shell.run(command, timeout)

    def step(self, hart: int = 0, count: int = 1) -> int:
        """Let one hart of a machine that does not run execute up to ``count`` instructions; how many it did.

        Fewer if it waits for an interrupt for long, or the machine ends. A trap counts as one.
        """
        self._check_quiet()
        # What halted the harts for a pause must not halt these instructions too.
        self._execution.go_on()
        runner = self._processor.harts[hart]
        began = runner.state.spent
        try:
            while not self._execution.halting and (left := count - (runner.state.spent - began)) > 0:
                # A hart in WFI stays in native code.
                alarm = Timer(_LONGEST_WAIT, runner.stop)
                alarm.daemon = True
                alarm.start()
                try:
                    exit = runner.run(left)
                finally:
                    alarm.cancel()
                if not self._stepped(runner, exit):
                    break
        finally:
            self._life.settle()
        return int(runner.state.spent - began)

    def _stepped(self, hart: Hart, exit: Exit) -> bool:
        """Serve the exit of a single step; whether the hart can go on."""
        if exit.reason is ExitReason.DEVICE:
            self._handler.device(hart, exit)
            return True
        following = self._handler.other(hart, exit)
        if following is Next.DISCARD:
            self._processor.discard_code()
        return following is not Next.IDLE and not (following is Next.STOPPED and hart.waiting)

    @property
    def statistics(self) -> Statistics:
        """Counts since the machine was made; exact when it does not run."""
        totals = [sum(column) for column in zip(*self._handler.counts, strict=True)]
        return Statistics(
            instructions=sum(hart.instructions for hart in self._processor.harts),
            seconds=self._life.seconds,
            exits={reason.name.lower(): totals[reason] for reason in ExitReason if totals[reason]},
            accesses={
                region.device.name: region.reads + region.writes
                for region in self.board.bus
                if region.reads + region.writes
            },
            engine=self._processor.statistics,
        )

    def _check_booted(self) -> None:
        self._check_open()
        if self._arrange is None:
            raise _nothing_to_run()

    def _check_quiet(self) -> None:
        self._check_open()
        if self._life.running:
            raise DoppelError("the machine is running", "pause() it first")

    # --- the end ---

    def _check_open(self) -> None:
        if self._closed:
            raise DoppelError("the machine is closed", "make another one")

    def close(self) -> None:
        """End the machine and give back all it has of the host. Its console text and outcome stay."""
        if self._closed:
            return
        if self._life.inside:
            raise DoppelError(
                "a machine cannot be closed by a callback of its own", "stop() it there instead"
            )
        self._life.stop()
        self._closed = True
        self._finalizer.detach()
        with self.board.bus.lock:
            self.board.bus.reset()
        self.console.close()
        for port in self._ports:
            port.backend.close()
        for disk in self._disks:
            disk.close()
        for network in self._networks:
            network.close()
        for share in self._shares:
            share.close()
        self._processor.close()
        self.ram.close()
        self._arrange = self._layout = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _nothing() -> None:
    return


def _nothing_to_run() -> DoppelError:
    return DoppelError("the machine has nothing to run", "boot() a kernel first")


def _abandon(life: Lifecycle) -> None:
    life.stop()
