"""Corruptions are the library's, the same bits anywhere, of images of any side."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import imagecorruptions
import numpy as np
import pytest
from PIL import Image

from plstore.errors import InputError, MissingExtraError, PlstoreError
from tests.trainers.robustness.given import make_batches, make_images
from trainers.robustness import corruptions
from trainers.robustness.batches import ImageBatch
from trainers.robustness.corruptions import (
    KNOWN_CORRUPTIONS,
    corrupt,
    corrupted,
    is_resized,
    library,
)

QUICK = tuple(name for name in KNOWN_CORRUPTIONS if name != "glass_blur")
"""All but the one that is compiled at first, which takes three seconds."""
FEW = ("gaussian_noise", "impulse_noise", "frost", "jpeg_compression")
HASHES = """
import sys
from hashlib import sha256
from tests.trainers.robustness.given import make_batches
from trainers.robustness.corruptions import KNOWN_CORRUPTIONS, corrupted
for size, channels in ((28, 1), (40, 3)):
    for done in corrupted(make_batches(2, size, channels, 2), KNOWN_CORRUPTIONS, (1, 5)):
        print(size, done.name, done.severity, sha256(done.pixels.tobytes()).hexdigest())
assert "torch" not in sys.modules
"""


@pytest.mark.nightly
def test_two_processes_make_the_same_bits() -> None:
    begun = [
        subprocess.Popen([sys.executable, "-c", HASHES], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    first, second = (process.communicate(timeout=120)[0] for process in begun)

    assert len(set(first.splitlines())) == 2 * 2 * len(KNOWN_CORRUPTIONS)
    assert first == second


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_makes_the_same_bits_in_the_same_order(workers: int) -> None:
    def hashes(workers: int) -> list[tuple[str, int, list[int], str]]:
        batches = make_batches(3, 32, 3, 2)
        return [
            (d.name, d.severity, d.sample_ids.tolist(), sha256(d.pixels.tobytes()).hexdigest())
            for d in corrupted(batches, FEW, (2, 4), workers=workers)
        ]

    alone = hashes(0)
    kinds = [(name, severity) for name in FEW for severity in (2, 4)]
    assert [found[:2] for found in alone] == kinds * 2
    assert [found[2] for found in alone] == [[100, 101]] * 8 + [[102]] * 8
    assert hashes(workers) == alone


def test_an_image_is_corrupted_alike_in_any_batch_and_any_other_is_not() -> None:
    (ids, pixels), (more_ids, more) = make_batches(4, 32, 3, 2)
    [both] = corrupted([(ids, pixels)], ["gaussian_noise"], [3])
    [one] = corrupted([(ids[1:], pixels[1:])], ["gaussian_noise"], [3])
    assert np.array_equal(both.pixels[1:], one.pixels)

    [other_id] = corrupted([(more_ids[1:], pixels[1:])], ["gaussian_noise"], [3])
    assert not np.array_equal(other_id.pixels, one.pixels)
    [milder] = corrupted([(ids[1:], pixels[1:])], ["gaussian_noise"], [2])
    assert not np.array_equal(milder.pixels, one.pixels)
    assert more.shape == pixels.shape


@pytest.mark.parametrize("name", QUICK)
def test_a_corruption_is_the_librarys(name: str) -> None:
    [pixels] = make_images(1, 64, 3)
    for severity in (1, 3, 5):
        seed = corruptions._seed(7, name, severity)
        np.random.seed(seed)  # noqa: NPY002, TID251  what the library draws from
        own = {"seed": seed} if name == "impulse_noise" else {}
        expected = imagecorruptions.corrupt(pixels, severity, name, **own)

        found = corrupt(pixels, sample_id=7, name=name, severity=severity)
        assert found.dtype == np.uint8
        assert np.array_equal(found, expected)
        assert not np.array_equal(found, pixels)


@pytest.mark.slow
def test_glass_blur_is_the_librarys() -> None:
    [pixels] = make_images(1, 32, 3)
    seed = corruptions._seed(7, "glass_blur", 2)
    expected = imagecorruptions.corrupt(pixels, 2, "glass_blur", seed=seed)

    found = corrupt(pixels, sample_id=7, name="glass_blur", severity=2)
    assert np.array_equal(found, expected)


def test_every_corruption_takes_one_channel_and_keeps_it() -> None:
    batches = make_batches(2, 32, 1, 2)
    for done in corrupted(batches, QUICK, (1, 5)):
        assert done.pixels.shape == (2, 32, 32, 1)
        changed = np.abs(done.pixels.astype(int) - batches[0][1]).mean()
        assert changed < 128, done.name
        if done.name != "saturate":  # there is nothing to saturate
            assert changed > 0.2, done.name


def test_noise_of_one_channel_is_as_strong_as_that_of_three() -> None:
    gray = np.full((1, 64, 64, 1), 128, np.uint8)
    [done] = corrupted([(np.array([5]), gray)], ["gaussian_noise"], [1])

    assert np.std(done.pixels) == pytest.approx(0.08 * 255, rel=0.05)


def test_blur_of_one_channel_is_that_of_three_equal_ones() -> None:
    gray = make_images(1, 48, 1)[0]
    coloured = np.repeat(gray, 3, axis=2)
    for name in ("gaussian_blur", "motion_blur", "snow", "elastic_transform", "fog"):
        found = corrupt(gray, sample_id=1, name=name, severity=3)
        expected = corrupt(coloured, sample_id=1, name=name, severity=3)
        assert np.array_equal(found[..., 0], expected[..., 0]), name


def test_an_image_without_a_drop_of_spatter_is_not_black() -> None:
    [pixels] = make_images(1, 32, 3)
    done = [corrupt(pixels, sample_id=i, name="spatter", severity=1) for i in range(200)]

    untouched = sum(np.array_equal(one, pixels) for one in done)
    assert 0 < untouched < 40
    assert min(one.mean() for one in done) > pixels.mean() - 1


def test_small_images_are_resized_and_that_is_said() -> None:
    [small] = corrupted(make_batches(1, 28, 1, 1), ["brightness"], [1])
    [large] = corrupted(make_batches(1, 32, 1, 1), ["brightness"], [1])

    assert (small.was_resized, large.was_resized) == (True, False)
    assert (is_resized(31), is_resized(32)) == (True, False)
    image = Image.fromarray(make_images(1, 28, 1)[0, ..., 0])
    grown = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC))[..., np.newaxis]
    brighter = corrupt(grown, sample_id=100, name="brightness", severity=1)[..., 0]
    expected = Image.fromarray(brighter).resize((28, 28), Image.Resampling.BICUBIC)
    assert np.array_equal(small.pixels[0, ..., 0], np.asarray(expected))


def test_the_global_generator_is_as_it_was() -> None:
    np.random.seed(3)  # noqa: NPY002, TID251
    expected = np.random.random(3)  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002, TID251
    list(corrupted(make_batches(1, 32, 3, 1), FEW, [1]))

    assert np.array_equal(np.random.random(3), expected)  # noqa: NPY002


def test_progress_counts_corrupted_images_and_few_batches_are_taken_ahead() -> None:
    taken: list[int] = []

    def images() -> Iterator[ImageBatch]:
        for number, batch in enumerate(make_batches(20, 32, 1, 2)):
            taken.append(number)
            yield batch

    said: list[int] = []
    stream = corrupted(images(), ["contrast"], [1], workers=1, on_progress=said.append)
    next(stream)
    assert (len(taken), said) == (3, [2])
    assert len(list(stream)) == 9
    assert said == list(range(2, 22, 2))


def test_an_ended_worker_ends_the_work_with_a_reason() -> None:
    stream = corrupted(make_batches(40, 32, 3, 1), FEW, workers=1)
    next(stream)
    [worker] = multiprocessing.active_children()
    worker.kill()

    with pytest.raises(PlstoreError, match=r"one of 1 processes .* ended from outside"):
        list(stream)


def test_workers_end_with_a_stream_that_is_left() -> None:
    stream = corrupted(make_batches(4, 32, 3, 1), FEW, workers=1)
    next(stream)
    assert multiprocessing.active_children()
    stream.close()  # type: ignore[attr-defined]  # it is a generator
    assert not multiprocessing.active_children()


def test_what_is_unknown_is_refused_before_any_image_is_read() -> None:
    batches = make_batches(1, 32, 3, 1)
    with pytest.raises(
        InputError, match=r"corruption is 'gausian_noise'; wanted .* gaussian_noise, shot_noise"
    ):
        corrupted(batches, ["fog", "gausian_noise"])
    with pytest.raises(InputError, match=r"corruption is none; wanted one or more"):
        corrupted(batches, [])
    with pytest.raises(InputError, match=r"corruption is 'fog', 'fog'; wanted .* each once"):
        corrupted(batches, ["fog", "fog"])
    with pytest.raises(InputError, match=r"severity is 0, 6; wanted .* of 1 to 5"):
        corrupted(batches, ["fog"], [0, 1, 6])
    with pytest.raises(InputError, match=r"workers is -1; wanted a whole number of 0 or more"):
        corrupted(batches, workers=-1)
    with pytest.raises(InputError, match=r"corruption is 'rain'"):
        corrupt(batches[0][1][0], sample_id=1, name="rain", severity=1)


def test_what_is_no_batch_of_images_is_refused() -> None:
    [(ids, pixels)] = make_batches(2, 32, 3, 2)

    def fails(batch: ImageBatch, message: str) -> None:
        with pytest.raises(InputError, match=message):
            next(corrupted([batch], ["fog"], [1]))

    fails((ids[:1], pixels), "2 images came with 1 sample ids; wanted one each")
    fails((ids - 1000, pixels), r"sample ids are int64 \[2\]; wanted int64 \[images\] of 0")
    fails((ids.astype(np.int32), pixels), r"sample ids are int32 \[2\]")
    fails((ids[:0], pixels[:0]), r"sample ids are int64 \[0\]; wanted .* at least one")
    fails((ids, pixels[:, :20]), r"images are uint8 \[2, 20, 32, 3\]; wanted uint8 \[images")
    fails((ids, pixels[..., :2]), r"images are uint8 \[2, 32, 32, 2\]")
    fails((ids, pixels / 255), r"images are float64 \[2, 32, 32, 3\]")  # type: ignore[arg-type]
    fails((ids, pixels[..., 0]), r"images are uint8 \[2, 32, 32\]")


def test_two_packages_of_one_module_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_package(tmp_path, "imagecorruptions", "1.1.2")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(InputError, match=r"both installed, .* pip uninstall imagecorruptions"):
        library.__wrapped__()


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corruptions, "_PACKAGE", "no-such-package")

    with pytest.raises(MissingExtraError, match=r"pip install 'plstore\[robustness\]'"):
        library.__wrapped__()


def test_an_opencv_that_wants_libgl_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text(
        "raise ImportError('libGL.so.1: cannot open shared object file')"
    )
    program = "from trainers.robustness.corruptions import library; library()"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "does not load: libGL.so.1: cannot open" in done.stderr
    assert "--force-reinstall --no-deps opencv-python-headless" in done.stderr


def give_package(folder: Path, name: str, version: str) -> None:
    """Make a package look installed, as pip records it."""
    record = folder / f"{name}-{version}.dist-info" / "METADATA"
    record.parent.mkdir()
    record.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
