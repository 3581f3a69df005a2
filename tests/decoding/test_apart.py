"""Real processes: ended, stopped, out of memory, out of time."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plstore.decoding import Decoded, apart, decode_apart, format_of, kept_processes
from plstore.errors import StoreError
from tests.decoding.made import PIXELS, RGB, many_scans, pixels_of, save, tiff

BMP = save(RGB, "BMP")
SLOW = many_scans(100, 6000)


@pytest.fixture(autouse=True)
def kept() -> Iterator[None]:
    with kept_processes():
        yield


def decoded(data: bytes, *, max_pixels: int = 40_000_000, max_seconds: float = 60) -> Decoded:
    name = format_of(data)
    assert name is not None
    return decode_apart(data, name, max_pixels=max_pixels, max_seconds=max_seconds)


def pids() -> list[int]:
    return [process._popen.pid for process in apart._pool.idle]


def test_it_is_the_same_as_decoding_here() -> None:
    png = save(RGB, "PNG")

    assert decoded(png) == Decoded(data=png, width=30, height=40)
    assert decoded(png, max_pixels=9) == Decoded(
        refusal="over_pixel_limit", width=30, height=40
    )
    found = decoded(BMP)
    assert (found.conversion, found.width, found.height) == ("from_bmp", 30, 40)
    assert (pixels_of(found.data) == PIXELS).all()


def test_one_process_serves_many_images_and_many_threads_a_process_each() -> None:
    for _ in range(3):
        decoded(BMP)
    one = pids()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: decoded(BMP), range(40)))

    assert len(one) == 1
    assert len(pids()) <= len(os.sched_getaffinity(0))
    assert len(set(found)) == 1


def test_processes_end_with_the_last_who_needs_them() -> None:
    with kept_processes():
        decoded(BMP)
    (pid,) = pids()
    os.kill(pid, 0)
    apart._pool.inside -= 1
    try:
        decoded(BMP)  # nobody is inside: its process is not kept
        assert not pids()
    finally:
        apart._pool.inside += 1
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_small_file_that_takes_long_is_too_slow_and_the_next_one_is_not() -> None:
    assert len(SLOW) < 300_000
    assert decoded(SLOW, max_seconds=0.5).refusal == "too_slow"
    assert decoded(BMP, max_seconds=0.5).conversion == "from_bmp"


def test_the_time_of_one_image_is_not_that_of_the_next() -> None:
    few = many_scans(60, 1000)

    assert [decoded(few, max_seconds=1).refusal for _ in range(12)] == [None] * 12
    assert len(pids()) == 1


def test_a_decoder_that_waits_for_ever_is_too_slow() -> None:
    decoded(BMP)
    os.kill(pids()[0], signal.SIGSTOP)

    assert decoded(BMP, max_seconds=0.1).refusal == "too_slow"
    assert decoded(BMP).refusal is None


def test_a_process_that_was_ended_from_outside_says_nothing_of_the_image() -> None:
    decoded(BMP)
    os.kill(pids()[0], signal.SIGKILL)

    assert decoded(BMP).conversion == "from_bmp"


def test_memory_that_the_pixels_do_not_account_for_is_a_refusal() -> None:
    bomb = tiff(64, 64, bytes(100), t259=5, t322=36_000, t323=36_000, t324=200, t325=100)

    assert len(bomb) < 1000
    assert decoded(bomb).refusal == "over_memory_limit"
    assert decoded(BMP).refusal is None


def test_scans_without_end_are_too_slow_whatever_the_limit() -> None:
    assert decoded(many_scans(101, 16)).refusal == "too_slow"
    assert decoded(many_scans(100, 16)).refusal is None


def test_a_large_reply_comes_whole() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (800, 800, 3), dtype=np.uint8)
    found = decoded(save(Image.fromarray(noise), "BMP"))

    assert (pixels_of(found.data) == noise).all()


def test_a_process_that_cannot_start_is_an_error_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(apart, "_START", "raise SystemExit('no room')")

    with pytest.raises(StoreError, match="did not start: no room"):
        decoded(BMP)


def test_processes_end_with_the_program_however_it_ends(tmp_path: Path) -> None:
    (tmp_path / "image.bmp").write_bytes(BMP)
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from plstore.decoding import apart, decode_apart, kept_processes\n"
        "with kept_processes():\n"
        "    data = Path('image.bmp').read_bytes()\n"
        "    decode_apart(data, 'bmp', max_pixels=9999, max_seconds=9)\n"
        "    print(apart._pool.idle[0]._popen.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        check=False,
    )
    pid = int(ended.stdout)
    gone = Path(f"/proc/{pid}/stat")

    assert ended.returncode == -signal.SIGKILL
    for _ in range(500):
        if not gone.exists() or gone.read_text().split()[2] == "Z":
            return
        time.sleep(0.02)
    pytest.fail(f"process {pid} is still there")
