"""Memory as the guest's program sees it, from outside: the φ-map is followed, nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from doppel.cli.monitor.session import MonitorError, Session
from doppel.isa.privileged.constants import Access, EnvironmentConfig, Mode, Status
from doppel.isa.privileged.translation import translate
from doppel.isa.state import PMP_ENTRIES
from doppel.isa.words import MASK64, Trap, Word
from doppel.memory.view import GuestAddressError

if TYPE_CHECKING:
    from doppel.machine import Machine

__all__ = ["physical_address", "read", "write"]

PAGE_SIZE = 4096
# One entry over all addresses that permits everything (privileged manual 3.7.1): a person may look anywhere.
_PMP_ALL = 0x1F


class _Observer:
    """What the page walk asks of a hart. Permissions are those of somebody who may read everything."""

    def __init__(self, machine: Machine, satp: int) -> None:
        self._memory = machine.memory
        self.satp = Word(satp)
        self.mstatus = Word(Status.SUM | Status.MXR)
        self.menvcfg = Word(EnvironmentConfig.ADUE)
        self.pmpcfg = [Word(_PMP_ALL)] + [Word(0)] * (PMP_ENTRIES - 1)
        self.pmpaddr = [Word(MASK64 >> 10)] * PMP_ENTRIES

    def physical_load(self, address: int, cause: int, value: int) -> Word:
        try:
            return Word(self._memory.read_u64(address))
        except GuestAddressError:
            raise Trap(cause, value) from None

    def physical_compare_exchange(self, address: int, expected: int, value: int) -> bool:
        # The walk believes to have set the accessed bit; nothing is written.
        return True


def physical_address(session: Session, address: int) -> int:
    """Where a virtual address of the current hart leads; in M mode all addresses are physical.

    Raises:
        MonitorError: the guest has not mapped it.
    """
    if session.hart.mode == Mode.M:
        return address
    observer = _Observer(session.machine, session.hart.csr["satp"])
    try:
        return int(translate(observer, Word(address), Word(Access.LOAD), Word(Mode.S))[0])
    except Trap:
        raise MonitorError(f"the guest has nothing mapped at {address:#x}") from None


def read(session: Session, address: int, length: int, *, physical: bool = False) -> bytes:
    """Bytes of memory at a virtual (or physical) address."""
    return b"".join(
        session.machine.memory.read(start, size)
        for start, size in _memory(session, address, length, physical=physical)
    )


def write(session: Session, address: int, data: bytes, *, physical: bool = False) -> None:
    """Change memory; nothing is written unless all can be."""
    for start, size in list(_memory(session, address, len(data), physical=physical)):
        session.machine.memory.write(start, data[:size])
        data = data[size:]


def _memory(session: Session, address: int, length: int, *, physical: bool) -> Iterator[tuple[int, int]]:
    """The pieces, page by page, with physical addresses that have been checked to be memory."""
    while length:
        size = min(length, PAGE_SIZE - address % PAGE_SIZE)
        start = address if physical else physical_address(session, address)
        try:
            session.machine.memory.segments(start, size, write=False)
        except GuestAddressError:
            raise MonitorError(
                f"there is no memory at {start:#x}; devices are not looked into, for that could change them"
            ) from None
        yield start, size
        address = (address + size) & MASK64
        length -= size
