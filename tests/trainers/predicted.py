"""Models and photos that tests of predictions share."""

from pathlib import Path

import numpy as np
import torch

from plstore.loaders import ImageFormat
from tests.conftest import encode
from trainers.models.model import build_model, save_bundle
from trainers.sections import Model

THEIRS = ("owl", "cat", "dog")


def make_model(folder: Path, class_names: tuple[str, ...] = THEIRS) -> Path:
    """A model of 16 pixels that nobody trained: it is as sure of every class."""
    torch.manual_seed(0)
    settings = Model(architecture="test_resnet", resolution=16, stochastic_depth=0)
    network = build_model(settings, "test_resnet", len(class_names))
    save_bundle(folder, network, ImageFormat(size=16), class_names)
    return folder


def photo(seed: int) -> bytes:
    random = np.random.default_rng(seed)
    return encode(random.integers(0, 256, (20, 20, 3), dtype=np.uint8))


def make_photos(folder: Path) -> Path:
    """Five photos and a page: deep/0.png to deep/4.png, page.jpg."""
    (folder / "deep").mkdir(parents=True)
    for number in range(5):
        (folder / "deep" / f"{number}.png").write_bytes(photo(number))
    (folder / "page.jpg").write_bytes(b"<html>404</html>")
    return folder
