from __future__ import annotations

import os
import threading
import time

from doppel.devices.backends.characters import Buffer, Callback, FileDescriptors


def wait_until(condition: object, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.002)
    return False


def test_input_waits_and_wakes() -> None:
    backend = Buffer()
    woken: list[int] = []
    backend.feed(b"early")
    backend.connect(lambda: woken.append(backend.waiting))
    assert woken == [5]
    backend.feed(b"+more")
    assert woken == [5, 10]
    assert backend.read(7) == b"early+m"
    assert backend.read(100) == b"ore"
    assert backend.read(100) == b""
    backend.close()
    backend.feed(b"x")
    assert woken == [5, 10]


def test_callback() -> None:
    got: list[bytes] = []
    Callback(got.append).write(b"abc")
    assert got == [b"abc"]


def test_input_from_many_threads_is_complete() -> None:
    backend = Buffer()
    threads = [
        threading.Thread(target=lambda letter=letter: [backend.feed(letter * 3) for _ in range(200)])
        for letter in (b"a", b"b", b"c", b"d")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    data = backend.read(10_000)
    assert len(data) == 2400
    assert all(data[at : at + 3] == data[at : at + 1] * 3 for at in range(0, 2400, 3))


def test_file_descriptors_in_both_directions() -> None:
    input_read, input_write = os.pipe()
    output_read, output_write = os.pipe()
    backend = FileDescriptors(input_read, output_write)
    try:
        os.write(input_write, b"typed")
        assert wait_until(lambda: backend.waiting == 5)
        assert backend.read(5) == b"typed"
        backend.write(b"shown")
        assert os.read(output_read, 10) == b"shown"
    finally:
        backend.close()
        backend.close()
        for fd in (input_read, input_write, output_read, output_write):
            os.close(fd)


def test_reading_pauses_while_the_guest_does_not_take_it() -> None:
    input_read, input_write = os.pipe()
    os.set_blocking(input_write, False)
    backend = FileDescriptors(input_read, None)
    sent = received = 0
    try:
        deadline = time.monotonic() + 10
        while sent < 400_000 and time.monotonic() < deadline:
            try:
                sent += os.write(input_write, b"x" * 4096)
            except BlockingIOError:
                break
            time.sleep(0)
        assert backend.waiting <= 65536 + 4096
        assert wait_until(lambda: backend.waiting >= 65536)
        while received < sent:
            assert wait_until(lambda: backend.waiting > 0)
            received += len(backend.read(65536))
        assert received == sent
    finally:
        backend.close()
        os.close(input_read)
        os.close(input_write)


def test_output_to_a_slow_reader_is_complete() -> None:
    output_read, output_write = os.pipe()
    os.set_blocking(output_write, False)
    backend = FileDescriptors(None, output_write)
    received = bytearray()

    def drain() -> None:
        while len(received) < 300_000:
            received.extend(os.read(output_read, 5000))

    reader = threading.Thread(target=drain)
    reader.start()
    backend.write(b"0123456789" * 30_000)
    reader.join(10)
    assert received == b"0123456789" * 30_000
    backend.close()
    os.close(output_read)
    os.close(output_write)


def test_output_is_dropped_when_nobody_is_there() -> None:
    output_read, output_write = os.pipe()
    os.close(output_read)
    backend = FileDescriptors(None, output_write)
    backend.write(b"lost")
    os.close(output_write)
    backend.write(b"lost too")
    backend.close()


def test_end_of_input() -> None:
    input_read, input_write = os.pipe()
    backend = FileDescriptors(input_read, None)
    os.write(input_write, b"last")
    os.close(input_write)
    assert wait_until(lambda: backend.waiting == 4)
    backend.close()
    os.close(input_read)
