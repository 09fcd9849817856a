from __future__ import annotations

import time
from collections.abc import Callable
from threading import RLock

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doppel.devices.backends.characters import Buffer, Callback
from doppel.devices.devicetree import DeviceTreeNode
from doppel.devices.plic import Plic
from doppel.devices.uart16550 import Uart16550
from doppel.errors import DoppelError

from .support import FakeHarts, Wire

RBR, THR, IER, IIR, FCR, LCR, MCR, LSR, MSR, SCR = 0, 0, 1, 2, 2, 3, 4, 5, 6, 7


class Port:
    def __init__(self) -> None:
        self.wire = Wire()
        self.backend = Buffer()
        self.uart = Uart16550(self.wire, self.backend, RLock())

    def read(self, offset: int) -> int:
        return self.uart.read(offset, 1)

    def write(self, offset: int, value: int) -> None:
        self.uart.write(offset, 1, value)


@pytest.fixture
def port() -> Port:
    return Port()


def test_output_goes_on_by_lines_and_on_demand(port: Port) -> None:
    for character in b"line\nrest":
        port.write(THR, character)
    assert port.backend.output == b"line\n"
    port.uart.flush()
    assert port.backend.output == b"line\nrest"


def test_output_goes_on_after_a_while(port: Port) -> None:
    for character in b"login: ":
        port.write(THR, character)
    deadline = time.monotonic() + 10
    while port.backend.output != b"login: " and time.monotonic() < deadline:
        time.sleep(0.005)
    assert port.backend.output == b"login: "


def test_long_lines_go_on_in_pieces() -> None:
    pieces: list[bytes] = []
    uart = Uart16550(Wire(), Callback(pieces.append), RLock())
    for _ in range(10_000):
        uart.write(THR, 1, 0x78)
    uart.flush()
    assert b"".join(pieces) == b"x" * 10_000
    assert len(pieces) < 30


def test_line_status(port: Port) -> None:
    assert port.read(LSR) == 0x60
    port.backend.feed(b"ab")
    assert port.read(LSR) == 0x61
    assert port.read(RBR) == ord("a")
    assert port.read(LSR) == 0x61
    assert port.read(RBR) == ord("b")
    assert port.read(LSR) == 0x60
    assert port.read(RBR) == 0


def test_receive_interrupt_and_flow_control(port: Port) -> None:
    port.write(FCR, 0x01)
    port.write(IER, 0x01)
    assert not port.wire.level
    data = bytes(range(1, 41))
    port.backend.feed(data)
    assert port.wire.level
    assert port.backend.waiting == 40 - 16, "the FIFO has room for 16"
    assert port.read(IIR) == 0xC4
    received = bytearray()
    while port.read(LSR) & 1:
        received.append(port.read(RBR))
    assert received == data
    assert not port.wire.level
    assert port.backend.waiting == 0


def test_trigger_level_and_timeout(port: Port) -> None:
    port.write(FCR, 0x81)
    port.write(IER, 0x01)
    port.backend.feed(b"x" * 7)
    assert port.wire.level
    assert port.read(IIR) == 0xCC
    port.backend.feed(b"y")
    assert port.read(IIR) == 0xC4


def test_without_fifo_one_character_at_a_time(port: Port) -> None:
    port.write(IER, 0x01)
    port.backend.feed(b"abc")
    assert port.backend.waiting == 2
    assert port.read(IIR) == 0x04
    assert [port.read(RBR) for _ in range(3)] == list(b"abc")
    assert port.read(IIR) == 0x01


def test_input_that_came_before_interrupts_were_enabled(port: Port) -> None:
    port.backend.feed(b"early")
    port.write(FCR, 0x07)
    assert not port.wire.level
    port.write(IER, 0x01)
    assert port.wire.level
    assert bytes(port.read(RBR) for _ in range(5)) == b"early"


def test_transmitter_interrupt_as_linux_tests_it(port: Port) -> None:
    # Linux's THRE test: enabling the interrupt must raise it each time the transmitter is empty.
    port.write(IER, 0x02)
    assert port.read(IIR) == 0x02
    assert port.read(IIR) == 0x01
    assert not port.wire.level
    port.write(IER, 0x00)
    port.write(IER, 0x02)
    assert port.wire.level
    assert port.read(IIR) == 0x02
    port.write(THR, 0x41)
    assert port.wire.level
    assert port.read(IIR) == 0x02
    port.write(IER, 0x00)
    assert not port.wire.level


def test_transmitter_interrupt_as_xv6_uses_it(port: Port) -> None:
    port.write(IER, 0x00)
    port.write(LCR, 0x80)
    port.write(0, 3)
    port.write(1, 0)
    port.write(LCR, 0x03)
    port.write(FCR, 0x07)
    port.write(IER, 0x03)
    for character in b"xv6\n":
        assert port.wire.level
        port.read(IIR)
        assert not port.wire.level
        assert port.read(LSR) & 0x20
        port.write(THR, character)
    assert port.backend.output == b"xv6\n"


class Board:
    """The UART on source 10 of a PLIC, enabled for hart 0 in supervisor mode."""

    def __init__(self) -> None:
        self.harts = FakeHarts()
        self.plic = Plic(self.harts, 1)
        self.backend = Buffer()
        self.uart = Uart16550(self.plic.line(10), self.backend, RLock())
        self.plic.write(4 * 10, 4, 1)
        self.plic.write(0x2080, 4, 1 << 10)

    def serve(self, handler: Callable[[Uart16550], None], limit: int = 100) -> int:
        """Claim, handle and complete while the hart is interrupted; how often that was."""
        count = 0
        while self.harts.seip.get(0, False) and count < limit:
            count += 1
            assert self.plic.read(0x201004, 4) == 10
            handler(self.uart)
            self.plic.write(0x201004, 4, 10)
        return count


def test_a_driver_that_never_reads_iir_is_not_called_for_ever() -> None:
    board = Board()
    received = bytearray()

    def handler(uart: Uart16550) -> None:
        while uart.read(LSR, 1) & 1:
            received.append(uart.read(RBR, 1))

    board.uart.write(FCR, 1, 0x07)
    board.uart.write(IER, 1, 0x03)
    assert board.serve(handler) == 1
    board.backend.feed(b"typed")
    assert 1 <= board.serve(handler) <= 2
    assert received == b"typed"
    for _ in range(3):
        board.uart.write(THR, 1, 0x41)
        assert board.serve(handler) == 1
    # Sent from within the handler: it is called once more.
    sent = []

    def sender(uart: Uart16550) -> None:
        if len(sent) < 3:
            sent.append(1)
            uart.write(THR, 1, 0x42)

    board.uart.write(THR, 1, 0x42)
    assert board.serve(sender) == 4


def test_a_driver_that_reads_one_cause_at_a_time_gets_all_of_them() -> None:
    board = Board()
    board.uart.write(FCR, 1, 0x01)
    board.uart.write(IER, 1, 0x03)
    board.backend.feed(b"x")
    causes = []

    def handler(uart: Uart16550) -> None:
        causes.append(uart.read(IIR, 1) & 0x0F)
        uart.read(LSR, 1)
        uart.read(RBR, 1)

    board.serve(handler)
    assert causes == [0x04, 0x02]


def test_an_interrupt_that_was_taken_is_still_there_to_identify() -> None:
    board = Board()
    board.uart.write(IER, 1, 0x02)
    # Another hart looks at the line status between claim and handler.
    assert board.serve(lambda uart: None, limit=1) == 1
    board.uart.read(LSR, 1)
    assert board.uart.read(IIR, 1) == 0x02


def test_receiving_has_priority_over_transmitting(port: Port) -> None:
    port.write(FCR, 0x01)
    port.write(IER, 0x03)
    port.backend.feed(b"a")
    assert port.read(IIR) & 0x0F == 0x04
    port.read(RBR)
    assert port.read(IIR) & 0x0F == 0x02
    assert port.read(IIR) & 0x0F == 0x01


def test_divisor_latch(port: Port) -> None:
    port.write(IER, 0x05)
    port.write(LCR, 0x83)
    port.write(0, 0x12)
    port.write(1, 0x34)
    assert (port.read(0), port.read(1)) == (0x12, 0x34)
    port.write(LCR, 0x03)
    assert port.read(IER) == 0x05
    port.uart.flush()
    assert port.backend.output == b""


def test_scratch_and_plain_registers(port: Port) -> None:
    port.write(SCR, 0xA5)
    assert port.read(SCR) == 0xA5
    port.write(MCR, 0xFF)
    assert port.read(MCR) == 0x1F
    port.write(IER, 0xFF)
    assert port.read(IER) == 0x0F
    assert port.read(8) == 0
    assert port.uart.read(0, 4) == 0


def test_loopback_of_characters(port: Port) -> None:
    port.write(FCR, 0x01)
    port.write(MCR, 0x10)
    port.backend.feed(b"z")
    for character in range(17):
        port.write(THR, character)
    assert port.read(LSR) == 0x63
    assert port.read(LSR) == 0x61, "reading took the overrun back"
    assert [port.read(RBR) for _ in range(17)] == [*range(16), 0]
    port.uart.flush()
    assert port.backend.output == b""
    port.write(MCR, 0)
    assert port.read(RBR) == ord("z")


def test_overrun_interrupt(port: Port) -> None:
    port.write(MCR, 0x10)
    port.write(IER, 0x05)
    port.write(THR, 1)
    port.write(THR, 2)
    assert port.read(IIR) == 0x06
    port.read(LSR)
    assert port.read(IIR) == 0x04


@pytest.mark.parametrize(
    ("control", "status"), [(0x01, 0x20), (0x02, 0x10), (0x04, 0x40), (0x08, 0x80), (0x0A, 0x90), (0, 0)]
)
def test_loopback_of_modem_lines(port: Port, control: int, status: int) -> None:
    port.write(MCR, 0x10 | control)
    assert port.read(MSR) & 0xF0 == status


def test_modem_status_deltas_and_interrupt(port: Port) -> None:
    assert port.read(MSR) == 0xB0
    port.write(IER, 0x08)
    port.write(MCR, 0x14)
    assert port.read(IIR) == 0x00
    assert port.wire.level
    # CTS, DSR and DCD fell; RI rose, which is not reported.
    assert port.read(MSR) == 0x4B
    assert port.read(MSR) == 0x40
    assert not port.wire.level
    port.write(MCR, 0x10)
    assert port.read(MSR) == 0x04


def test_fifo_is_cleared(port: Port) -> None:
    port.write(FCR, 0x01)
    port.write(IER, 0x01)
    port.backend.feed(b"abc")
    port.write(FCR, 0x03)
    assert port.read(LSR) == 0x60
    assert not port.wire.level
    port.backend.feed(b"d")
    port.write(FCR, 0x00)
    assert port.read(LSR) == 0x60
    assert port.read(IIR) == 0x01


def test_reset_keeps_waiting_input(port: Port) -> None:
    port.write(IER, 0x01)
    port.backend.feed(b"ab")
    port.uart.reset()
    assert not port.wire.level
    assert port.read(IER) == 0
    assert port.read(RBR) == ord("b")


def test_a_backend_may_answer_at_once() -> None:
    class Echo(Callback):
        def __init__(self) -> None:
            super().__init__(self.feed)

    uart = Uart16550(Wire(), Echo(), RLock())
    uart.write(IER, 1, 1)
    for character in b"hi\n":
        uart.write(THR, 1, character)
    assert bytes(uart.read(RBR, 1) for _ in range(3)) == b"hi\n"


def test_save_and_load(port: Port) -> None:
    port.write(FCR, 0xC1)
    port.write(IER, 0x03)
    port.write(SCR, 9)
    port.write(LCR, 0x1B)
    port.write(THR, 0x41)
    port.backend.feed(b"abc")
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(port.uart.save()))
    assert port.backend.output == b"A"
    other = Port()
    other.uart.load(state)
    assert other.wire.level
    assert other.uart.save() == port.uart.save()
    assert bytes(other.read(RBR) for _ in range(3)) == b"abc"
    with pytest.raises(DoppelError):
        other.uart.load(state | {"ier": "many"})


def test_describe(port: Port) -> None:
    node = DeviceTreeNode("serial@10000000")
    port.uart.describe(node)
    assert node.get_strings("compatible") == ("ns16550a",)
    assert node.get_cells("clock-frequency") == (3686400,)
    assert node.get_cells("interrupts") == (5,)


operations = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 9), st.integers(0, 255)),
        st.tuples(st.just("read"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("feed"), st.integers(0, 40), st.just(0)),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(operations)
def test_any_use(steps: list[tuple[str, int, int]]) -> None:
    port = Port()
    for kind, where, value in steps:
        if kind == "write":
            port.write(where, value)
        elif kind == "read":
            assert 0 <= port.read(where) <= 255
        else:
            port.backend.feed(bytes(where))
    # The wire says what IIR says as long as no hart has taken an interrupt.
    assert port.wire.level == (port.read(IIR) & 1 == 0)
    other = Port()
    other.uart.load(port.uart.save())
    other.backend.feed(port.backend.read(100))
    for register in (IER, LCR, MCR, SCR):
        assert other.read(register) == port.read(register)
