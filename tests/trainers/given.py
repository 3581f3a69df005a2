"""What tests of training share."""

from collections.abc import Callable, Iterator

import pytest

from plstore.loaders import backends
from plstore.loaders.work import BackendName, BackendSpec, Tensors


def record_backends(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which the name of every backend is added that is used from now on."""
    used: list[str] = []
    real = backends.import_backend

    def recording(name: BackendName) -> Callable[[BackendSpec], Iterator[Tensors]]:
        used.append(name)
        return real(name)

    monkeypatch.setattr(backends, "import_backend", recording)
    return used
