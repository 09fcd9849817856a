"""Block device. Source: VIRTIO 1.2, section 5.2.

Requests are served at once, in the driver's notification: data moves by one system call between the disk and
guest memory. The header and the status byte are looked for by position in the chain, not by descriptor
(section 2.7.4).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from doppel.devices.backends.disk import SECTOR_SIZE, Disk
from doppel.devices.virtio.device import VirtioDevice
from doppel.devices.virtio.queue import Chain, Virtqueue, VirtqueueError
from doppel.errors import DoppelError

__all__ = ["VirtioBlk"]

F_SEG_MAX, F_RO, F_BLK_SIZE, F_FLUSH = 1 << 2, 1 << 5, 1 << 6, 1 << 9
F_DISCARD, F_WRITE_ZEROES = 1 << 13, 1 << 14

T_IN, T_OUT, T_FLUSH, T_GET_ID, T_DISCARD, T_WRITE_ZEROES = 0, 1, 4, 8, 11, 13
S_OK, S_IOERR, S_UNSUPP = 0, 1, 2

_HEADER = struct.Struct("<IIQ")
_RANGE = struct.Struct("<QII")
_RANGE_UNMAP = 1
_CONFIGURATION = struct.Struct("<QIIHBBIBBHIBBHIIIIIB3x")

_QUEUE_SIZE = 256
_ID_LENGTH = 20
# Drivers send a few MiB at a time, boot loaders sometimes a whole kernel.
_MAX_TRANSFER = 256 << 20
# Ranges of a discard or write-zeroes request. Zeroes may have to be written out: keep one request below 32
# MiB.
_MAX_RANGES = 16
_MAX_DISCARD_SECTORS = 1 << 22
_MAX_ZERO_SECTORS = 1 << 16


class _RequestError(Exception):
    """The request is answered with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class VirtioBlk(VirtioDevice):
    """A disk of ``disk.size`` bytes; ``serial`` (at most 20 ASCII characters) is what GET_ID answers."""

    device_id = 2
    queue_sizes = (_QUEUE_SIZE,)

    def __init__(self, disk: Disk, *, serial: str = "doppel") -> None:
        if len(serial) > _ID_LENGTH or not serial.isascii():
            raise DoppelError(
                f"{serial!r} cannot be a disk's serial number", f"use at most {_ID_LENGTH} ASCII characters"
            )
        self.disk = disk
        self._serial = serial.encode().ljust(_ID_LENGTH, b"\0")
        self.features = F_SEG_MAX | F_BLK_SIZE | F_FLUSH
        self.features |= F_RO if disk.readonly else F_DISCARD | F_WRITE_ZEROES
        self._write_through = False
        self._handlers: dict[int, Callable[[Chain, int], int]] = {
            T_IN: self._read,
            T_OUT: self._write,
            T_FLUSH: self._flush,
            T_GET_ID: self._get_id,
            T_DISCARD: self._discard,
            T_WRITE_ZEROES: self._write_zeroes,
        }

    def configuration(self) -> bytes:
        """struct virtio_blk_config up to write_zeroes_may_unmap (section 5.2.4)."""
        return _CONFIGURATION.pack(
            self.disk.size // SECTOR_SIZE,
            0,
            _QUEUE_SIZE - 2,
            *(0, 0, 0),
            SECTOR_SIZE,
            *(0, 0, 0, 0),
            *(0, 0, 1),
            _MAX_DISCARD_SECTORS,
            _MAX_RANGES,
            1,
            _MAX_ZERO_SECTORS,
            _MAX_RANGES,
            1,
        )

    def start(self) -> None:
        """A driver that does not flush expects complete writes to be stable (section 5.2.6.2)."""
        self._write_through = not self.transport.negotiated & F_FLUSH
        super().start()

    def load(self, state: Mapping[str, object]) -> None:
        """What there is to know follows from the negotiated features."""
        self._write_through = not self.transport.negotiated & F_FLUSH

    def process(self, queue: Virtqueue) -> None:
        """Serve every available request."""
        for chain in queue.take(2 * _QUEUE_SIZE):
            queue.push(chain, self._serve(chain))
        self.transport.used(queue)

    def _serve(self, chain: Chain) -> int:
        """Do one request and write its status; the number of bytes written from the start of the writable
        part.
        """
        header = chain.read(0, _HEADER.size)
        room = chain.writable_length - 1
        if len(header) < _HEADER.size or room < 0:
            raise VirtqueueError("a block request without header or without room for its status")
        kind, _, sector = _HEADER.unpack(header)
        status, written = S_OK, 0
        handler = self._handlers.get(kind)
        if handler is None:
            status = S_UNSUPP
        else:
            try:
                written = handler(chain, sector)
            except _RequestError as error:
                status = error.status
            except OSError:
                status = S_IOERR
        address, length = chain.writable[-1]
        chain.memory.write(address + length - 1, bytes((status,)))
        # The used length counts from the start: the status byte only if all before it was written.
        return written + 1 if written == room else written

    def _range(self, sector: int, length: int) -> int:
        """Byte offset of an access that lies within the disk."""
        offset = sector * SECTOR_SIZE
        if length % SECTOR_SIZE or offset + length > self.disk.size:
            raise _RequestError(S_IOERR)
        return offset

    def _transfer(self, sector: int, length: int) -> int:
        if length > _MAX_TRANSFER:
            raise _RequestError(S_IOERR)
        return self._range(sector, length)

    def _read(self, chain: Chain, sector: int) -> int:
        length = chain.writable_length - 1
        offset = self._transfer(sector, length)
        if length:
            self.disk.readv(offset, chain.writable_segments(0, length))
        return length

    def _write(self, chain: Chain, sector: int) -> int:
        length = chain.readable_length - _HEADER.size
        offset = self._transfer(sector, length)
        self._refuse_if_readonly()
        if length:
            self.disk.writev(offset, chain.readable_segments(_HEADER.size, length))
            self._settle()
        return 0

    def _refuse_if_readonly(self) -> None:
        if self.disk.readonly:
            raise _RequestError(S_IOERR)

    def _settle(self) -> None:
        if self._write_through:
            self.disk.flush()

    def _flush(self, chain: Chain, sector: int) -> int:
        self.disk.flush()
        return 0

    def _get_id(self, chain: Chain, sector: int) -> int:
        return chain.write(0, self._serial[: chain.writable_length - 1])

    def _ranges(self, chain: Chain, known_flags: int, max_sectors: int) -> list[tuple[int, int, int]]:
        """Offset, length and flags of each range, all checked before anything is done."""
        self._refuse_if_readonly()
        length = chain.readable_length - _HEADER.size
        if not 0 < length <= _MAX_RANGES * _RANGE.size or length % _RANGE.size:
            raise _RequestError(S_IOERR)
        ranges = []
        for sector, count, flags in _RANGE.iter_unpack(chain.read(_HEADER.size, length)):
            if flags & ~known_flags:
                raise _RequestError(S_UNSUPP)
            if count > max_sectors:
                raise _RequestError(S_IOERR)
            ranges.append((self._range(sector, count * SECTOR_SIZE), count * SECTOR_SIZE, flags))
        return ranges

    def _discard(self, chain: Chain, sector: int) -> int:
        # Section 5.2.6.2: a discard with the unmap flag is not supported.
        for offset, length, _ in self._ranges(chain, 0, _MAX_DISCARD_SECTORS):
            self.disk.discard(offset, length)
        return 0

    def _write_zeroes(self, chain: Chain, sector: int) -> int:
        for offset, length, flags in self._ranges(chain, _RANGE_UNMAP, _MAX_ZERO_SECTORS):
            self.disk.write_zeroes(offset, length, unmap=bool(flags & _RANGE_UNMAP))
        self._settle()
        return 0
