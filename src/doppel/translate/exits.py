"""Why native code hands control to Python, and what Python asks of a running hart."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["PENDING_EXIT", "ExitReason", "Reply", "Request"]

# Value of pending_cause for an exit: no architectural cause looks like it.
PENDING_EXIT = 1 << 62


class ExitReason(IntEnum):
    """Reasons of an exit."""

    BUDGET = 0  # the instructions asked for have been executed
    STOPPED = 1  # another thread asked for it
    DEVICE = 2  # a load or store outside memory: the bus's business
    VM_FAULT = 3  # the f-map has no frame for the page, or does not permit the access
    TRAP = 4  # a trap to M mode on a machine whose firmware is doppel itself
    WAIT = 5  # wfi with nothing to wake the hart by itself (instruction-count clock)
    CODE_FULL = 6  # no room for another decoded page or compiled region
    COMPILE = 7  # an instruction that was never executed, on a machine that compiles everything at once


class Reply(IntEnum):
    """What a device access came to, for the instruction that runs again."""

    NONE = 0
    DONE = 1
    FAULT = 2


class Request:
    """Bits in a hart's ``requests``."""

    STOP = 1
    FLUSH = 2
    ATTEND = 4
    SOFTWARE = 8  # set SSIP, which only the hart itself may change
    CODE = 16  # leave with CODE_FULL
