"""The page of examples, run block by block as a reader would."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import plstore

PAGE = Path(plstore.__file__).with_name("API.md")
CLASSES = ("cat", "dog")


def save(folder: Path, count: int, seed: int) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        pixels = random.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for place, name in enumerate(CLASSES):
        save(tmp_path / "pets/labeled" / name, 12, place)
        save(tmp_path / "pets/test" / name, 4, 10 + place)
        save(tmp_path / "pets/new-camera" / name, 2, 30 + place)
    save(tmp_path / "pets/unlabeled", 30, 20)
    (tmp_path / "second-look.csv").write_text(
        "key,label\ntest/cat/0.png,cat\ntest/cat/0.png,dog\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_example_of_the_page_runs(pets: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{PAGE.name}, block {number + 1}", "exec"), names)  # noqa: S102

    assert len(blocks) == 10
    assert (pets / "pets/surer/view.parquet").exists() or list((pets / "pets/surer").iterdir())


def test_every_public_name_is_there() -> None:
    for name in plstore.__all__:
        assert getattr(plstore, name) is not None, name
