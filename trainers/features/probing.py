"""A probe: a frozen backbone with a logistic regression for its classifier, kept as a model.

Labeled images count as often as the view draws them; all pseudo-labeled ones together weigh
`method.ratio` times as much, with their hard or soft labels. The strength of the regression is
the one with the lowest loss on the validation images; where those are few, and the probe learns
from labeled images alone, on these too, each held out once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from plstore.codec import decode
from plstore.embeddings import EmbeddingSet, of_images, read_embeddings
from plstore.errors import InputError
from plstore.labels import TeacherRecord, add_teacher, find_teacher
from plstore.loaders import open_split
from plstore.loaders.work import Backend
from plstore.store import Store
from plstore.views import View
from trainers.events import Teller
from trainers.features.doubts import keep_folds
from trainers.features.embedding import Backbone, embed, open_backbone
from trainers.features.folds import Folded, cross_validate, is_wanted
from trainers.models.linear import Examples, Linear, fit, fit_best
from trainers.models.model import EMBEDDINGS, build_model, fetch_bundle, keep_bundle
from trainers.recipe import Recipe
from trainers.training.keeping import Place

STRENGTH: Final = "probe/strength"
VALIDATION: Final = "probe/validation_accuracy"
FOLDS: Final = "probe/folds_accuracy"

_SPLITS: Final = ("labeled", "validation")
_SAME: Final = 1e-3


@dataclass(frozen=True, kw_only=True)
class Probing:
    """What to fit.

    Attributes:
        recipe: The run's.
        iteration: Of the model; its settings are those that the recipe has for it.
        view: What to fit on.
        corrections: Version of what people corrected, for validation.
        device: "cpu" or a CUDA device.
        backend: Of the loader.
    """

    recipe: Recipe
    run: Recipe
    iteration: int
    view: View
    corrections: int
    device: str
    backend: Backend


def probe_and_keep(
    store: Store, probing: Probing, place: Place, teller: Teller
) -> TeacherRecord:
    """Fit a probe and keep it; one that is kept is not fitted again."""
    known = find_teacher(store, place.teacher_id)
    if known is not None and known.checkpoint and known.checkpoint_hash:
        fetch_bundle(store, known.checkpoint, known.checkpoint_hash)  # or says that it is gone
        return known
    model = probing.recipe.model_of(probing.iteration)
    architecture = model.architecture
    backbone = open_backbone(model, architecture, device=probing.device)
    rows = _rows(probing.view, soft=probing.recipe.method.targets == "soft")
    splits = (*_SPLITS, "unlabeled") if rows.is_pseudo.any() else _SPLITS
    embed(store, backbone, splits=splits, backend=probing.backend, on_event=teller.tell)
    fitted = _fit(store, backbone, rows, probing)
    teller.say(f"  {fitted.said(place.title)}")
    if fitted.folded is not None and place.role == "teacher":
        keep_folds(store, fitted.folded, rows.sample_ids, place)
    network = _with_head(probing, architecture, backbone, fitted.linear)
    checkpoint, digest = keep_bundle(
        store, place.teacher_id, network, backbone.format, store.class_names
    )
    record = TeacherRecord(
        teacher_id=place.teacher_id,
        iteration=place.iteration,
        role=place.role,
        architecture=architecture,
        checkpoint=checkpoint,
        checkpoint_hash=digest,
        preprocessing=vars(backbone.format),
        metrics={EMBEDDINGS: backbone.name, **fitted.metrics},
        view=probing.view.record.view,
        view_version=probing.view.record.version,
        recipe=probing.run.model_dump(mode="json"),
        recipe_hash=probing.run.hash,
        seed=probing.run.seed,
    )
    add_teacher(store, record, identity=place.identity, step=place.step)
    return record


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Images of a view, their targets, how often it draws them, and what a draw weighs."""

    sample_ids: npt.NDArray[np.int64]
    is_pseudo: npt.NDArray[np.bool_]
    targets: npt.NDArray[np.float32]
    draws: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class _Fitted:
    """A regression, with what it was chosen by."""

    linear: Linear
    folded: Folded | None
    validation: Examples | None

    @property
    def metrics(self) -> dict[str, Any]:
        """What is kept with the model."""
        metrics: dict[str, Any] = {STRENGTH: self.linear.strength}
        if self.validation is not None:
            metrics[VALIDATION] = self.validation.accuracy(self.linear)
        if self.folded is not None:
            metrics[FOLDS] = self.folded.accuracy
        return metrics

    def said(self, title: str) -> str:
        """Say how good it is, and how strong its coefficients may be."""
        found = []
        if self.validation is not None:
            count = len(self.validation.weights)
            found.append(f"{self.metrics[VALIDATION]:.2f} % of {count} validation images")
        if self.folded is not None:
            count = len(self.folded.rows)
            found.append(
                f"{self.folded.accuracy:.2f} % of {count} labeled ones, held out in turn"
            )
        right = " and ".join(found) or "no image to measure it on"
        strength = f"{self.linear.strength:g}"
        return f"{title}: {right}; penalty on its weights 1 / {strength} (C = {strength})"


def _fit(store: Store, backbone: Backbone, rows: "_Rows", probing: Probing) -> _Fitted:
    """Fit it at the strength that validation chooses, or held-out images too if it is small."""
    examples = _examples(store, backbone, rows, probing)
    validation = _validation(store, backbone, probing)
    num_validation = 0 if validation is None else len(validation.weights)
    folded = None
    if not rows.is_pseudo.any() and is_wanted(len(rows.sample_ids), num_validation):
        folded = cross_validate(examples, validation, seed=probing.recipe.seed)
    if folded is None:
        return _Fitted(
            linear=fit_best(examples, validation), folded=None, validation=validation
        )
    linear = fit(examples, folded.strength)
    return _Fitted(linear=linear, folded=folded, validation=validation)


def _rows(view: View, *, soft: bool) -> _Rows:
    num_classes = len(view.store.class_names)
    table = view.store.table("view_rows")
    columns = ["sample_id", "kind", "class_id", "copies", "weight", "label"]
    rows = table.dataset_of(view.shards()).to_table(columns=columns).combine_chunks()
    is_pseudo = np.array(rows["kind"].to_pylist()) == "pseudo"
    targets = np.eye(num_classes, dtype=np.float32)[rows["class_id"].to_numpy()]
    if soft and is_pseudo.any():
        labels = rows["label"].combine_chunks().filter(is_pseudo)
        targets[is_pseudo] = decode(labels, num_classes)
    return _Rows(
        sample_ids=rows["sample_id"].to_numpy(),
        is_pseudo=is_pseudo,
        targets=targets,
        draws=rows["copies"].to_numpy().astype(np.float32),
        weights=rows["weight"].fill_null(1).to_numpy(),  # null in files of before 0.5
    )


def _examples(store: Store, backbone: Backbone, rows: _Rows, probing: Probing) -> Examples:
    vectors = _vectors(store, backbone, ("labeled", "unlabeled"), rows.sample_ids)
    weights = rows.draws * rows.weights
    if rows.is_pseudo.any():  # by the number of draws, as in `trainers.training.losses`
        labeled = rows.draws[~rows.is_pseudo].sum()
        pseudo = rows.draws[rows.is_pseudo].sum()
        weights[rows.is_pseudo] *= probing.recipe.method.ratio * labeled / pseudo
    return Examples(vectors=vectors, targets=rows.targets, weights=weights)


def _validation(store: Store, backbone: Backbone, probing: Probing) -> Examples | None:
    version = probing.view.record.pins["images"]
    if not store.count_images("validation", version=version):
        return None
    images = open_split(store, "validation", version=version, corrections=probing.corrections)
    ids = images.sample_ids
    targets = np.eye(len(store.class_names), dtype=np.float32)[images.class_ids]
    return Examples(
        vectors=_vectors(store, backbone, ("validation",), ids),
        targets=targets,
        weights=np.ones(len(ids), np.float32),
    )


def _vectors(
    store: Store, backbone: Backbone, splits: Sequence[str], ids: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    sets = [EmbeddingSet(model=backbone.name, split=split) for split in splits]
    wanted = np.sort(ids)
    return of_images([b for of in sets for b in read_embeddings(store, of, only=wanted)], ids)


def _with_head(
    probing: Probing, architecture: str, backbone: Backbone, linear: Linear
) -> nn.Module:
    """Return the backbone's model with the regression for its classifier.

    Raises:
        InputError: If its classifier is no linear layer on its embeddings.
    """
    model = probing.recipe.model_of(probing.iteration)
    network = build_model(model, architecture, len(linear.bias)).eval()
    layer = network.get_classifier()  # type: ignore[operator]  # timm models have it
    if not isinstance(layer, nn.Linear) or layer.weight.shape != linear.weight.shape:
        raise InputError(
            f"the classifier of {architecture!r} is {type(layer).__name__}; a probe wants a "
            "linear layer on the pooled features. Choose another --model"
        )
    with torch.no_grad():
        layer.weight.copy_(linear.weight)
        layer.bias.copy_(linear.bias)
    _check_same(network, backbone, linear)
    return network


def _check_same(network: nn.Module, backbone: Backbone, linear: Linear) -> None:
    """Check that the model gives what the regression gives: else something lies between."""
    size, channels = backbone.format.size, backbone.format.channels
    images = torch.arange(channels * size * size).reshape(1, channels, size, size) % 251
    pixels = backbone.format.normalise(images.to(torch.uint8).to(backbone.device))
    with torch.inference_mode():
        probs = torch.softmax(network.to(backbone.device)(pixels).float(), dim=1).cpu()
    expected = linear.probabilities(backbone.embed(images.to(torch.uint8).to(backbone.device)))
    if np.abs(probs.numpy() - expected).max() > _SAME:
        raise InputError(
            "the model does more between its pooled features and its classifier than a probe "
            "can stand for; choose another --model"
        )
