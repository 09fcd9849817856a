"""The processes that compile: shared, bounded, and gone with those who use them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from doppel.isa.assembler import assemble
from doppel.memory.entry import PAGE_SIZE
from doppel.translate.regions.compiler import Region, RegionRequest
from doppel.translate.regions.worker import write_message
from doppel.translate.regions.workers import Worker, WorkerDiedError, Workers

PATIENCE = 60
LOOP = assemble("1: addi a0, a0, 1; bnez a0, 1b; ret").ljust(PAGE_SIZE, b"\0")
REQUEST = RegionRequest(LOOP, 0, b"\1" * (PAGE_SIZE // 2))
OWNER = """
import sys, time
from doppel.translate.regions.worker import write_message
from doppel.translate.regions.workers import Worker
worker = Worker()
print(worker._process.pid, flush=True)
time.sleep(1000)
"""


def answer(worker: Worker) -> Region | None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := worker.poll(0.5):
            return found[0]
    raise AssertionError("no answer")


def is_gone(process: int) -> bool:
    """Whether a process has ended; it may still be waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_until_gone(process: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_gone(process):
        assert time.monotonic() < deadline, process
        time.sleep(0.02)


def test_requests_one_after_the_other() -> None:
    worker = Worker()
    for _ in range(3):
        worker.send(REQUEST)
        region = answer(worker)
        assert region is not None and region.entries[0] == 0 and region.code
    worker.send(RegionRequest(bytes(PAGE_SIZE), 0, b"\1" * (PAGE_SIZE // 2)))
    assert answer(worker) is None
    process = worker._process.pid
    worker.close()
    assert is_gone(process)


def test_one_that_dies_is_told_of() -> None:
    worker = Worker()
    worker.send(REQUEST)
    assert answer(worker)
    worker._process.kill()
    worker._process.wait()
    with pytest.raises(WorkerDiedError):
        worker.send(REQUEST)
        answer(worker)
    worker.close()


def test_a_request_that_it_cannot_cope_with_ends_it() -> None:
    worker = Worker()
    assert worker._process.stdin is not None
    write_message(worker._process.stdin, b"nonsense")
    with pytest.raises(WorkerDiedError):
        answer(worker)
    worker.close()


def test_no_more_than_the_limit_and_none_without_users() -> None:
    workers = Workers(2)
    workers.open()
    workers.open()
    first, second = workers.take(), workers.take()
    assert first is not None and second is not None and workers.take() is None
    workers.give_back(first)
    assert workers.take() is first
    workers.give_back(first, usable=False)
    assert is_gone(first._process.pid)
    third = workers.take()
    assert third is not None and third is not first
    workers.give_back(third)
    workers.close()
    assert not is_gone(third._process.pid)
    workers.close()
    assert is_gone(third._process.pid)
    # What is given back when nobody uses them any more is ended at once.
    workers.give_back(second)
    assert is_gone(second._process.pid)


def test_a_machine_that_is_killed_takes_them_along() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, env=environment, text=True
    )
    assert owner.stdout is not None
    process = int(owner.stdout.readline())
    assert not is_gone(process)
    owner.send_signal(signal.SIGKILL)
    owner.wait(PATIENCE)
    owner.stdout.close()
    wait_until_gone(process)
