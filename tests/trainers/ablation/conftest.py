"""A grid of four cells on a handful of real images, each trained for a few steps."""

from dataclasses import replace
from pathlib import Path

import pytest

from plstore.exchange import parquet_folder
from plstore.exchange.parquet import write_parquet_folder
from trainers.ablation import Ablation
from trainers.data import sample_folder

COUNTS = {"labeled": 40, "unlabeled": 60, "validation": 20, "test": 50}

RECIPE = """
name = "tiny"
iterations = 2

[data]
source = "parquet"
path = "{images}"

[model]
architecture = "test_resnet"
resolution = 28
channels = 1
mean = [0.286]
std = [0.353]
stochastic_depth = 0.0

[train]
steps = 4
labeled_batch = 4
ratio = 2
threads = 1
looks = 0

[select]
min_confidence = 0.0
"""

GRID = """
name = "tiny"
seeds = "0..1"

[data.images]
recipe = "tiny.toml"
set = ["schedule.warmup_steps=1"]
words = { few = 2 }
about = "40 labels of Fashion-MNIST, on which nothing is learnt"

[robustness]
limit = 12
severities = [3]
attack = "fgsm"

[cells.supervised]
of = "teacher"

[cells.student]
numbers = ["test_accuracy", "validation_accuracy"]

[cells.hard]
like = "student"
set = ["iteration.1.loss.pseudo_labels=hard"]

[cells.length]
set = ["iteration.1.train.steps=$steps"]
axes = { steps = { short = "$few", long = 6 } }

[[findings]]
id = "gain"
sentence = "A student is better than its teacher."
cell = "student"
against = "supervised"
sign = "+"
source = "table 7"
paper = [87.6, 85.0]

[[findings]]
id = "soft"
sentence = "Soft labels are better."
cell = "student"
against = "hard"
number = "validation_accuracy"
sign = "+"

[[findings]]
id = "length"
sentence = "A longer training is better."
cell = "length-long"
against = "length-short"
sign = "+"
"""


def write_images(folder: Path) -> Path:
    """Write the first images of the bundled sample, by split."""
    whole = parquet_folder(sample_folder(), dataset="fashion_mnist")
    left = dict(COUNTS)
    kept = []
    for record in whole.records():
        left[record.split] -= 1
        if left[record.split] >= 0:
            kept.append(record)
    write_parquet_folder(folder, replace(whole, records=lambda: iter(kept)))
    return folder


@pytest.fixture(scope="package")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="package")
def grid(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grid")
    (folder / "tiny.toml").write_text(RECIPE.format(images=images))
    (folder / "grid.toml").write_text(GRID)
    return folder / "grid.toml"


@pytest.fixture
def ablation(grid: Path, tmp_path: Path) -> Ablation:
    return Ablation(grid=grid, home=tmp_path / "home", device="cpu")
