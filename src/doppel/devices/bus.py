"""The bus: which device answers at which guest-physical address.

Every device access of every hart passes through here, so the look-up is one bisection over a handful of
addresses.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from threading import RLock

from doppel.devices.device import Device
from doppel.errors import DoppelError

__all__ = ["Bus", "BusError", "Region"]


class BusError(Exception):
    """No device claims the address: the hart takes an access fault."""

    def __init__(self, address: int, size: int, *, write: bool) -> None:
        super().__init__(f"no device at {address:#x} ({'store' if write else 'load'} of {size} bytes)")
        self.address = address
        self.size = size
        self.write = write


class Region:
    """A device's place on the bus, and how often it was accessed there."""

    __slots__ = ("base", "device", "end", "reads", "writes")

    def __init__(self, base: int, device: Device) -> None:
        self.base = base
        self.end = base + device.size
        self.device = device
        self.reads = 0
        self.writes = 0

    def __repr__(self) -> str:
        return f"<Region {self.base:#x}-{self.end - 1:#x} {self.device.name}>"


class Bus:
    """Devices by address.

    ``lock`` is the machine's device lock: accesses from harts take it here, and threads of backends take it
    before they touch a device.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        self._regions: list[Region] = []
        self._bases: list[int] = []

    def __iter__(self) -> Iterator[Region]:
        return iter(self._regions)

    def attach(self, base: int, device: Device) -> Region:
        """Put a device at ``base``; DoppelError if its range or its name is taken."""
        region = Region(base, device)
        if base < 0 or region.end > 1 << 64:
            raise DoppelError(f"{device.name} does not fit at {base:#x}", "choose an address below 2^64")
        for other in self._regions:
            if base < other.end and other.base < region.end:
                raise DoppelError(
                    f"{device.name} at {base:#x}-{region.end - 1:#x} overlaps {other.device.name} "
                    f"at {other.base:#x}-{other.end - 1:#x}",
                    "give the devices ranges of their own",
                )
            if other.device.name == device.name:
                raise DoppelError(
                    f"there are two devices named {device.name}", "give each device a name of its own"
                )
        index = bisect_right(self._bases, base)
        self._bases.insert(index, base)
        self._regions.insert(index, region)
        return region

    def read(self, address: int, size: int) -> int:
        """Load ``size`` (1, 2, 4, 8) bytes, little endian; BusError if no device claims all of them."""
        index = bisect_right(self._bases, address) - 1
        if index >= 0:
            region = self._regions[index]
            if address + size <= region.end:
                with self.lock:
                    region.reads += 1
                    return region.device.read(address - region.base, size)
        raise BusError(address, size, write=False)

    def write(self, address: int, size: int, value: int) -> None:
        """Store ``size`` (1, 2, 4, 8) bytes, little endian; BusError if no device claims all of them."""
        index = bisect_right(self._bases, address) - 1
        if index >= 0:
            region = self._regions[index]
            if address + size <= region.end:
                with self.lock:
                    region.writes += 1
                    region.device.write(address - region.base, size, value)
                    return
        raise BusError(address, size, write=True)

    def find(self, name: str) -> Region:
        """The region of the device with this name; DoppelError if there is none."""
        for region in self._regions:
            if region.device.name == name:
                return region
        names = ", ".join(region.device.name for region in self._regions)
        raise DoppelError(f"there is no device {name!r}", f"the devices are: {names or 'none'}")

    def reset(self) -> None:
        """Reset every device."""
        with self.lock:
            for region in self._regions:
                region.device.reset()

    def save(self) -> dict[str, dict[str, object]]:
        """The state of every device, by name."""
        with self.lock:
            return {region.device.name: region.device.save() for region in self._regions}

    def load(self, states: Mapping[str, Mapping[str, object]]) -> None:
        """Take over what :meth:`save` returned; DoppelError if the devices are not the same ones."""
        names = {region.device.name for region in self._regions}
        if names != set(states):
            others = ", ".join(sorted(names ^ set(states)))
            raise DoppelError(
                f"the saved state has other devices than this machine ({others})",
                "load it into a machine with the same configuration as the one that was saved",
            )
        with self.lock:
            for region in self._regions:
                region.device.load(states[region.device.name])
