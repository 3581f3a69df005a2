"""A linear probe of any model: what its frozen features are worth for a store's classes.

The usual measure of a backbone on another task: a logistic regression on its pooled features,
its strength chosen on images that are neither fitted nor tested (Kornblith et al. 2019, Do
better ImageNet models transfer better?, section 3). Embeddings are kept in the store.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import timm

from plstore.embeddings import EmbeddingSet, of_images, read_embeddings
from plstore.errors import InputError
from plstore.fingerprint import file_hash, value_hash
from plstore.labels import corrected_labels, find_teacher, list_teachers
from plstore.loaders import import_backend, pick_backend
from plstore.loaders.work import Backend
from plstore.schema import ACCEPTED
from plstore.store import Store
from trainers.absence import leave_out_gone
from trainers.evaluation.evaluate import keep_metrics
from trainers.evaluation.intervals import wilson
from trainers.events import Listener, Teller, unheard
from trainers.features.embedding import Backbone, Embedding, backbone_name, backbone_of, embed
from trainers.features.folds import cross_validate, is_wanted
from trainers.models.checkpoint import CONFIG, WEIGHTS
from trainers.models.linear import Examples, Linear, fit, fit_best
from trainers.models.model import load_bundle, load_teacher
from trainers.training.train import pick_device

_LABELED: Final = ("labeled", "validation", "test")
_SEED: Final = 0  # of the folds


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What a linear probe found.

    Attributes:
        model: The teacher, or the name of the embeddings of a model from elsewhere.
        train: What it was fitted on, as it was asked for.
        test: What it was measured on.
        num_train: Images of the fit.
        num_validation: Images that chose its strength, of no fit and no test.
        num_test: Images that it was measured on.
        dropped: Training images that were left out, by reason: `excluded` by people, or
            `held_out`, whose very bytes are to be tested or chosen by.
        strength: C, the inverse of the penalty on its weights.
        chosen_by: `validation`; `folds`, training images held out in turn; `both`, where there
            are few validation images; or `default`, where nothing could be held out.
        accuracy: In percent.
        interval: Wilson's, of 95 %, in percent.
    """

    model: str
    train: str
    test: str
    num_train: int
    num_validation: int
    num_test: int
    dropped: Mapping[str, int]
    strength: float
    chosen_by: str
    accuracy: float
    interval: tuple[float, float]


def probe(
    store: Store,
    model: str,
    *,
    train: str = "labeled",
    test: str = "test",
    device: str = "auto",
    backend: Backend = "auto",
    on_event: Listener = unheard,
) -> Probed:
    """Fit a linear probe on a model's frozen features; keep its accuracy in `runs`.

    Args:
        store: The store; images that the model has not seen are embedded, and it is kept.
        model: A teacher of the store, a model folder, a file or folder of weights, or a name
            of timm, whose own weights are taken.
        train: `labeled`, `validation` or `test`; or such a split of one dataset of the store,
            as `DATASET/SPLIT`.
        test: The same, with other images.
        device: "auto", "cpu" or a CUDA device.
        backend: Of the loader.
        on_event: Told of progress.

    Raises:
        InputError: If there is no such model, there are no such images, or images are in both.
    """
    teller, device = Teller(on_event), pick_device(device)
    picked = pick_backend(backend, device)
    import_backend(picked)
    name, backbone = _open(store, model, device)
    leave_out_gone(store, teller.say)
    pins = store.versions(["images", "corrections", "exclusions"])
    task = _task(store, train, test)
    splits = [where.split for where in (task.train, task.validation, task.test) if len(where)]
    embed(store, backbone, splits=sorted({*splits}), backend=picked, on_event=on_event)
    validation = _examples(store, backbone, task.validation) if len(task.validation) else None
    linear, chosen_by = _fit(_examples(store, backbone, task.train), validation)
    accuracy = _examples(store, backbone, task.test).accuracy(linear)
    strength = float(linear.strength or 0.0)
    values = {"accuracy": accuracy, "strength": strength}
    named = {f"probe/{train}/{test}/{key}": value for key, value in values.items()}
    identity = value_hash({"probe": backbone.name, "of": [train, test], "pins": pins})
    keep_metrics(store, name, named, identity)
    return Probed(
        model=name,
        train=train,
        test=test,
        num_train=len(task.train),
        num_validation=len(task.validation),
        num_test=len(task.test),
        dropped=task.dropped,
        strength=strength,
        chosen_by=chosen_by,
        accuracy=accuracy,
        interval=wilson(round(accuracy * len(task.test) / 100), len(task.test)),
    )


def _open(store: Store, model: str, device: str) -> tuple[str, Backbone]:
    """Return the backbone of a model, and what its metrics are kept by."""
    teacher = find_teacher(store, model)
    if teacher is not None and teacher.role == "pretrained":
        return teacher.teacher_id, Embedding(teacher=model, device=device).backbone(store)
    if teacher is not None:
        bundle = load_teacher(store, teacher, device=device)
        return teacher.teacher_id, backbone_of(bundle, device=device)
    path = Path(model)
    if _is_bundle(path):
        bundle = load_bundle(path, device=device)
        architecture = type(bundle.network).__name__
        name = backbone_name(architecture, file_hash(path / WEIGHTS), bundle.format)
        backbone = replace(backbone_of(bundle, device=device), name=name)
    elif path.exists():
        backbone = Embedding(weights=model, device=device).backbone(store)
    elif timm.is_model(model):
        backbone = Embedding(model=model, device=device).backbone(store)
    else:
        known = ", ".join(t.teacher_id for t in list_teachers(store) if t.checkpoint)
        raise InputError(
            f"{model!r} is no teacher of {store.root} (those with a model are "
            f"{known or 'none'}), no file or folder, and no model of timm; wanted one of these"
        )
    return backbone.name, backbone


def _is_bundle(folder: Path) -> bool:
    """Whether a folder says how images reach its model, and what its classes are."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and {"label_names", "pretrained_cfg"} <= config.keys()


@dataclass(frozen=True, kw_only=True)
class _Images:
    """Labeled images of a split."""

    split: str
    sample_ids: npt.NDArray[np.int64]
    class_ids: npt.NDArray[np.int64]
    hashes: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.sample_ids)

    def only(self, which: npt.NDArray[np.bool_]) -> "_Images":
        return replace(
            self,
            sample_ids=self.sample_ids[which],
            class_ids=self.class_ids[which],
            hashes=self.hashes[which],
        )


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What is fitted, chosen by and tested, without an image in two of them."""

    train: _Images
    validation: _Images
    test: _Images
    dropped: Mapping[str, int]


def _task(store: Store, train: str, test: str) -> _Task:
    fitted, tested = _images(store, train), _images(store, test)
    shared = np.isin(fitted.sample_ids, tested.sample_ids)
    if shared.any():
        raise InputError(
            f"{shared.sum()} images are both in {train!r}, to be fitted, and in {test!r}, to "
            "be tested; name other images for one of them"
        )
    for what, images in ((train, fitted), (test, tested)):
        if not len(images):
            raise InputError(f"{store.root} has no labeled images {what!r}")
    dataset = train.rpartition("/")[0]
    chosen_by = _images(store, f"{dataset}/validation" if dataset else "validation")
    used = np.isin(chosen_by.sample_ids, [*fitted.sample_ids, *tested.sample_ids])
    chosen_by = chosen_by.only(~used & ~np.isin(chosen_by.hashes, tested.hashes))
    excluded = np.isin(fitted.sample_ids, _excluded(store))
    held_out = np.isin(fitted.hashes, [*tested.hashes, *chosen_by.hashes]) & ~excluded
    counts = {"excluded": int(excluded.sum()), "held_out": int(held_out.sum())}
    left = fitted.only(~excluded & ~held_out)
    if not len(left):
        raise InputError(f"no image of {train!r} is left to fit: {counts}")
    dropped = {reason: count for reason, count in counts.items() if count}
    return _Task(train=left, validation=chosen_by, test=tested, dropped=dropped)


def _images(store: Store, what: str) -> _Images:
    """Return the accepted images of ``SPLIT`` or ``DATASET/SPLIT``, with corrected labels."""
    dataset, _, split = what.rpartition("/")
    if split not in _LABELED:
        raise InputError(f"{what!r}; wanted {', '.join(_LABELED)}, or DATASET/SPLIT")
    table = store.table("images")
    where = (pc.field("split") == split) & (pc.field("verdict") == ACCEPTED)
    if dataset:
        known = sorted(set(table.read(columns=["dataset"])["dataset"].to_pylist()))
        if dataset not in known:
            raise InputError(
                f"{store.root} has no dataset {dataset!r}; it has {', '.join(known) or 'none'}"
            )
        where &= pc.field("dataset") == dataset
    columns = ["sample_id", "label", "content_hash"]
    rows = table.read(columns=columns, where=where).sort_by("sample_id")
    corrected = corrected_labels(store)
    labels = zip(rows["sample_id"].to_pylist(), rows["label"].to_pylist(), strict=True)
    return _Images(
        split=split,
        sample_ids=rows["sample_id"].to_numpy(),
        class_ids=np.array([corrected.get(n, label) for n, label in labels], np.int64),
        hashes=np.array(rows["content_hash"].to_pylist(), np.str_),
    )


def _excluded(store: Store) -> npt.NDArray[np.int64]:
    ids: npt.NDArray[np.int64] = (
        store.table("exclusions").read(columns=["sample_id"])["sample_id"].to_numpy()
    )
    return ids


def _examples(store: Store, backbone: Backbone, images: _Images) -> Examples:
    of = EmbeddingSet(model=backbone.name, split=images.split)
    batches = list(read_embeddings(store, of, only=np.sort(images.sample_ids)))
    return Examples(
        vectors=of_images(batches, images.sample_ids),
        targets=np.eye(len(store.class_names), dtype=np.float32)[images.class_ids],
        weights=np.ones(len(images), np.float32),
    )


def _fit(examples: Examples, validation: Examples | None) -> tuple[Linear, str]:
    """Return the regression, and what its strength was chosen by."""
    num_validation = 0 if validation is None else len(validation.weights)
    if is_wanted(len(examples.weights), num_validation):
        folded = cross_validate(examples, validation, seed=_SEED)
        if folded is not None:
            chosen_by = "folds" if validation is None else "both"
            return fit(examples, folded.strength), chosen_by
    chosen_by = "default" if validation is None else "validation"
    return fit_best(examples, validation), chosen_by
