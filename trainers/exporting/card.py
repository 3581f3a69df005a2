"""The README.md of an exported model: a model card, with front matter for the hub."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from huggingface_hub import EvalResult, ModelCardData

from plstore.labels import TeacherRecord
from plstore.schema import ACCEPTED, SPLITS
from plstore.store import Store
from plstore.version import __version__
from trainers.exporting.lineage import Ancestor, lineage_of
from trainers.exporting.loading import how_to_load
from trainers.exporting.measured import Measured, measured
from trainers.models.architectures import variant_of
from trainers.models.model import Bundle

NOT_STATED: Final = "not stated"

_LIBRARIES: Final = {"timm": "timm", "onnx": "onnx", "torch": "pytorch"}
_SHOWN_CLASSES: Final = 20
_SETTINGS: Final = (
    ("name", "recipe"),
    ("method.teacher", "how the teacher learns"),
    ("method.students", "how students learn"),
    ("model.weights", "started from the weights"),
    ("model.pretrained", "started from timm's weights"),
    ("pretrain.steps", "optimizer steps on unlabeled images alone, before"),
    ("train.steps", "optimizer steps"),
    ("train.epochs", "epochs over the labeled images"),
    ("train.labeled_batch", "labeled images a step"),
    ("train.ratio", "pseudo-labeled images for each labeled one"),
    ("optimizer.name", "optimizer"),
    ("optimizer.learning_rate", "learning rate"),
    ("optimizer.weight_decay", "weight decay"),
    ("train.ema_decay", "decay of the average of weights"),
    ("loss.pseudo_labels", "pseudo-labels"),
    ("noise.labeled", "noise on labeled images"),
    ("noise.pseudo", "noise on pseudo-labeled images"),
    ("model.dropout", "dropout"),
    ("model.stochastic_depth", "stochastic depth"),
    ("select.query", "selection query"),
    ("select.policy", "balance of classes"),
    ("select.min_confidence", "floor of confidence"),
    ("select.images_per_class", "images of each class"),
    ("iteration", "changes by iteration"),
)
"""Of a recipe, what a reader of the card asks first, with the words for it."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a card is about.

    Attributes:
        store: Where the model is from; every number is of its newest snapshot.
        teacher: The model's record.
        bundle: The model.
        kind: Of the export.
        largest_difference: Of a probability, when the export was checked.
        data_licence: Of the images; "not stated" unless given.
    """

    store: Store
    teacher: TeacherRecord
    bundle: Bundle
    kind: str
    largest_difference: float
    data_licence: str | None


def write_card(folder: Path, subject: Subject) -> None:
    """Write README.md: data, lineage, recipe, accuracy, limits, loading and licence."""
    store, teacher, kind = subject.store, subject.teacher, subject.kind
    found = measured(store, teacher.teacher_id)
    chain = lineage_of(store, teacher)
    parts = [
        _front(kind, teacher, found, _datasets(store)),
        _title(subject),
        _data(store, subject.bundle, chain[0]),
        _lineage(chain),
        _recipe(teacher),
        _accuracy(found),
        _limits(subject),
        how_to_load(kind, subject.bundle),
        f"## Licence of the data\n\n{subject.data_licence or NOT_STATED}\n",
        f"Written by plstore {__version__}.\n",
    ]
    (folder / "README.md").write_text("\n".join(parts), encoding="utf-8")


def _title(subject: Subject) -> str:
    form = subject.bundle.format
    channels = f"{form.channels} channel{'s' if form.channels > 1 else ''}"
    what = subject.teacher.architecture or type(subject.bundle.network).__name__
    return (
        f"# {subject.teacher.teacher_id}\n\nA classifier of images into "
        f"{len(subject.bundle.class_names)} classes: {what}, for images of {form.size} by "
        f"{form.size} pixels and {channels}, as {subject.kind}. Its largest difference of a "
        f"probability from the model in the store was {subject.largest_difference:.2g}, over "
        "random images in batches of 1, 2 and 7.\n"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return " ".join(text.split()).replace("|", "\\|")


def _front(kind: str, teacher: TeacherRecord, found: Sequence[Measured], datasets: str) -> str:
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=datasets,
            dataset_name=datasets,
            dataset_split=one.split,
            metric_type="accuracy",
            metric_value=one.accuracy,
        )
        for one in found
    ]
    data = ModelCardData(
        library_name=_LIBRARIES[kind],
        pipeline_tag="image-classification",
        tags=["image-classification", "pseudo-labels", "noisy-student", "plstore"],
        model_name=teacher.teacher_id,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _counts(store: Store) -> Counter[tuple[str, str]]:
    """Return accepted images by dataset and split."""
    rows = store.table("images").read(columns=["dataset", "split", "verdict"]).to_pylist()
    return Counter((r["dataset"], r["split"]) for r in rows if r["verdict"] == ACCEPTED)


def _datasets(store: Store) -> str:
    return ", ".join(sorted({dataset for dataset, _ in _counts(store)}))


def _data(store: Store, bundle: Bundle, own: Ancestor) -> str:
    counts, names = _counts(store), bundle.class_names
    rows = [
        [dataset, split, counts[dataset, split]]
        for dataset in sorted({dataset for dataset, _ in counts})
        for split in SPLITS
        if counts[dataset, split]
    ]
    more = f" and {len(names) - _SHOWN_CLASSES} more" if len(names) > _SHOWN_CLASSES else ""
    lines = f"Classes ({len(names)}): {', '.join(names[:_SHOWN_CLASSES])}{more}.\n"
    if own.view is not None:
        record = own.view.record
        lines += (
            f"\nIt was trained on view {own.view.key}: {record.num_labeled} labeled and "
            f"{record.num_images - record.num_labeled} pseudo-labeled images, "
            f"{record.num_draws} draws a pass.\n"
        )
    return (
        "## Data\n\nImages of the store when this was written.\n\n"
        f"{_table(['dataset', 'split', 'images'], rows)}\n{lines}"
    )


def _lineage(chain: Sequence[Ancestor]) -> str:
    head = ["model", "role", "iteration", "architecture", "trained on", "labels of"]
    head += ["recipe", "seed", "plstore", "made (UTC)", "weights"]
    rows = [
        [
            one.teacher.teacher_id,
            one.teacher.role,
            one.teacher.iteration,
            one.teacher.architecture,
            _view_name(one.teacher),
            _labeled_by(one),
            one.teacher.recipe_hash,
            one.teacher.seed,
            one.teacher.code_version,
            one.teacher.created_at.strftime("%Y-%m-%d %H:%M"),
            one.teacher.checkpoint_hash,
        ]
        for one in chain
    ]
    return (
        "## Lineage\n\nThe model, then whoever labeled what it learned from or lent it its "
        "first weights, back to the first. A recipe and weights are named by their hash.\n\n"
        f"{_table(head, rows)}"
    )


def _labeled_by(one: Ancestor) -> str:
    if one.teacher.role == "pretrained":
        return "no one"
    return ", ".join(one.taught_by) or ("people" if one.view else "not known")


def _view_name(teacher: TeacherRecord) -> str | None:
    return None if teacher.view is None else f"{teacher.view}@{teacher.view_version}"


def _recipe(teacher: TeacherRecord) -> str:
    recipe = teacher.recipe
    if recipe is None:
        return "## Recipe\n\nNone is recorded: the model was brought, not trained here.\n"
    rows = [[words, _said(value)] for key, words in _SETTINGS if (value := _at(recipe, key))]
    return (
        f"## Recipe\n\nOf the run, in short; the whole of it is in the table `teachers` of the "
        f"store, hash {teacher.recipe_hash}.\n\n{_table(['setting', 'value'], rows)}"
    )


def _at(recipe: Mapping[str, Any], key: str) -> Any:  # noqa: ANN401  any setting
    value: Any = recipe
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _accuracy(found: Sequence[Measured]) -> str:
    if not found:
        return "## Accuracy\n\nNot measured: `plstore evaluate` does.\n"
    rows = [
        [
            one.split,
            one.num_images,
            one.num_right,
            f"{one.accuracy:.2f}",
            "not known: measured on other images than the store has now"
            if one.interval is None
            else f"{one.interval[0]:.2f} to {one.interval[1]:.2f}",
        ]
        for one in found
    ]
    head = ["split", "images", "right", "accuracy, %", "95 % interval (Wilson), %"]
    return f"## Accuracy\n\nTop-1, of the table `runs`.\n\n{_table(head, rows)}"


def _limits(subject: Subject) -> str:
    form, changed = subject.bundle.format, variant_of(subject.bundle.network).recorded()
    lines = [
        *_ALWAYS,
        (
            f"Images are resized with antialiasing, {form.interpolation}, and cropped to the "
            f"centre ({form.crop_pct:g} of the shorter side); another way to resize changes "
            "what it says."
        ),
    ]
    if subject.teacher.role == "student":
        lines.append(
            "It learned from labels that a model gave: mistakes that its teacher makes often "
            "are likely to be its own."
        )
    if subject.kind == "timm" and changed:
        lines.append(
            f"timm alone does not make this network: config.json says {', '.join(changed)}, "
            "which plstore honours (`plstore predict --checkpoint`, `plstore label "
            "--checkpoint`) and timm leaves out. Export it as onnx or torch for elsewhere."
        )
    return "## Limits\n\n" + "".join(f"- {line}\n" for line in lines)


_ALWAYS: Final = (
    (
        "It knows the classes above and nothing else: any other image gets one of them, and "
        "may get it with high confidence."
    ),
    (
        "Its accuracy is that on images of this store; on images from elsewhere it is not "
        "known. The interval holds chance in the choice of images, and no other doubt. "
        "Validation images may have chosen between models, which flatters the chosen one."
    ),
    "Its probabilities were not calibrated by the export.",
)
