"""Stores to look at, made once: these tests only read them, or take a copy to write to."""

import shutil
from pathlib import Path

import pytest

import plstore
from plstore.images import import_images
from plstore.store import Store
from plstore.ui.snapshot import Snapshot
from plstore.upkeep import correct, exclude
from tests.conftest import CLASS_NAMES, make_records
from tests.ui.looked_at import fill


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = plstore.create(tmp_path_factory.mktemp("filled") / "pets")
    import_images(store, make_records(), dataset="pets", class_names=CLASS_NAMES)
    fill(store)
    return store.root


@pytest.fixture(scope="session")
def snapshot(filled: Path) -> Snapshot:
    return Snapshot(plstore.open(filled))


@pytest.fixture(scope="session")
def decided(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """The same store after two images were excluded and one was corrected."""
    root = tmp_path_factory.mktemp("decided") / "pets"
    shutil.copytree(filled, root)
    store = plstore.open(root)
    exclude(store, [12, 13], reason="blurred", who="ann")
    correct(store, {14: "owl"}, who="ann")
    return Snapshot(store)


@pytest.fixture
def own(filled: Path, tmp_path: Path) -> Store:
    """A copy to write to."""
    shutil.copytree(filled, tmp_path / "pets")
    return plstore.open(tmp_path / "pets")
