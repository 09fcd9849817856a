from __future__ import annotations

import threading
from threading import RLock

from doppel.devices.backends.alarm import HostAlarm
from doppel.devices.devicetree import DeviceTreeNode
from doppel.devices.goldfish_rtc import GoldfishRtc

from .support import FakeAlarm, FakeClock, Wire

TIME_LOW, TIME_HIGH, ALARM_LOW, ALARM_HIGH, IRQ_ENABLED = 0x0, 0x4, 0x8, 0xC, 0x10
CLEAR_ALARM, ALARM_STATUS, CLEAR_INTERRUPT = 0x14, 0x18, 0x1C
SECOND = 1_000_000_000


def make() -> tuple[GoldfishRtc, Wire, FakeClock, FakeAlarm]:
    wire, clock, alarm = Wire(), FakeClock(), FakeAlarm()
    return GoldfishRtc(wire, clock, alarm), wire, clock, alarm


def read_time(device: GoldfishRtc) -> int:
    low = device.read(TIME_LOW, 4)
    return device.read(TIME_HIGH, 4) << 32 | low


def set_alarm(device: GoldfishRtc, at: int) -> None:
    device.write(ALARM_HIGH, 4, at >> 32)
    device.write(ALARM_LOW, 4, at & 0xFFFF_FFFF)


def test_reading_latches_the_high_half() -> None:
    device, _, clock, _ = make()
    clock.wall = 0x1_FFFF_FFFF
    assert device.read(TIME_LOW, 4) == 0xFFFF_FFFF
    clock.wall += 1
    assert device.read(TIME_HIGH, 4) == 1
    assert read_time(device) == 0x2_0000_0000


def test_setting_the_time() -> None:
    device, _, clock, _ = make()
    wanted = 1_000_000_000 * SECOND
    device.write(TIME_HIGH, 4, wanted >> 32)
    device.write(TIME_LOW, 4, wanted & 0xFFFF_FFFF)
    assert read_time(device) == wanted
    clock.wall += 5 * SECOND
    assert read_time(device) == wanted + 5 * SECOND
    device.reset()
    assert read_time(device) == clock.wall


def test_alarm() -> None:
    device, wire, clock, alarm = make()
    device.write(IRQ_ENABLED, 4, 1)
    at = clock.wall + 10 * SECOND
    set_alarm(device, at)
    assert device.read(ALARM_STATUS, 4) == 1
    assert alarm.wall_ns == at
    assert device.read(ALARM_HIGH, 4) << 32 | device.read(ALARM_LOW, 4) == at
    assert not wire.level
    clock.wall = at
    assert alarm.ring is not None
    alarm.ring()
    assert wire.level
    assert device.read(ALARM_STATUS, 4) == 0
    device.write(CLEAR_INTERRUPT, 4, 1)
    assert not wire.level


def test_an_alarm_in_the_past_expires_at_once() -> None:
    device, wire, clock, alarm = make()
    set_alarm(device, clock.wall - 1)
    assert not wire.level, "interrupts are not enabled yet"
    assert alarm.wall_ns is None
    device.write(IRQ_ENABLED, 4, 1)
    assert wire.level


def test_clearing_and_early_rings() -> None:
    device, wire, clock, alarm = make()
    device.write(IRQ_ENABLED, 4, 1)
    set_alarm(device, clock.wall + SECOND)
    ring = alarm.ring
    assert ring is not None
    ring()
    assert not wire.level
    assert alarm.wall_ns == clock.wall + SECOND
    device.write(CLEAR_ALARM, 4, 0)
    assert alarm.wall_ns is None
    assert device.read(ALARM_STATUS, 4) == 0
    clock.wall += 2 * SECOND
    ring()
    assert not wire.level


def test_setting_the_time_moves_the_alarm() -> None:
    device, wire, clock, alarm = make()
    device.write(IRQ_ENABLED, 4, 1)
    at = clock.wall + 3600 * SECOND
    set_alarm(device, at)
    device.write(TIME_HIGH, 4, (at >> 32) + 1)
    assert wire.level
    assert alarm.wall_ns is None


def test_save_and_load() -> None:
    device, _, clock, _ = make()
    device.write(TIME_HIGH, 4, 7)
    device.write(IRQ_ENABLED, 4, 1)
    set_alarm(device, read_time(device) + SECOND)
    copy, wire, other_clock, alarm = make()
    copy.load(device.save())
    assert copy.save() == device.save()
    assert read_time(copy) == read_time(device)
    assert alarm.wall_ns == other_clock.wall + SECOND
    late, wire, late_clock, _ = make()
    late_clock.wall = clock.wall + 2 * SECOND
    late.load(device.save())
    assert wire.level


def test_describe() -> None:
    device, *_ = make()
    node = DeviceTreeNode("rtc@101000")
    device.describe(node)
    assert node.get_strings("compatible") == ("google,goldfish-rtc",)
    assert node.get_cells("interrupts") == (5,)


def test_host_alarm_rings_and_is_taken_back() -> None:
    clock, lock = FakeClock(), RLock()
    alarm = HostAlarm(clock, lock)
    rung = threading.Event()
    with lock:
        alarm.set(clock.wall + 3600 * SECOND, lambda: None)
        alarm.set(clock.wall - SECOND, rung.set)
    assert rung.wait(10)
    again = threading.Event()
    with lock:
        # The timer has run out when the lock is free, but the alarm was taken back by then.
        alarm.set(clock.wall, again.set)
        assert not again.wait(0.05)
        alarm.set(None, again.set)
    assert not again.wait(0.05)


def test_host_alarm_does_not_ring_early() -> None:
    clock, lock = FakeClock(), RLock()
    alarm = HostAlarm(clock, lock)
    rung = threading.Event()
    with lock:
        alarm.set(clock.wall + SECOND // 50, rung.set)
    # The machine's clock stands still, so the time never comes.
    assert not rung.wait(0.1)
    clock.wall += SECOND
    assert rung.wait(10)
    with lock:
        alarm.set((1 << 64) - 1, rung.set)
        alarm.set(None, rung.set)
