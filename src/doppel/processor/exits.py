"""What a hart's run came to."""

from __future__ import annotations

from typing import NamedTuple

from doppel.translate.exits import ExitReason

__all__ = ["Exit", "ExitReason"]


class Exit(NamedTuple):
    """Why native code handed control back.

    ``address`` is guest-physical for DEVICE and VM_FAULT, the trap value for TRAP; ``size`` in bytes;
    ``access`` as in :class:`doppel.isa.privileged.constants.Access`; ``value`` what is stored, or the trap's
    cause.
    """

    reason: ExitReason
    address: int = 0
    size: int = 0
    access: int = 0
    value: int = 0
