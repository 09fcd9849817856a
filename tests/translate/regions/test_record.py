"""Regions of fixed guest code become the IR that is on record: see :mod:`.record` for how to renew it."""

from __future__ import annotations

import pytest

from doppel.isa import softfloat
from doppel.translate.float_ops import FLOAT_OPERATIONS

from .record import DIGESTS, FUSED, SAMPLES, TEXTS, difference, digest, generate, recorded


@pytest.mark.parametrize("name", SAMPLES)
def test_the_same_ir_as_on_record(name: str) -> None:
    if name in FUSED and softfloat.float_fma not in FLOAT_OPERATIONS:
        return
    kept = recorded()
    for key, text in generate(name).items():
        assert kept[key] == digest(text), (
            difference(key, text) + "\n`python -m tests.translate.regions.record --renew`, if it should be so"
        )


def test_the_record_is_of_these_samples_and_small() -> None:
    keys = {f"{name}{way}" for name in SAMPLES for way in ("", ", every branch")}
    assert recorded().keys() == keys
    assert TEXTS.stat().st_size + DIGESTS.stat().st_size < 60_000


def test_a_difference_is_shown() -> None:
    text = generate("counting")["counting"]
    assert difference("counting", text).count("\n") == 0
    shown = difference("counting", text.replace("ret void", "unreachable", 1))
    assert "-  ret void" in shown and "+  unreachable" in shown
