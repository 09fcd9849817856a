"""Debug console. Source: SBI 2.0, chapter 12. Bytes go straight between guest memory and the console."""

from __future__ import annotations

from collections.abc import Sequence

from doppel.machine.sbi.extension import Call, Extension, Function, SbiError, SbiFailure
from doppel.memory.view import GuestAddressError

__all__ = ["DebugConsole"]

# A call moves at most this many bytes; the guest calls again for the rest.
MAX_BYTES = 1 << 20


class DebugConsole(Extension):
    """Whole strings a call, unlike the legacy console."""

    identifier = 0x4442434E

    def functions(self) -> Sequence[Function]:
        """In the order of their numbers."""
        return (self.console_write, self.console_read, self.console_write_byte)

    def _buffer(self, call: Call, *, write: bool) -> list[memoryview]:
        length, low, high = call.arguments[:3]
        # 12.1: the upper half of the address is for machines with XLEN below 64.
        if high:
            raise SbiFailure(SbiError.INVALID_PARAM)
        try:
            return self.platform.memory.segments(low, min(length, MAX_BYTES), write=write)
        except GuestAddressError:
            raise SbiFailure(SbiError.INVALID_PARAM) from None

    def console_write(self, call: Call) -> int:
        """Write out memory; the number of bytes written."""
        pieces = self._buffer(call, write=False)
        with self.platform.lock:
            for piece in pieces:
                self.platform.console_write(bytes(piece))
        return sum(map(len, pieces))

    def console_read(self, call: Call) -> int:
        """Put waiting input into memory; the number of bytes, 0 if there is none."""
        done = 0
        with self.platform.lock:
            for piece in self._buffer(call, write=True):
                data = self.platform.console_read(len(piece))
                piece[: len(data)] = data
                done += len(data)
                if len(data) < len(piece):
                    break
        return done

    def console_write_byte(self, call: Call) -> int:
        """Write one byte."""
        with self.platform.lock:
            self.platform.console_write(bytes((call.arguments[0] & 0xFF,)))
        return 0
