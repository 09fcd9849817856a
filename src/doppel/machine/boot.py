"""Putting a guest into memory, and harts into the state in which its first instruction finds them.

Three ways to start:

- *impure*: doppel is the firmware; the kernel begins in S mode and makes SBI calls;
- *pure*: firmware begins in M mode and starts the kernel later (OpenSBI, docs/firmware/fw_dynamic.md and
  fw_jump.md say how it wants to find things);
- *bare*: the kernel itself begins in M mode.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from doppel.errors import DoppelError
from doppel.guests.kernel import Kernel, load_kernel
from doppel.isa.csr import DELEGABLE_EXCEPTIONS, S_INTERRUPTS
from doppel.isa.privileged.constants import Cause, EnvironmentConfig, Mode
from doppel.machine.devicetree import Chosen
from doppel.memory.view import GuestMemory
from doppel.processor.processor import Hart

__all__ = ["Images", "Interface", "Layout", "enter_machine", "enter_supervisor", "load_firmware"]

# Where firmware hands over to the kernel: behind the 2 MiB that it keeps to itself.
KERNEL_OFFSET = 0x20_0000
# Firmware adds nodes to the device tree in place.
TREE_SLACK = 32 << 10
TREE_ALIGNMENT = 64 << 10
INITRD_ALIGNMENT = 4 << 10

# struct fw_dynamic_info, version 2: magic, version, address, mode and options of the next stage, boot hart.
FW_DYNAMIC_INFO = struct.Struct("<6Q")
FW_DYNAMIC_MAGIC, FW_DYNAMIC_VERSION = 0x4942534F, 2
BOOT_HART = 0

# Everything is the supervisor's but its own calls.
DELEGATED = DELEGABLE_EXCEPTIONS & ~(1 << Cause.ECALL_FROM_S)
# cycle, time, instret.
COUNTERS = 7
ENVIRONMENT = (
    EnvironmentConfig.STCE
    | EnvironmentConfig.ADUE
    | EnvironmentConfig.CBIE
    | EnvironmentConfig.CBCFE
    | EnvironmentConfig.CBZE
)
# One naturally aligned power-of-two region that is the whole address space, open to S and U (3.7.1).
PMP_NAPOT_RWX = 0x1F
PMP_EVERYTHING = (1 << 54) - 1


class Interface(Enum):
    """What a guest finds beneath it."""

    IMPURE = "impure"
    PURE = "pure"
    BARE = "bare"

    @classmethod
    def of(cls, firmware: Path | str | None) -> Interface:
        """The interface of a machine with this firmware: None, a file, or the word ``none``."""
        if firmware is None:
            return cls.IMPURE
        return cls.BARE if firmware == "none" else cls.PURE


def _reset(hart: Hart) -> None:
    """Reset a hart, but not the wires into it, which belong to the devices."""
    lines = hart.state.lines
    hart.reset()
    hart.state.lines = lines


def enter_supervisor(hart: Hart, pc: int, argument: int) -> None:
    """A hart as SBI hands it over (SBI 2.0, 9.1): S mode, no translation, ``a0`` its number, ``a1`` the
    argument. The caller holds the bus lock.
    """
    _reset(hart)
    state = hart.state
    state.mode = Mode.S
    state.pc = pc
    state.x[10] = hart.index
    state.x[11] = argument
    state.medeleg = DELEGATED
    state.mideleg = S_INTERRUPTS
    state.mcounteren = COUNTERS
    state.scounteren = COUNTERS
    state.menvcfg = ENVIRONMENT
    state.pmpcfg[0] = PMP_NAPOT_RWX
    state.pmpaddr[0] = PMP_EVERYTHING


def enter_machine(hart: Hart, pc: int, tree: int, information: int) -> None:
    """A hart as it leaves the reset vector: ``a0`` its number, ``a1`` the device tree, ``a2`` information for
    the firmware. The caller holds the bus lock.
    """
    _reset(hart)
    state = hart.state
    state.pc = pc
    state.x[10] = hart.index
    state.x[11] = tree
    state.x[12] = information


def load_firmware(path: Path) -> Kernel:
    """Firmware: an ELF executable, or a raw image that goes to the start of memory."""
    try:
        with path.open("rb") as file:
            raw = file.read(4) != b"\x7fELF"
    except FileNotFoundError as error:
        raise DoppelError(f"there is no firmware {path}", "check the path") from error
    except OSError as error:
        raise DoppelError(
            f"the firmware {path} cannot be read: {error.strerror}", "check the path"
        ) from error
    return load_kernel(path, raw=raw)


@dataclass(frozen=True)
class Layout:
    """A guest with addresses for everything, known to fit into memory.

    ``entry`` is the first instruction, ``tree`` the device tree, ``information`` what tells fw_dynamic
    about the kernel. ``pieces`` are addresses and what belongs there. ``kernel_at`` is where the kernel was
    put, if it has no address of its own.
    """

    entry: int
    tree: int
    information: int
    pieces: tuple[tuple[int, bytes | memoryview], ...]
    kernel_at: int = 0

    def load(self, memory: GuestMemory) -> None:
        """Put everything into memory that is all zeroes."""
        for address, data in self.pieces:
            memory.write(address, data)


@dataclass(frozen=True)
class Images:
    """What a machine with ``memory_size`` bytes of memory from ``memory_start`` on boots."""

    interface: Interface
    memory_start: int
    memory_size: int
    kernel: Kernel | None
    firmware: Kernel | None = None
    initrd: bytes = b""
    append: str = ""

    def _executables(self) -> list[Kernel]:
        """Firmware and kernel, as far as there are any, in the order in which they run."""
        images = [image for image in (self.firmware, self.kernel) if image is not None]
        if not images:
            raise DoppelError("there is nothing to boot", "give a kernel")
        return images

    def _place(self, image: Kernel) -> int:
        """Where to load an image that has no address of its own."""
        at = self.memory_start + image.load_offset
        if image is self.kernel and self.interface is not Interface.BARE:
            at = max(at, self.memory_start + KERNEL_OFFSET)
        return -(-at // image.alignment) * image.alignment

    def _check_overlap(self, first: Kernel, second: Kernel) -> None:
        start, end = first.extent_at(self._place(first))
        other_start, other_end = second.extent_at(self._place(second))
        if start < other_end and other_start < end:
            raise DoppelError(
                f"{first.path} and {second.path} overlap at {max(start, other_start):#x}",
                "link one of them for another address",
            )

    def arrange(self, tree: Callable[[Chosen], bytes], rng_seed: bytes) -> Layout:
        """Find a place for everything; ``tree`` makes the device tree.

        From the top of memory down: device tree, information for firmware, initrd.

        Raises:
            DoppelError: something is missing or does not fit.
        """
        executables = self._executables()
        for image in executables:
            image.check_fits(self._place(image), self.memory_start, self.memory_size)
        if len(executables) == 2:
            self._check_overlap(*executables)
        end = max(image.extent_at(self._place(image))[1] for image in executables)
        top = self.memory_start + self.memory_size
        # The addresses in the tree do not change its size.
        size = len(tree(Chosen(self.append, (0, 0), rng_seed)))
        tree_at = (top - size - TREE_SLACK) // TREE_ALIGNMENT * TREE_ALIGNMENT
        information_at = tree_at - FW_DYNAMIC_INFO.size
        initrd_at = (information_at - len(self.initrd)) // INITRD_ALIGNMENT * INITRD_ALIGNMENT
        if initrd_at < end:
            need = -(-(end + top - initrd_at - self.memory_start) >> 20)
            what = "kernel and initrd need" if self.initrd else "the kernel needs"
            raise DoppelError(
                f"{what} {need} MiB of memory and the machine has {self.memory_size >> 20} MiB",
                f"give the machine more, for instance --memory {1 << need.bit_length()}M",
            )
        initrd = (initrd_at, initrd_at + len(self.initrd)) if self.initrd else None
        pieces: list[tuple[int, bytes | memoryview]] = [
            (segment.address, segment.data)
            for image in executables
            for segment in image.segments_at(self._place(image))
        ]
        pieces.append((initrd_at, self.initrd))
        pieces.append((tree_at, tree(Chosen(self.append, initrd, rng_seed))))
        pieces.append((information_at, self._information()))
        entry = executables[0].entry_at(self._place(executables[0]))
        kernel_at = self._place(self.kernel) if self.kernel is not None else 0
        return Layout(entry, tree_at, information_at, tuple(pieces), kernel_at)

    def _information(self) -> bytes:
        """Tells fw_dynamic where the next stage is; other firmware does not look at it."""
        if self.kernel is None:
            next_stage = self.memory_start + KERNEL_OFFSET
        else:
            next_stage = self.kernel.entry_at(self._place(self.kernel))
        return FW_DYNAMIC_INFO.pack(FW_DYNAMIC_MAGIC, FW_DYNAMIC_VERSION, next_stage, Mode.S, 0, BOOT_HART)
