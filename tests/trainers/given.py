"""What tests of training share."""

from collections.abc import Callable, Iterator

import pytest
import torch

from plstore.labels import TeacherRecord, add_teacher
from plstore.loaders import ImageFormat, backends
from plstore.loaders.work import BackendName, BackendSpec, Tensors
from plstore.store import Store
from tests.conftest import CLASS_NAMES
from trainers.context import Outputs
from trainers.models.model import build_model, keep_bundle
from trainers.sections import Model


def record_backends(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which the name of every backend is added that is used from now on."""
    used: list[str] = []
    real = backends.import_backend

    def recording(name: BackendName) -> Callable[[BackendSpec], Iterator[Tensors]]:
        used.append(name)
        return real(name)

    monkeypatch.setattr(backends, "import_backend", recording)
    return used


def add_model(store: Store, teacher_id: str, *, iteration: int, seed: int) -> Outputs:
    """Give a store a teacher with a small model that was not trained."""
    torch.manual_seed(seed)
    settings = Model(architecture="test_resnet", resolution=16, stochastic_depth=0)
    network = build_model(settings, "test_resnet", len(CLASS_NAMES))
    name, digest = keep_bundle(store, teacher_id, network, ImageFormat(size=16), CLASS_NAMES)
    record = TeacherRecord(
        teacher_id=teacher_id,
        iteration=iteration,
        role="student" if iteration else "teacher",
        checkpoint=name,
        checkpoint_hash=digest,
    )
    add_teacher(store, record, identity=teacher_id, step="train")
    return {"teacher_id": teacher_id, "checkpoint": name, "checkpoint_hash": digest}
