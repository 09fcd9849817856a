"""The virtio-mmio transport, register layout version 2. Source: VIRTIO 1.2, section 4.2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import RLock, Timer
from typing import ClassVar

from doppel.devices.device import Device, GuestMemory, InterruptLine, Register, RegisterTable
from doppel.devices.devicetree import DeviceTreeNode
from doppel.devices.virtio.device import VirtioDevice
from doppel.devices.virtio.queue import Virtqueue, VirtqueueError
from doppel.errors import DoppelError
from doppel.memory.view import GuestAddressError

__all__ = ["VirtioMmio"]

MAGIC = int.from_bytes(b"virt", "little")
# xv6 takes no other vendor for a disk.
VENDOR = int.from_bytes(b"QEMU", "little")
CONFIGURATION = 0x100

STATUS_DRIVER_OK, STATUS_FEATURES_OK, STATUS_NEEDS_RESET = 4, 8, 64
INTERRUPT_USED, INTERRUPT_CONFIGURATION = 1, 2

# Chapter 6.
F_INDIRECT_DESC, F_EVENT_IDX, F_VERSION_1, F_RING_RESET = 1 << 28, 1 << 29, 1 << 32, 1 << 40
_RING_FEATURES = F_INDIRECT_DESC | F_EVENT_IDX | F_VERSION_1 | F_RING_RESET
_LOW = 0xFFFF_FFFF
_ALL = (1 << 64) - 1


class VirtioMmio(Device):
    """Puts a :class:`VirtioDevice` on the bus.

    ``failure`` says why the device needs a reset, if it does. ``lock`` is the bus lock.
    """

    registers: ClassVar[RegisterTable] = RegisterTable(
        (
            Register(0x000, "MagicValue", "r", 4, "the string virt"),
            Register(0x004, "Version", "r", 4, "2"),
            Register(0x008, "DeviceID", "r", 4, "kind of device"),
            Register(0x00C, "VendorID", "r", 4, "the string QEMU"),
            Register(0x010, "DeviceFeatures", "r", 4, "32 of the feature bits that the device offers"),
            Register(0x014, "DeviceFeaturesSel", "w", 4, "which 32"),
            Register(0x020, "DriverFeatures", "w", 4, "32 of the feature bits that the driver accepts"),
            Register(0x024, "DriverFeaturesSel", "w", 4, "which 32"),
            Register(0x030, "QueueSel", "w", 4, "queue that the following registers apply to"),
            Register(0x034, "QueueSizeMax", "r", 4, "largest size, 0 if there is no such queue"),
            Register(0x038, "QueueSize", "w", 4, "size that the driver uses"),
            Register(0x044, "QueueReady", "rw", 4, "1 while the device may use the queue"),
            Register(0x050, "QueueNotify", "w", 4, "index of a queue with new buffers"),
            Register(0x060, "InterruptStatus", "r", 4, "bit 0 used buffers, bit 1 configuration change"),
            Register(0x064, "InterruptACK", "w", 4, "bits of InterruptStatus that were handled"),
            Register(0x070, "Status", "rw", 4, "device status; 0 resets"),
            Register(0x080, "QueueDescLow", "w", 4, "descriptor table"),
            Register(0x084, "QueueDescHigh", "w", 4, "descriptor table"),
            Register(0x090, "QueueDriverLow", "w", 4, "available ring"),
            Register(0x094, "QueueDriverHigh", "w", 4, "available ring"),
            Register(0x0A0, "QueueDeviceLow", "w", 4, "used ring"),
            Register(0x0A4, "QueueDeviceHigh", "w", 4, "used ring"),
            Register(0x0B0, "SHMLen", "r", 8, "length of a shared memory region: all ones, there is none"),
            Register(0x0B8, "SHMBase", "r", 8, "address of a shared memory region: all ones, there is none"),
            Register(0x0C0, "QueueReset", "rw", 4, "writing 1 resets the queue"),
            Register(0x0FC, "ConfigGeneration", "r", 4, "changes with the configuration space"),
        )
    )
    saved = (
        "_device_features_sel",
        "_driver_features_sel",
        "_driver_features",
        "negotiated",
        "_queue_sel",
        "_interrupt_status",
        "_status",
        "_generation",
    )

    def __init__(
        self, device: VirtioDevice, memory: GuestMemory, line: InterruptLine, lock: RLock, *, name: str
    ) -> None:
        self.device = device
        self.memory = memory
        self._line = line
        self._lock = lock
        self.queues = [Virtqueue(memory, index, size) for index, size in enumerate(device.queue_sizes)]
        self._generation = 0
        self._clear()
        super().__init__(name)
        device.attach(self)

    def _clear(self) -> None:
        self._device_features_sel = 0
        self._driver_features_sel = 0
        self._driver_features = 0
        self.negotiated = 0
        self._queue_sel = 0
        self._interrupt_status = 0
        self._status = 0
        self.failure: str | None = None
        for queue in self.queues:
            queue.reset()

    # What the device asks for

    @property
    def running(self) -> bool:
        """DRIVER_OK is set and DEVICE_NEEDS_RESET is not."""
        return self._status & (STATUS_DRIVER_OK | STATUS_NEEDS_RESET) == STATUS_DRIVER_OK

    def call(self, work: Callable[[], None]) -> None:
        """Run ``work`` with the bus lock held if the device is running, from any thread."""
        with self._lock:
            if self.running:
                self._guard(work)

    def used(self, queue: Virtqueue) -> None:
        """Interrupt the driver if it wants to know of what was pushed."""
        if queue.wants_interrupt():
            self._interrupt(INTERRUPT_USED)

    def configuration_changed(self) -> None:
        """Change ConfigGeneration and interrupt the driver."""
        with self._lock:
            self._generation = self._generation + 1 & _LOW
            if self._status & STATUS_DRIVER_OK:
                self._interrupt(INTERRUPT_CONFIGURATION)

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (VirtqueueError, GuestAddressError) as error:
            self._fail(str(error))

    def _fail(self, reason: str) -> None:
        """Section 2.1.2: stop until the driver resets the device, and tell it."""
        self.failure = reason
        self._status |= STATUS_NEEDS_RESET
        if self._status & STATUS_DRIVER_OK:
            self._interrupt(INTERRUPT_CONFIGURATION)

    def _interrupt(self, cause: int) -> None:
        self._interrupt_status |= cause
        self._line.set(True)

    def _serve(self, queue: Virtqueue) -> None:
        if not (queue.ready and self.running):
            return
        self._guard(lambda: self.device.process(queue))
        if queue.backlog and self.running:
            # Other harts keep adding. Go on from a thread, so that the bus lock is free in between.
            timer = Timer(0, self._serve_backlog, (queue,))
            timer.daemon = True
            timer.start()

    def _serve_backlog(self, queue: Virtqueue) -> None:
        with self._lock:
            if queue.backlog:
                self._serve(queue)

    # Registers

    def read(self, offset: int, size: int) -> int:
        """Control registers are 32 bits wide; the configuration space takes any width."""
        if offset < CONFIGURATION:
            return super().read(offset, size)
        start = offset - CONFIGURATION
        return int.from_bytes(self.device.configuration()[start : start + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Control registers are 32 bits wide; the configuration space takes any width."""
        if offset < CONFIGURATION:
            super().write(offset, size, value)
        else:
            self._guard(lambda: self.device.configure(offset - CONFIGURATION, value.to_bytes(size, "little")))

    def read_magic_value(self) -> int:
        """Constant."""
        return MAGIC

    def read_version(self) -> int:
        """Constant."""
        return 2

    def read_device_id(self) -> int:
        """Chapter 5."""
        return self.device.device_id

    def read_vendor_id(self) -> int:
        """Constant."""
        return VENDOR

    @property
    def _offered(self) -> int:
        return self.device.features | _RING_FEATURES

    def read_device_features(self) -> int:
        """The selected 32 bits; 0 beyond bit 63."""
        return self._offered >> 32 * self._device_features_sel & _LOW if self._device_features_sel < 2 else 0

    def write_device_features_sel(self, value: int) -> None:
        """Word of the feature bits."""
        self._device_features_sel = value

    def write_driver_features(self, value: int) -> None:
        """Ignored once the features are agreed on (section 3.1.1, step 5)."""
        shift = 32 * self._driver_features_sel
        if shift <= 32 and not self._status & STATUS_FEATURES_OK:
            self._driver_features = self._driver_features & ~(_LOW << shift) & _ALL | value << shift

    def write_driver_features_sel(self, value: int) -> None:
        """Word of the feature bits."""
        self._driver_features_sel = value

    @property
    def _selected(self) -> Virtqueue | None:
        return self.queues[self._queue_sel] if self._queue_sel < len(self.queues) else None

    @property
    def _unlocked(self) -> Virtqueue | None:
        """The selected queue, if its setting may be changed: not while it is ready."""
        queue = self._selected
        return queue if queue is not None and not queue.ready else None

    def write_queue_sel(self, value: int) -> None:
        """Index of a queue."""
        self._queue_sel = value

    def read_queue_size_max(self) -> int:
        """Entries."""
        queue = self._selected
        return queue.max_size if queue is not None else 0

    def write_queue_size(self, value: int) -> None:
        """Entries; checked when the queue is made ready."""
        if (queue := self._unlocked) is not None:
            queue.size = value

    def read_queue_ready(self) -> int:
        """0 or 1."""
        queue = self._selected
        return int(queue is not None and queue.ready)

    def write_queue_ready(self, value: int) -> None:
        """1 starts the queue with empty rings, 0 stops it."""
        queue = self._selected
        if queue is None or queue.ready == bool(value & 1):
            return
        if value & 1:
            features = self.negotiated
            self._guard(
                lambda: queue.enable(
                    event_idx=bool(features & F_EVENT_IDX), indirect=bool(features & F_INDIRECT_DESC)
                )
            )
        else:
            queue.ready = False

    def write_queue_notify(self, value: int) -> None:
        """Ignored for a queue that does not exist or is not ready."""
        if value < len(self.queues):
            self._serve(self.queues[value])

    def read_interrupt_status(self) -> int:
        """What happened since it was acknowledged."""
        return self._interrupt_status

    def write_interrupt_ack(self, value: int) -> None:
        """Lowers the interrupt line when nothing is left."""
        self._interrupt_status &= ~value
        self._line.set(self._interrupt_status != 0)

    def read_status(self) -> int:
        """Device status bits."""
        return self._status

    def write_status(self, value: int) -> None:
        """Bits are only ever added, but for 0, which resets (section 2.1).

        FEATURES_OK is refused if the driver accepted a feature that was not offered. VERSION_1 is not
        insisted on (section 6.1 leaves that to the device): xv6 drives the modern layout without ever looking
        at bit 32.
        """
        if not value:
            self.reset()
            return
        added = value & ~self._status & 0xFF & ~STATUS_NEEDS_RESET
        if added & STATUS_FEATURES_OK:
            if self._driver_features & ~self._offered:
                added &= ~STATUS_FEATURES_OK
            else:
                self.negotiated = self._driver_features
        if added & STATUS_DRIVER_OK and not (self._status | added) & STATUS_FEATURES_OK:
            added &= ~STATUS_DRIVER_OK
        self._status |= added
        if added & STATUS_DRIVER_OK and self.running:
            self._guard(self.device.start)

    def write_queue_desc_low(self, value: int) -> None:
        """Descriptor table."""
        if (queue := self._unlocked) is not None:
            queue.descriptors = queue.descriptors & ~_LOW | value

    def write_queue_desc_high(self, value: int) -> None:
        """Descriptor table."""
        if (queue := self._unlocked) is not None:
            queue.descriptors = queue.descriptors & _LOW | value << 32

    def write_queue_driver_low(self, value: int) -> None:
        """Available ring."""
        if (queue := self._unlocked) is not None:
            queue.driver = queue.driver & ~_LOW | value

    def write_queue_driver_high(self, value: int) -> None:
        """Available ring."""
        if (queue := self._unlocked) is not None:
            queue.driver = queue.driver & _LOW | value << 32

    def write_queue_device_low(self, value: int) -> None:
        """Used ring."""
        if (queue := self._unlocked) is not None:
            queue.device = queue.device & ~_LOW | value

    def write_queue_device_high(self, value: int) -> None:
        """Used ring."""
        if (queue := self._unlocked) is not None:
            queue.device = queue.device & _LOW | value << 32

    def read_shm_len(self) -> int:
        """There are no shared memory regions."""
        return _ALL

    def read_shm_base(self) -> int:
        """There are no shared memory regions."""
        return _ALL

    def read_queue_reset(self) -> int:
        """A reset is complete as soon as it was asked for."""
        return 0

    def write_queue_reset(self, value: int) -> None:
        """Section 2.6.1: the queue as after a reset of the device."""
        queue = self._selected
        if value & 1 and queue is not None and self.negotiated & F_RING_RESET:
            queue.reset()

    def read_config_generation(self) -> int:
        """Changes with the configuration space."""
        return self._generation

    # The rest of a device's life

    def reset(self) -> None:
        """Power-on state, also when the driver asks for it."""
        self._clear()
        self.device.reset()
        self._line.set(False)

    def save(self) -> dict[str, object]:
        """Registers, queues and the device's own state."""
        return super().save() | {
            "failure": self.failure,
            "queues": [queue.save() for queue in self.queues],
            "device": self.device.save(),
        }

    def load(self, state: Mapping[str, object]) -> None:
        """Also drives the interrupt line."""
        super().load(state)
        queues, device, failure = state.get("queues"), state.get("device"), state.get("failure")
        if not isinstance(queues, list) or len(queues) != len(self.queues) or not isinstance(device, dict):
            raise DoppelError(
                f"the saved state of {self.name} does not fit this device",
                "load it into a machine with the same configuration as the one that was saved",
            )
        self.failure = str(failure) if failure is not None else None
        for queue, saved in zip(self.queues, queues, strict=True):
            queue.load(saved)
        self.device.load(device)
        self._line.set(self._interrupt_status != 0)

    def describe(self, node: DeviceTreeNode) -> None:
        """As in the binding ``virtio,mmio``."""
        node.set_strings("compatible", "virtio,mmio")
        self._line.describe(node)
