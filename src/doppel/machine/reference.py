"""The reference page of the board: its memory map, and the registers that the devices declare.

``python -m doppel.machine.reference > docs/reference/devices.md`` brings the page up to date.
"""

from __future__ import annotations

import inspect
import sys

from doppel.devices.aclint import Aclint
from doppel.devices.device import Device, Register
from doppel.devices.goldfish_rtc import GoldfishRtc
from doppel.devices.plic import Plic
from doppel.devices.syscon import Syscon
from doppel.devices.uart16550 import Uart16550
from doppel.devices.virtio.blk import VirtioBlk
from doppel.devices.virtio.console import VirtioConsole
from doppel.devices.virtio.device import VirtioDevice
from doppel.devices.virtio.mmio import VirtioMmio
from doppel.devices.virtio.net import VirtioNet
from doppel.devices.virtio.ninep import VirtioNineP
from doppel.devices.virtio.rng import VirtioRng
from doppel.machine import board

__all__ = ["PLACES", "device_page"]

PLACES: tuple[tuple[int, type[Device], str], ...] = (
    (board.TEST_BASE, Syscon, ""),
    (board.RTC_BASE, GoldfishRtc, f"source {board.RTC_SOURCE}"),
    (board.CLINT_BASE, Aclint, ""),
    (board.PLIC_BASE, Plic, ""),
    (board.UART_BASE, Uart16550, f"source {board.UART_SOURCE}"),
    (
        board.VIRTIO_BASE,
        VirtioMmio,
        f"sources {board.VIRTIO_SOURCE} to {board.VIRTIO_SOURCE + board.VIRTIO_SLOTS - 1}",
    ),
)
"""Address, kind of device, and interrupt source; the virtio transports are one row."""

_VIRTIO: tuple[type[VirtioDevice], ...] = (VirtioBlk, VirtioNet, VirtioNineP, VirtioConsole, VirtioRng)

_HEAD = f"""\
# Devices

The memory map of the machine, and the registers of its devices as they declare them. Addresses and interrupt
sources are those of QEMU's `virt` board. This page is generated:

    python -m doppel.machine.reference > docs/reference/devices.md

Offsets and widths are in bytes; an access of another width than a register's reads 0 and writes nothing,
but a register of 8 bytes can be accessed as two halves. A virtio device's configuration space begins at
offset 0x100 of its transport. Memory begins at {board.RAM_BASE:#x}. A load or store where there is neither
memory nor a device is an access fault. The core-local interruptor is there only where the guest itself
begins in M mode: otherwise SBI does its work.

"""


def device_page() -> str:
    """The page, in Markdown."""
    lines = ["| address | size | device | interrupt |", "|---|---|---|---|"]
    for base, kind, interrupt in PLACES:
        count = f"{board.VIRTIO_SLOTS} × " if kind is VirtioMmio else ""
        lines.append(f"| {base:#010x} | {count}{kind.size:#x} | {_summary(kind)} | {interrupt} |")
    lines += ["", "Behind the virtio transports, in this order as far as a machine has them:", ""]
    lines += ["| virtio device | number |", "|---|---|"]
    lines += [f"| {_summary(device)} | {device.device_id} |" for device in _VIRTIO]
    return _HEAD + "\n".join(lines) + "\n" + "".join(_section(kind) for _, kind, _ in PLACES)


def _summary(kind: type[object]) -> str:
    """The first sentence of a module's docstring: what the device is, and where that is written."""
    text = inspect.getdoc(inspect.getmodule(kind)) or ""
    return " ".join(text.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".")


def _section(kind: type[Device]) -> str:
    lines = ["| offset | register | access | width | what it is |", "|---|---|---|---|---|"]
    lines += [_row(register) for register in kind.registers]
    return f"\n## {kind.__name__}\n\n" + "\n".join(lines) + "\n"


def _row(register: Register) -> str:
    offset, name = f"{register.offset:#05x}", f"`{register.name}`"
    if register.stride:
        offset += f" + {register.stride:#x} × n"
        name = f"`{register.name}[n]`, n < {str(register.count).replace('_', ' ').strip()}"
    access = {"r": "read", "w": "write", "rw": "read and write"}[register.access]
    summary = register.summary.replace("|", "\\|")
    return f"| {offset} | {name} | {access} | {register.width} | {summary} |"


if __name__ == "__main__":
    sys.stdout.write(device_page())
