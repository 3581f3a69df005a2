"""A store whose images are spread over ranges of ids."""

from pathlib import Path

import pytest

from plstore.store import Store
from tests.trainers.engines.given import spread_store


@pytest.fixture
def spread(tmp_path: Path) -> Store:
    return spread_store(tmp_path)
