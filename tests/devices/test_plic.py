from __future__ import annotations

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from doppel.devices.devicetree import DeviceTreeNode, Label
from doppel.devices.plic import Plic
from doppel.errors import DoppelError

from .support import FakeHarts

PRIORITY, PENDING, ENABLE, THRESHOLD, CLAIM = 0x0, 0x1000, 0x2000, 0x200000, 0x200004


def enable(plic: Plic, context: int, source: int, priority: int = 1) -> None:
    plic.write(PRIORITY + 4 * source, 4, priority)
    at = ENABLE + 0x80 * context + 4 * (source // 32)
    plic.write(at, 4, plic.read(at, 4) | 1 << source % 32)


def claim(plic: Plic, context: int) -> int:
    return plic.read(CLAIM + 0x1000 * context, 4)


def complete(plic: Plic, context: int, source: int) -> None:
    plic.write(CLAIM + 0x1000 * context, 4, source)


def pending(plic: Plic, source: int) -> bool:
    return bool(plic.read(PENDING + 4 * (source // 32), 4) >> source % 32 & 1)


def test_claim_and_complete() -> None:
    harts = FakeHarts()
    plic = Plic(harts, 1)
    line = plic.line(10)
    enable(plic, 1, 10)
    line.set(True)
    assert harts.seip[0]
    assert not harts.meip.get(0, False)
    assert pending(plic, 10)
    assert claim(plic, 1) == 10
    assert not harts.seip[0]
    assert not pending(plic, 10)
    assert claim(plic, 1) == 0
    line.set(False)
    complete(plic, 1, 10)
    assert not harts.seip[0]


def test_a_high_level_is_pending_again_after_completion() -> None:
    harts = FakeHarts()
    plic = Plic(harts, 1)
    line = plic.line(33)
    enable(plic, 0, 33)
    line.set(True)
    assert claim(plic, 0) == 33
    line.set(False)
    line.set(True)
    assert not pending(plic, 33), "the gateway forwards nothing before the completion"
    complete(plic, 0, 33)
    assert pending(plic, 33)
    assert harts.meip[0]


def test_a_forwarded_request_is_not_retracted() -> None:
    plic = Plic(FakeHarts(), 1)
    line = plic.line(1)
    enable(plic, 0, 1)
    line.set(True)
    line.set(False)
    assert claim(plic, 0) == 1


def test_priorities_ties_and_thresholds() -> None:
    harts = FakeHarts()
    plic = Plic(harts, 1)
    lines = {source: plic.line(source) for source in (3, 4, 70)}
    for source, priority in ((3, 2), (4, 2), (70, 5)):
        enable(plic, 1, source, priority)
        lines[source].set(True)
    plic.write(THRESHOLD + 0x1000, 4, 5)
    assert not harts.seip[0]
    # A claim is not bounded by the threshold.
    assert claim(plic, 1) == 70
    plic.write(THRESHOLD + 0x1000, 4, 1)
    assert harts.seip[0]
    assert claim(plic, 1) == 3
    assert claim(plic, 1) == 4
    assert not harts.seip[0]


def test_priority_zero_never_interrupts() -> None:
    harts = FakeHarts()
    plic = Plic(harts, 1)
    enable(plic, 1, 2, priority=0)
    plic.line(2).set(True)
    assert not harts.seip.get(0, False)
    assert claim(plic, 1) == 0
    plic.write(PRIORITY + 8, 4, 1)
    assert harts.seip[0]


def test_completion_by_a_context_that_has_it_disabled_is_ignored() -> None:
    plic = Plic(FakeHarts(), 1)
    line = plic.line(2)
    enable(plic, 1, 2)
    line.set(True)
    assert claim(plic, 1) == 2
    complete(plic, 0, 2)
    assert not pending(plic, 2)
    complete(plic, 1, 3)
    complete(plic, 1, 0xFFFF_FFFF)
    assert not pending(plic, 2)
    complete(plic, 1, 2)
    assert pending(plic, 2)


def test_all_enabled_contexts_are_notified_and_one_claims() -> None:
    harts = FakeHarts()
    plic = Plic(harts, 2)
    enable(plic, 1, 7)
    enable(plic, 3, 7)
    plic.line(7).set(True)
    assert harts.seip == {0: True, 1: True}
    assert claim(plic, 3) == 7
    assert harts.seip == {0: False, 1: False}
    assert claim(plic, 1) == 0


def test_registers_hold_what_exists() -> None:
    plic = Plic(FakeHarts(), 1, sources=40)
    plic.write(PRIORITY, 4, 7)
    assert plic.read(PRIORITY, 4) == 0
    plic.write(PRIORITY + 4 * 40, 4, 0xFFFF_FFFF)
    assert plic.read(PRIORITY + 4 * 40, 4) == 7
    plic.write(PRIORITY + 4 * 41, 4, 1)
    assert plic.read(PRIORITY + 4 * 41, 4) == 0
    plic.write(ENABLE, 4, 0xFFFF_FFFF)
    plic.write(ENABLE + 4, 4, 0xFFFF_FFFF)
    plic.write(ENABLE + 8, 4, 0xFFFF_FFFF)
    assert plic.read(ENABLE, 4) == 0xFFFF_FFFE
    assert plic.read(ENABLE + 4, 4) == 0x1FF
    assert plic.read(ENABLE + 8, 4) == 0
    plic.write(THRESHOLD, 4, 9)
    assert plic.read(THRESHOLD, 4) == 1
    plic.write(PENDING, 4, 0xFFFF_FFFF)
    assert plic.read(PENDING, 4) == 0
    assert plic.read(THRESHOLD + 0x2000, 4) == 0


def test_lines_exist_once() -> None:
    plic = Plic(FakeHarts(), 1, sources=4)
    plic.line(4)
    for source in (0, 4, 5, -1):
        with pytest.raises(DoppelError):
            plic.line(source)


def test_reset() -> None:
    harts = FakeHarts()
    plic = Plic(harts, 1)
    enable(plic, 0, 5)
    plic.line(5).set(True)
    plic.reset()
    assert not harts.meip[0]
    enable(plic, 0, 5)
    assert claim(plic, 0) == 0


def test_save_and_load() -> None:
    plic = Plic(FakeHarts(), 2)
    line = plic.line(66)
    enable(plic, 3, 66, priority=4)
    enable(plic, 2, 1, priority=3)
    line.set(True)
    plic.line(1).set(True)
    assert claim(plic, 2) == 1
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(plic.save()))
    harts = FakeHarts()
    copy = Plic(harts, 2)
    copy.load(state)
    assert harts.seip == {0: False, 1: True}
    assert harts.meip == {0: False, 1: False}
    assert copy.save() == plic.save()
    assert claim(copy, 3) == 66
    complete(copy, 2, 1)
    assert pending(copy, 1), "the level was saved as well"
    with pytest.raises(DoppelError):
        Plic(FakeHarts(), 1).load(state)
    with pytest.raises(DoppelError):
        copy.load(state | {"levels": 5})


def test_describe() -> None:
    root = DeviceTreeNode()
    plic = Plic(FakeHarts(), 2)
    node = root.add("plic@c000000")
    plic.describe(node)
    assert node.label == "plic"
    assert node.get_strings("compatible") == ("sifive,plic-1.0.0", "riscv,plic0")
    assert node.get_cells("riscv,ndev") == (95,)
    cpu0, cpu1 = Label("cpu0_intc"), Label("cpu1_intc")
    assert node.get_cells("interrupts-extended") == (cpu0, 11, cpu0, 9, cpu1, 11, cpu1, 9)
    user = root.add("user")
    plic.line(3).describe(user)
    assert user.get_cells("interrupts") == (3,)
    assert user.get_cells("interrupt-parent") == (Label("plic"),)


SOURCES = 35
HARTS = 2
sources = st.sampled_from([1, 2, 3, 31, 32, 33, SOURCES])
contexts = st.integers(0, 2 * HARTS - 1)


class PlicAgainstModel(RuleBasedStateMachine):
    """The device beside a model that keeps one small record per source, as the specification's text does."""

    @initialize()
    def begin(self) -> None:
        self.harts = FakeHarts()
        self.plic = Plic(self.harts, HARTS, sources=SOURCES)
        self.lines = {source: self.plic.line(source) for source in range(1, SOURCES + 1)}
        everything = range(1, SOURCES + 1)
        self.level = dict.fromkeys(everything, False)
        self.pending = dict.fromkeys(everything, False)
        self.gateway_waits = dict.fromkeys(everything, False)
        self.priority = dict.fromkeys(everything, 0)
        self.enabled: set[tuple[int, int]] = set()
        self.threshold = [0] * 2 * HARTS

    def forward(self, source: int) -> None:
        if self.level[source] and not self.gateway_waits[source]:
            self.pending[source] = True
            self.gateway_waits[source] = True

    def candidates(self, context: int) -> list[tuple[int, int]]:
        return [
            (-self.priority[source], source)
            for source in range(1, SOURCES + 1)
            if self.pending[source] and (context, source) in self.enabled and self.priority[source] > 0
        ]

    @rule(source=sources, level=st.booleans())
    def drive(self, source: int, level: bool) -> None:
        self.lines[source].set(level)
        self.level[source] = level
        self.forward(source)

    @rule(source=sources, value=st.integers(0, 7))
    def set_priority(self, source: int, value: int) -> None:
        self.plic.write(4 * source, 4, value)
        self.priority[source] = value

    @rule(context=contexts, value=st.integers(0, 7))
    def set_threshold(self, context: int, value: int) -> None:
        self.plic.write(THRESHOLD + 0x1000 * context, 4, value)
        self.threshold[context] = value

    @rule(context=contexts, word=st.integers(0, 1), value=st.sampled_from([0, 0xE, 0xFFFF_FFFF, 0x8000_0003]))
    def set_enable(self, context: int, word: int, value: int) -> None:
        self.plic.write(ENABLE + 0x80 * context + 4 * word, 4, value)
        for source in range(1, SOURCES + 1):
            if source // 32 == word:
                self.enabled.discard((context, source))
                if value >> source % 32 & 1:
                    self.enabled.add((context, source))

    @rule(context=contexts)
    def claim(self, context: int) -> None:
        expected = min(self.candidates(context), default=(0, 0))[1]
        assert claim(self.plic, context) == expected
        if expected:
            self.pending[expected] = False

    @rule(context=contexts, source=st.one_of(sources, st.integers(0, 2**32 - 1)))
    def complete(self, context: int, source: int) -> None:
        complete(self.plic, context, source)
        if (context, source) in self.enabled and self.gateway_waits[source] and not self.pending[source]:
            self.gateway_waits[source] = False
            self.forward(source)

    @rule()
    def move_to_another_machine(self) -> None:
        state = self.plic.save()
        self.harts = FakeHarts()
        self.plic = Plic(self.harts, HARTS, sources=SOURCES)
        self.lines = {source: self.plic.line(source) for source in range(1, SOURCES + 1)}
        self.plic.load(state)

    @invariant()
    def same_pending_bits(self) -> None:
        for source in range(1, SOURCES + 1):
            assert pending(self.plic, source) == self.pending[source]

    @invariant()
    def same_notifications(self) -> None:
        for context in range(2 * HARTS):
            best = -min(self.candidates(context), default=(0, 0))[0]
            levels = self.harts.seip if context % 2 else self.harts.meip
            assert levels.get(context // 2, False) == (best > self.threshold[context])


PlicAgainstModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPlicAgainstModel = PlicAgainstModel.TestCase
