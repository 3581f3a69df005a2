import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
from PIL import Image
from timm.data.auto_augment import LEVEL_TO_ARG, NAME_TO_OP
from torchvision.transforms import RandAugment as TorchvisionRandAugment
from torchvision.transforms import autoaugment
from torchvision.transforms.functional import InterpolationMode

from plstore.errors import InputError
from plstore.loaders.backends import run_backend
from plstore.loaders.noise import Noise, NoiseDraw
from plstore.loaders.randaugment import (
    DIALECTS,
    DRAWS_PER_LAYER,
    Op,
    RandAugment,
    draw_ops,
)
from plstore.loaders.work import BackendName, BackendSpec, ImageFormat, Work

Pixels = npt.NDArray[np.uint8]

REFERENCE = np.load(Path(__file__).parents[1] / "data" / "randaugment" / "reference.npz")
MEAN = (0.45, 0.45, 0.45)  # DALI fills all channels alike
FILL = tuple(min(255, round(255 * value)) for value in MEAN)
WARPS = {"ROTATE", "SHEAR_X", "SHEAR_Y", "TRANSLATE_X", "TRANSLATE_Y"}


def photo(name: str, size: int = 96) -> Pixels:
    pixels = getattr(skimage.data, name)()[:300, :300, :3]
    resized = Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def uniforms(spec: RandAugment, op: Op, sign: float, centre: tuple[float, float]) -> Any:  # noqa: ANN401
    """Return numbers that draw this operation, this way round."""
    ops = DIALECTS[spec.dialect].ops
    numbers = np.zeros((1, 1, DRAWS_PER_LAYER))
    numbers[0, 0, 0] = (ops.index(op) + 0.5) / len(ops)
    numbers[0, 0, 2] = 0.25 if sign < 0 else 0.75
    numbers[0, 0, 5:7] = centre
    return numbers


def operated(
    backend: BackendName,
    image: Pixels,
    spec: RandAugment,
    op: Op,
    *,
    sign: float = 1.0,
    centre: tuple[float, float] = (0.5, 0.5),
) -> npt.NDArray[np.int64]:
    """Return what a backend makes of an image, all the way from its file."""
    size = len(image)
    draw = draw_ops(spec, size, uniforms(spec, op, sign, centre))
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    noise = NoiseDraw(
        windows=np.array([[0, 0, size, size]], np.int32),
        flips=np.zeros(1, np.bool_),
        augment=draw,
    )
    work = Work(
        rows=np.zeros(1, np.int64),
        encoded=[np.frombuffer(file.getvalue(), np.uint8)],
        targets=np.zeros((1, 2), np.float32),
        weights=np.ones(1, np.float32),
        sample_ids=np.zeros(1, np.int64),
        num_pixels=np.full(1, size * size),
        windows=noise.windows,
        scales=np.ones(1, np.int32),
        noise=noise,
    )

    def once(step: int) -> Work:
        if step:
            raise StopIteration
        return work

    built = BackendSpec(
        work=once,
        format=ImageFormat(size=size, mean=MEAN),
        noise=Noise(augment=spec),
        max_batch=1,
        device="cpu",
        num_threads=1,
    )
    ((images, _, _),) = list(run_backend(backend, built))
    return images[0].permute(1, 2, 0).numpy().astype(np.int64)


def check(found: npt.NDArray[np.int64], expected: Pixels, mean: float, wrong: float) -> None:
    """Levels of 255 by which they differ: on average, and the share of those off by over 8."""
    difference = np.abs(found - expected.astype(np.int64))
    assert difference.mean() <= mean, (difference.mean(), (difference > 8).mean())
    assert (difference > 8).mean() <= wrong, (difference.mean(), (difference > 8).mean())


# The operations of the backend torch are timm's, and change with it alone.
BY = ["threads", pytest.param("torch", marks=pytest.mark.nightly), "dali"]
NOISYSTUDENT = [key.split("/") for key in REFERENCE.files if "/source/" not in key]


@pytest.mark.parametrize("backend", BY)
@pytest.mark.parametrize(("name", "op", "level", "sign"), NOISYSTUDENT)
def test_the_official_code_does_the_same(
    backend: BackendName, name: str, op: str, level: str, sign: str
) -> None:
    source = REFERENCE[f"{name}/source/{level}/{sign}"]
    expected = REFERENCE[f"{name}/{op}/{level}/{sign}"]
    spec = RandAugment(n=1, m=float(level), translate_const=24, cutout_const=16)
    centre = (41.5 / 64, 20.5 / 64)
    found = operated(backend, source, spec, Op[op], sign=float(sign), centre=centre)

    loose = {"SHARPNESS": 2.2, "EQUALIZE": 2.2}  # truncated there; OpenCV's formula in DALI
    check(found, expected, loose.get(op, 0.7), 0.04 if backend == "dali" else 0.01)


TIMM = {
    Op.AUTO_CONTRAST: "AutoContrast",
    Op.EQUALIZE: "Equalize",
    Op.INVERT: "Invert",
    Op.ROTATE: "Rotate",
    Op.POSTERIZE: "Posterize",
    Op.SOLARIZE: "Solarize",
    Op.SOLARIZE_ADD: "SolarizeAdd",
    Op.COLOR: "Color",
    Op.CONTRAST: "Contrast",
    Op.BRIGHTNESS: "Brightness",
    Op.SHARPNESS: "Sharpness",
    Op.SHEAR_X: "ShearX",
    Op.SHEAR_Y: "ShearY",
    Op.TRANSLATE_X: "TranslateXRel",
    Op.TRANSLATE_Y: "TranslateYRel",
}
INCREASING = {Op.POSTERIZE, Op.SOLARIZE, Op.COLOR, Op.CONTRAST, Op.BRIGHTNESS, Op.SHARPNESS}


@pytest.mark.nightly
@pytest.mark.parametrize("backend", BY)
@pytest.mark.parametrize("increasing", [False, True])
@pytest.mark.parametrize(("m", "sign"), [(6.0, 1.0), (27.0, -1.0)])
@pytest.mark.parametrize("op", list(TIMM))
def test_timm_does_the_same(
    backend: BackendName, op: Op, m: float, sign: float, *, increasing: bool
) -> None:
    spec = RandAugment(n=1, m=m, dialect="timm", max_magnitude=27, increasing=increasing)
    image = photo("astronaut")
    name = TIMM[op] + ("Increasing" if increasing and op in INCREASING else "")
    arguments = list(LEVEL_TO_ARG[name](m, {}) if LEVEL_TO_ARG[name] else [])
    if op is Op.POSTERIZE:
        arguments = [max(arguments[0], 1)]  # Pillow refuses less
    if op.name in WARPS:
        arguments = [sign * abs(arguments[0])]
    elif increasing and op in INCREASING - {Op.POSTERIZE, Op.SOLARIZE}:
        arguments = [max(0.1, 1 + sign * m / 10 * 0.9)]
    expected = NAME_TO_OP[name](
        Image.fromarray(image),
        *arguments,
        resample=Image.Resampling.BILINEAR,
        fillcolor=FILL,
    )
    found = operated(backend, image, spec, op, sign=sign)

    mean, wrong = (1.0, 0.02)
    if backend == "dali":  # OpenCV's formula, the border
        mean = {"EQUALIZE": 4.0, "SHARPNESS": 3.0}.get(op.name, 1.5)
        wrong = 0.1 if op in {Op.EQUALIZE, Op.SHARPNESS} else 0.03
    check(found, np.asarray(expected), mean, wrong)


TORCHVISION = {
    Op.AUTO_CONTRAST: "AutoContrast",
    Op.EQUALIZE: "Equalize",
    Op.ROTATE: "Rotate",
    Op.POSTERIZE: "Posterize",
    Op.SOLARIZE: "Solarize",
    Op.COLOR: "Color",
    Op.CONTRAST: "Contrast",
    Op.BRIGHTNESS: "Brightness",
    Op.SHARPNESS: "Sharpness",
    Op.SHEAR_X: "ShearX",
    Op.SHEAR_Y: "ShearY",
    Op.TRANSLATE_X: "TranslateX",
    Op.TRANSLATE_Y: "TranslateY",
    Op.IDENTITY: "Identity",
}


@pytest.mark.parametrize("backend", BY)
@pytest.mark.parametrize(("m", "sign"), [(9, 1.0), (27, -1.0)])
@pytest.mark.parametrize("op", list(TORCHVISION))
def test_torchvision_does_the_same(backend: BackendName, op: Op, m: int, sign: float) -> None:
    spec = RandAugment(n=1, m=m, dialect="torchvision")
    image, name = photo("chelsea"), TORCHVISION[op]
    space = TorchvisionRandAugment()._augmentation_space(31, image.shape[:2])
    magnitudes, signed = space[name]
    magnitude = float(magnitudes[m]) if magnitudes.ndim else 0.0
    magnitude *= sign if signed else 1
    expected = autoaugment._apply_op(
        Image.fromarray(image), name, magnitude, InterpolationMode.NEAREST, None
    )
    mirrored = op in {Op.TRANSLATE_X, Op.TRANSLATE_Y}  # from the image to the result
    found = operated(backend, image, spec, op, sign=-sign if mirrored else sign)

    mean, wrong = (1.0, 0.03) if op.name not in WARPS else (3.0, 0.12)
    if backend == "dali" and op in {Op.EQUALIZE, Op.SHARPNESS}:
        mean, wrong = 4.0, 0.1
    check(found, np.asarray(expected), mean, wrong)


@pytest.mark.parametrize("backend", BY)
@pytest.mark.parametrize(("m", "sign"), [(9, 1.0), (27, -1.0)])
@pytest.mark.parametrize("op", list(DIALECTS["dali"].ops))
def test_dali_does_the_same(backend: BackendName, op: Op, m: int, sign: float) -> None:
    spec = RandAugment(n=1, m=m, dialect="dali")
    image = photo("coffee")
    mirrored = op in {Op.SHEAR_X, Op.SHEAR_Y, Op.TRANSLATE_X, Op.TRANSLATE_Y}
    found = operated(backend, image, spec, op, sign=-sign if mirrored else sign)

    mean, wrong = (1.6, 0.03)
    if backend != "dali" and op in {Op.EQUALIZE, Op.SHARPNESS}:
        mean, wrong = 4.0, 0.1
    check(found, by_dali(image, op, m, sign), mean, wrong)


def by_dali(image: Pixels, op: Op, m: int, sign: float) -> Pixels:
    """Return what DALI's own augmentation makes of an image."""
    from nvidia.dali import Pipeline, fn
    from nvidia.dali.auto_aug.core import signed_bin
    from nvidia.dali.auto_aug.rand_augment import get_rand_augment_suite

    suite = {a.name: a for a in get_rand_augment_suite(use_shape=True)}
    pipeline = Pipeline(batch_size=1, num_threads=1, device_id=None)
    with warnings.catch_warnings():  # it calls operators by their former names
        warnings.simplefilter("ignore", DeprecationWarning)
        with pipeline:
            data = fn.external_source(source=lambda: [image], layout="HWC")
            if op is not Op.IDENTITY:
                data = suite[op.name.lower()](
                    data,
                    magnitude_bin=signed_bin(m, random_sign=int(sign < 0)),
                    num_magnitude_bins=31,
                    shape=list(image.shape),
                )
            pipeline.set_outputs(data)
        return np.asarray(pipeline.run()[0].at(0))


def test_a_magnitude_means_what_the_dialect_says() -> None:
    def values(spec: RandAugment, op: Op) -> float:
        return float(draw_ops(spec, 224, uniforms(spec, op, 1.0, (0, 0))).values[0, 0])

    paper = RandAugment(n=1, m=27)
    assert values(paper, Op.ROTATE) == pytest.approx(81)
    assert values(paper, Op.TRANSLATE_X) == pytest.approx(270)
    assert values(paper, Op.COLOR) == pytest.approx(4.96)
    assert values(paper, Op.SOLARIZE) == 691
    assert values(paper, Op.CUTOUT) == 108
    held = RandAugment(n=1, m=27, dialect="timm", probability=1.0)
    assert values(held, Op.ROTATE) == pytest.approx(30)
    assert values(held, Op.TRANSLATE_X) == pytest.approx(0.45 * 224)
    bins = RandAugment(n=1, m=27, dialect="torchvision")
    assert values(bins, Op.ROTATE) == pytest.approx(27)
    assert values(bins, Op.POSTERIZE) == 4
    assert values(RandAugment(n=1, m=27, dialect="dali"), Op.SOLARIZE) == 26


def test_operations_are_drawn_evenly_and_as_often_as_their_probability_says() -> None:
    numbers = np.random.default_rng(0).random((20_000, 2, DRAWS_PER_LAYER))
    spec = RandAugment(dialect="timm", m=9, magnitude_std=0.5)
    draw = draw_ops(spec, 224, numbers)
    counts = np.bincount(draw.ops.ravel(), minlength=len(Op))
    rotations = draw.values[draw.ops == Op.ROTATE]

    assert counts[Op.IDENTITY] / draw.ops.size == pytest.approx(0.5, abs=0.01)
    assert counts[[*TIMM]] / draw.ops.size == pytest.approx(np.full(15, 0.5 / 15), abs=0.004)
    assert (rotations < 0).mean() == pytest.approx(0.5, abs=0.04)
    assert np.abs(rotations).mean() == pytest.approx(27, abs=0.3)
    assert 0.9 < np.abs(rotations).std() < 1.6  # half a unit of magnitude is 1.5 degrees


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dialect": "google"}, "wanted 'noisystudent', 'timm', 'torchvision', 'dali'"),
        ({"dialect": "dali", "m": 31}, "a whole number from 0 to 30"),
        ({"dialect": "torchvision", "m": 2.5}, "it is a bin"),
        ({"n": 9}, "n is 9; wanted a whole number from 0 to 8"),
        ({"max_magnitude": 30}, "options of the dialect 'timm'"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        RandAugment(**changes)
