"""16550A UART: the serial console that every kernel has a driver for.

Source: the PC16550D data sheet (National Semiconductor, 1995); register names are its own. Characters take no
time here: the transmitter is always empty again after a write, and a receive FIFO below its trigger level has
always timed out, so waiting characters interrupt at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import RLock
from typing import ClassVar

from doppel.devices.backends.characters import CharacterBackend, OutputBatch
from doppel.devices.device import Device, InterruptLine, Register, RegisterTable
from doppel.devices.devicetree import DeviceTreeNode

__all__ = ["CLOCK_FREQUENCY", "Uart16550"]

CLOCK_FREQUENCY = 3_686_400
"""Hz, as on QEMU's virt machine; the baud rate derived from it has no effect."""

_FIFO_SIZE = 16
_TRIGGER_LEVELS = (1, 4, 8, 14)

IER_RDI, IER_THRI, IER_RLSI, IER_MSI = 1, 2, 4, 8
IIR_NONE, IIR_MSI, IIR_THRI, IIR_RDI, IIR_RLSI, IIR_TIMEOUT = 1, 0, 2, 4, 6, 12
IIR_FIFO_ENABLED = 0xC0
FCR_ENABLE, FCR_CLEAR_RECEIVER = 1, 2
LCR_DLAB = 0x80
MCR_DTR, MCR_RTS, MCR_LOOP = 0x01, 0x02, 0x10
LSR_DR, LSR_OE, LSR_THRE, LSR_TEMT = 0x01, 0x02, 0x20, 0x40
MSR_DELTAS = 0x0F
MSR_CTS, MSR_DSR, MSR_RI, MSR_DCD = 0x10, 0x20, 0x40, 0x80
_MSR_CONNECTED = MSR_CTS | MSR_DSR | MSR_DCD


class Uart16550(Device):
    """One serial port with byte-wide registers, one byte apart."""

    size = 0x100
    registers: ClassVar[RegisterTable] = RegisterTable(
        (
            Register(0, "RBR", "r", 1, "receiver buffer; divisor latch low byte if LCR.DLAB"),
            Register(0, "THR", "w", 1, "transmitter holding register; divisor latch low byte if LCR.DLAB"),
            Register(1, "IER", "rw", 1, "interrupt enable; divisor latch high byte if LCR.DLAB"),
            Register(2, "IIR", "r", 1, "interrupt identification"),
            Register(2, "FCR", "w", 1, "FIFO control"),
            Register(3, "LCR", "rw", 1, "line control"),
            Register(4, "MCR", "rw", 1, "modem control"),
            Register(5, "LSR", "r", 1, "line status"),
            Register(6, "MSR", "r", 1, "modem status"),
            Register(7, "SCR", "rw", 1, "scratch"),
        )
    )
    saved = (
        "_fifo",
        "_divisor",
        "_ier",
        "_fcr",
        "_lcr",
        "_mcr",
        "_msr",
        "_scr",
        "_overrun",
        "_transmitter_pending",
        "_transmitter_signals",
    )

    def __init__(
        self, line: InterruptLine, backend: CharacterBackend, lock: RLock, *, name: str = "uart0"
    ) -> None:
        self._line = line
        self._backend = backend
        self._lock = lock
        self._output = OutputBatch(backend.write, lock)
        self._input_waits = False
        self._clear()
        super().__init__(name)
        line.on_taken(self._taken)
        backend.connect(self._input_arrived)

    def _clear(self) -> None:
        self._fifo = b""
        self._divisor = 0x000C
        self._ier = 0
        self._fcr = 0
        self._lcr = 0
        self._mcr = 0
        self._msr = _MSR_CONNECTED
        self._scr = 0
        self._overrun = False
        # The "THR empty" interrupt: set when the transmitter becomes empty, taken back by reading IIR. It
        # drives the wire only until a hart takes it: there are drivers (xv6 had one for years) that never
        # read IIR, and would be called again for ever.
        self._transmitter_pending = False
        self._transmitter_signals = False

    def _input_arrived(self) -> None:
        with self._lock:
            self._input_waits = True
            # A guest that polls is served when it looks; filling early would only feed its FIFO reset.
            if self._ier & IER_RDI:
                self._fill()

    def _fill(self) -> None:
        """Take input into the FIFO, as much as it has room for."""
        if self._mcr & MCR_LOOP:
            return
        room = (_FIFO_SIZE if self._fcr & FCR_ENABLE else 1) - len(self._fifo)
        if room > 0:
            data = self._backend.read(room)
            self._fifo += data
            self._input_waits = len(data) == room
            self._drive()

    def _interrupt(self) -> int:
        """The pending interrupt of highest priority, as IIR shows it (data sheet, table IV)."""
        if self._ier & IER_RLSI and self._overrun:
            return IIR_RLSI
        if self._ier & IER_RDI and self._fifo:
            if not self._fcr & FCR_ENABLE or len(self._fifo) >= _TRIGGER_LEVELS[self._fcr >> 6]:
                return IIR_RDI
            return IIR_TIMEOUT
        if self._ier & IER_THRI and self._transmitter_pending:
            return IIR_THRI
        if self._ier & IER_MSI and self._msr & MSR_DELTAS:
            return IIR_MSI
        return IIR_NONE

    def _drive(self) -> None:
        cause = self._interrupt()
        if cause == IIR_THRI and not self._transmitter_signals:
            cause = IIR_MSI if self._ier & IER_MSI and self._msr & MSR_DELTAS else IIR_NONE
        self._line.set(cause != IIR_NONE)

    def _transmitter_empty(self) -> None:
        self._transmitter_pending = self._transmitter_signals = True

    def _taken(self) -> None:
        if self._interrupt() == IIR_THRI:
            self._transmitter_signals = False
            self._drive()

    def read_rbr(self) -> int:
        """The oldest received character, 0 if there is none."""
        if self._lcr & LCR_DLAB:
            return self._divisor & 0xFF
        character = 0
        if self._input_waits and not self._fifo:
            self._fill()
        if self._fifo:
            character = self._fifo[0]
            self._fifo = self._fifo[1:]
            if self._input_waits and not self._fifo:
                self._fill()
            self._drive()
        return character

    def write_thr(self, value: int) -> None:
        """Send a character."""
        if self._lcr & LCR_DLAB:
            self._divisor = self._divisor & 0xFF00 | value
            return
        if self._mcr & MCR_LOOP:
            if len(self._fifo) < (_FIFO_SIZE if self._fcr & FCR_ENABLE else 1):
                self._fifo += bytes((value,))
            else:
                self._overrun = True
        else:
            self._output.put(value)
        self._transmitter_empty()
        if self._ier:
            self._drive()

    def read_ier(self) -> int:
        """Enabled interrupts."""
        return self._divisor >> 8 if self._lcr & LCR_DLAB else self._ier

    def write_ier(self, value: int) -> None:
        """Enable interrupts; enabling THRI while the transmitter is empty makes it pending, as drivers
        expect.
        """
        if self._lcr & LCR_DLAB:
            self._divisor = self._divisor & 0x00FF | value << 8
            return
        risen = value & ~self._ier
        self._ier = value & 0x0F
        if risen & IER_THRI:
            self._transmitter_empty()
        if risen & IER_RDI and self._input_waits:
            self._fill()
        self._drive()

    def read_iir(self) -> int:
        """What interrupts; takes a "THR empty" interrupt back."""
        cause = self._interrupt()
        if cause == IIR_THRI:
            self._transmitter_pending = False
            self._drive()
        return cause | (IIR_FIFO_ENABLED if self._fcr & FCR_ENABLE else 0)

    def write_fcr(self, value: int) -> None:
        """Enable or clear the FIFOs and set the trigger level."""
        if (value ^ self._fcr) & FCR_ENABLE or value & FCR_CLEAR_RECEIVER:
            self._fifo = b""
        # Data sheet 8.4: the other bits are written only together with bit 0.
        self._fcr = value & (0xC0 | FCR_ENABLE) if value & FCR_ENABLE else 0
        self._drive()

    def read_lcr(self) -> int:
        """Line control."""
        return self._lcr

    def write_lcr(self, value: int) -> None:
        """Only DLAB has an effect."""
        self._lcr = value

    def read_mcr(self) -> int:
        """Modem control."""
        return self._mcr

    def write_mcr(self, value: int) -> None:
        """In loopback the four modem outputs are wired to the modem inputs (data sheet 8.6)."""
        self._mcr = value & 0x1F
        lines = _MSR_CONNECTED
        if value & MCR_LOOP:
            # RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to DCD.
            lines = (value & MCR_RTS) << 3 | (value & MCR_DTR) << 5 | (value & 0x0C) << 4
        changed = (lines ^ self._msr) >> 4
        # RI reports only its falling edge (TERI).
        if not self._msr & MSR_RI:
            changed &= ~(MSR_RI >> 4)
        self._msr = lines | (self._msr | changed) & MSR_DELTAS
        self._drive()

    def read_lsr(self) -> int:
        """Line status; reading takes the overrun error back."""
        if self._input_waits and not self._fifo:
            self._fill()
        status = LSR_THRE | LSR_TEMT
        if self._fifo:
            status |= LSR_DR
        if self._overrun:
            status |= LSR_OE
            self._overrun = False
            self._drive()
        return status

    def read_msr(self) -> int:
        """Modem status; reading takes the delta bits back."""
        status = self._msr
        if status & MSR_DELTAS:
            self._msr &= ~MSR_DELTAS
            self._drive()
        return status

    def read_scr(self) -> int:
        """Scratch."""
        return self._scr

    def write_scr(self, value: int) -> None:
        """Scratch."""
        self._scr = value

    def flush(self) -> None:
        """Hand collected output to the backend now."""
        self._output.flush()

    def reset(self) -> None:
        """Power-on state; input that waits in the backend stays there."""
        self._output.flush()
        self._clear()
        self._input_waits = self._backend.waiting > 0
        self._drive()

    def save(self) -> dict[str, object]:
        """Output is handed over first, so that it is not written twice when the state is loaded."""
        self._output.flush()
        return super().save()

    def load(self, state: Mapping[str, object]) -> None:
        """Also drives the interrupt line."""
        super().load(state)
        self._input_waits = self._backend.waiting > 0
        self._drive()

    def describe(self, node: DeviceTreeNode) -> None:
        """As in the binding ``8250``."""
        node.set_strings("compatible", "ns16550a")
        node.set_cells("clock-frequency", CLOCK_FREQUENCY)
        self._line.describe(node)
