"""Every setting of the loaders has a range, and its error names the field and the remedy."""

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from math import inf, nan
from typing import Any

import numpy as np
import pytest

from plstore.errors import InputError
from plstore.loaders import ComposedAugment, Crop, ImageFormat, Noise, RandAugment, Share
from plstore.loaders.work import threads_of_a_rank

OUT_OF_RANGE: Mapping[type, Mapping[str, list[object]]] = {
    Noise: {
        "crop": [0.5, None],
        "flip": [50, -0.1, nan, "half", True],
        "augment": ["randaugment", None],
        "fill": [-1, 256, 0.5, True],
    },
    Crop: {
        "min_area": [2, 0, -1, nan, None],
        "max_area": [0, 1.5, inf],
        "max_aspect": [0.5, 1000, nan],
    },
    ComposedAugment: {
        "n": [-1, 9, 1.5, True],
        "ops": [["rotate"], {"spin": 1}],
        "magnitude": ["random", 1, None],
    },
    RandAugment: {
        "n": [-1, 9, 2.0],
        "m": [-1, nan, 1e9, "27"],
        "dialect": ["google", None, ["timm"]],
        "probability": [-0.1, 1.1, nan],
        "magnitude_std": [-1, nan, inf],
        "max_magnitude": [0, -1, nan],
        "increasing": [1, "yes"],
        "translate_const": [-1, nan, 1e9],
        "cutout_const": [-1, nan, 1e9],
    },
    ImageFormat: {
        "size": [0, -1, 224.5, 10_000, None, True],
        "channels": [2, 0, "3", True],
        "mean": [(0.5,), (0.5, 0.5, 1.5), (0.5, 0.5, nan), 0.5, "abc"],
        "std": [(0.5,), (0.5, 0.5, 0.0), (0.5, 0.5, nan), (0.5, 0.5, 60.0), None],
        "interpolation": ["lanczos", None],
        "crop_pct": [0, 1e9, nan, -1],
        "scaled_decoding": [1, "yes", None],
    },
    Share: {"rank": [-1, 1, 0.5], "world_size": [0, -1, 1.5]},
}
SOUND = {ImageFormat: ImageFormat(size=32)}
CASES = [
    (kind, field, value)
    for kind, by_field in OUT_OF_RANGE.items()
    for field, values in by_field.items()
    for value in values
]


@pytest.mark.parametrize(("kind", "field", "value"), CASES)
def test_a_value_out_of_range_is_refused_by_name(
    kind: Any,  # noqa: ANN401
    field: str,
    value: object,
) -> None:
    sound = SOUND.get(kind) or kind()
    with pytest.raises(InputError) as caught:
        replace(sound, **{field: value})

    assert re.search(rf"\b{field}\b.*; wanted", str(caught.value)), caught.value


@pytest.mark.parametrize("kind", OUT_OF_RANGE)
def test_no_field_is_forgotten(kind: Any) -> None:  # noqa: ANN401
    assert set(OUT_OF_RANGE[kind]) == {field.name for field in fields(kind)}


@pytest.mark.parametrize(
    ("name", "value"),
    [("rotate", 361), ("shear_x", 11), ("translate_y", 1.5), ("zoom", 1), ("contrast", -0.1)],
)
def test_a_magnitude_out_of_range_names_its_operation(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"ops {name} is {value}; wanted a number from 0 to"):
        ComposedAugment(ops={name: value})


def test_the_ends_of_the_ranges_are_in_them() -> None:
    ends = {"n": np.int64(8), "m": np.float32(1000), "probability": 0, "cutout_const": 1e5}
    spec = RandAugment(**ends)  # type: ignore[arg-type]  # numpy's numbers too

    assert spec.n == 8
    assert Noise(flip=1, fill=255, crop=Crop(min_area=1, max_aspect=1)).fill == 255
    assert ImageFormat(size=4096, mean=(0, 1, 0.5), std=(1, 1, 1)).crop_pct == 1.0
    assert ComposedAugment(n=0, ops={"identity": 5, "rotate": 360}).n == 0


@pytest.mark.parametrize("ranks", ["0", "-1", "two", ""])
def test_a_number_of_ranks_that_is_none_is_refused(
    ranks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    with pytest.raises(InputError, match=r"LOCAL_WORLD_SIZE is .*; wanted a whole number of 1"):
        threads_of_a_rank()
