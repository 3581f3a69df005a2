"""What the writers of `benchmarks.kills` do, piece by piece, and what must be there then."""

import io
import itertools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

import plstore
from plstore.codec import Codec
from plstore.errors import CommitConflictError, StoreError
from plstore.images import ImageRecord, import_images
from plstore.labels import (
    LabelBatch,
    LabelSet,
    Member,
    commit_labels,
    make_ensemble,
    write_labels,
)
from plstore.store import Store, add_tag, delete_tag, tags
from plstore.upkeep import collect, compact, correct, corrected_labels, erase, exclude
from plstore.views import find_view
from trainers.evaluation.calibration import calibrate

NUM_WRITERS = 3
NUM_CLASSES = 5
NUM_LABELED = 20
NUM_VALIDATION = 20
NUM_DELETABLE = 600
NUM_KEPT = 300
"""Images that are never deleted: people decide on these."""

GRACE = timedelta(seconds=6)
_PIECES = (
    *("label", "label", "fuse", "calibrate", "select"),
    *("import", "exclude", "correct", "tag"),
)
KINDS = (*_PIECES, "delete", "collect", *_PIECES, "compact", "collect")

_FIRST = NUM_LABELED + NUM_VALIDATION
_IMPORTED = 3
_TAGS_KEPT = 2
_NAMES = [f"class-{n}" for n in range(NUM_CLASSES)]

Ids = npt.NDArray[np.int64]


def make_store(path: Path) -> Store:
    """Return a store of small images, numbered as `_record` says."""
    store = plstore.create(path)
    count = _FIRST + NUM_DELETABLE + NUM_KEPT
    records = (_record(index) for index in range(count))
    import_images(store, records, dataset="noise", class_names=_NAMES)
    return store


def _record(index: int) -> ImageRecord:
    split = "unlabeled"
    if index < _FIRST:
        split = "labeled" if index < NUM_LABELED else "validation"
    label = _NAMES[index % NUM_CLASSES] if index < _FIRST else None
    return ImageRecord(key=f"{index}.png", split=split, data=image([0, index]), label=label)


def image(seed: Sequence[int]) -> bytes:
    """Return an image that no other seed gives."""
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def distributions(writer: int, number: int, ids: Ids) -> LabelBatch:
    """Return what a writer's labeling says of images, the same every time."""
    rng = np.random.default_rng([writer, number])
    probs = rng.dirichlet([0.4] * NUM_CLASSES, 2 * (int(ids.max()) + 1)).astype(np.float32)
    return LabelBatch(sample_ids=ids, probabilities=np.ascontiguousarray(probs[ids]))


def _name(writer: int, number: int) -> str:
    return f"w{writer}-n{number}"


def _ids_of(store: Store, split: str) -> Ids:
    where = (pc.field("split") == split) & (pc.field("dataset") == "noise")
    rows = store.table("images").read(columns=["sample_id"], where=where)
    ids: Ids = np.sort(rows["sample_id"].to_numpy())
    return ids


def _label(store: Store, writer: int, number: int) -> None:
    name = _name(writer, number)
    shards = []
    for split in ("unlabeled", "validation"):
        label_set = LabelSet(iteration=1, teacher_id=name, split=split)
        batch = distributions(writer, number, _ids_of(store, split))
        shards += write_labels(store, label_set, [batch], codec=Codec(), identity=name)
    commit_labels(store, shards, lineage={"step": "label"}, transaction=f"l-{name}")


def _fuse(store: Store, writer: int, number: int) -> None:
    members = [Member(teacher_id=_name(writer, number - n), iteration=1) for n in (2, 1)]
    make_ensemble(store, _name(writer, number), members, iteration=1)


def _calibrate(store: Store, writer: int, number: int) -> None:
    calibrate(store, _name(writer, number - 2), 1)


def _select(store: Store, writer: int, number: int) -> None:
    selection = plstore.Selection(
        view=f"view-{writer}",
        teachers=[f"{_name(writer, number - 3)}@1"],
        balance=plstore.Balance(images_per_class=40, seed=number),
    )
    if find_view(store, _name(writer, number)) is None:
        plstore.select(store, selection, identity=_name(writer, number))


def _import(store: Store, writer: int, number: int) -> None:
    records = [
        ImageRecord(key=key, split="unlabeled", data=image([1, writer, number, n]))
        for n, key in enumerate(imported_keys(writer, number))
    ]
    import_images(store, records, dataset=f"of-{writer}", class_names=_NAMES)


def imported_keys(writer: int, number: int) -> list[str]:
    """Return the names of the images that a piece of work imports."""
    return [f"{_name(writer, number)}-{n}.png" for n in range(_IMPORTED)]


def _delete(store: Store, writer: int, number: int) -> None:
    erase(store, [deleted_id(writer, number)], reason=_name(writer, number), who="benchmark")


def deleted_id(writer: int, number: int) -> int:
    """Return the image that a piece of work deletes: after some hundreds, one that is gone."""
    return _FIRST + (NUM_WRITERS * (number // len(KINDS)) + writer) % NUM_DELETABLE


def decided_id(writer: int, number: int) -> int:
    """Return the image that a piece of work decides on: each writer has its own."""
    turn = number // len(KINDS) % (NUM_KEPT // NUM_WRITERS)
    return _FIRST + NUM_DELETABLE + NUM_WRITERS * turn + writer


def _exclude(store: Store, writer: int, number: int) -> None:
    exclude(store, [decided_id(writer, number)], reason=_name(writer, number), who="benchmark")


def _correct(store: Store, writer: int, number: int) -> None:
    correct(store, {decided_id(writer, number): decided_class(number)}, who="benchmark")


def decided_class(number: int) -> str:
    """Return the class that a piece of work gives to its image."""
    return _NAMES[number // len(KINDS) % NUM_CLASSES]


def _tag(store: Store, writer: int, number: int) -> None:
    known = {tag.name for tag in tags(store)}
    old = f"t-{_name(writer, number - _TAGS_KEPT * len(KINDS))}"
    if old in known:
        delete_tag(store, old)
    if f"t-{_name(writer, number)}" not in known:
        add_tag(store, f"t-{_name(writer, number)}")


def _compact(store: Store, _: int, __: int) -> None:
    compact(store)


def _collect(store: Store, _: int, __: int) -> None:
    collect(store, grace=GRACE)


_WORK: dict[str, Callable[[Store, int, int], None]] = {
    "label": _label,
    "fuse": _fuse,
    "calibrate": _calibrate,
    "select": _select,
    "import": _import,
    "exclude": _exclude,
    "delete": _delete,
    "correct": _correct,
    "tag": _tag,
    "compact": _compact,
    "collect": _collect,
}


def write_until_killed(
    path: Path, writer: int, last: int, say: Callable[[str], object]
) -> None:
    """Be a writer: go on after what the journal notes, up to a last piece of work."""
    journal = path.parent / f"journal-{writer}"
    lines = journal.read_text().splitlines() if journal.is_file() else []
    number = sum(1 for line in lines if line.endswith("}"))
    store = plstore.open(path)
    say("ready")
    with journal.open("a") as file:
        if lines and not lines[-1].endswith("}"):
            file.write("\n")  # killed while it noted: that piece is done again
        while number < last:
            kind = KINDS[number % len(KINDS)]
            journal.with_name(f"now-{writer}").write_text(kind)
            try:
                _WORK[kind](store, writer, number)
            except CommitConflictError:  # told clearly: tried again
                continue
            except StoreError as error:
                if "too short a grace" not in str(error):
                    raise
                continue
            file.write(json.dumps({"number": number, "kind": kind}) + "\n")
            file.flush()
            number += 1


def count(store: Store, noted: Sequence[tuple[int, int]]) -> dict[str, int]:
    """Return how many rows of work that was noted are missing or wrong, and how many repeated.

    Args:
        store: After the last piece of work.
        noted: All pieces, as (writer, number).
    """
    pieces = {kind: [p for p in noted if KINDS[p[1] % len(KINDS)] == kind] for kind in KINDS}
    deleted = {deleted_id(*piece) for piece in pieces["delete"]}
    parts = (
        _count_images(store, pieces, deleted),
        _count_labels(store, pieces, deleted),
        _count_decisions(store, pieces),
        _count_views(store, pieces),
    )
    lost, repeated = (sum(values) for values in zip(*parts, strict=True))
    return {"lost_rows": lost, "repeated_rows": repeated}


Pieces = dict[str, list[tuple[int, int]]]


def _count_images(store: Store, pieces: Pieces, deleted: set[int]) -> tuple[int, int]:
    columns = ["sample_id", "dataset", "key"]
    rows = store.table("images").read(columns=columns).to_pylist()
    there = Counter((row["dataset"], row["key"]) for row in rows)
    base = range(_FIRST + NUM_DELETABLE + NUM_KEPT)
    wanted = {("noise", f"{index}.png") for index in base if index not in deleted}
    wanted |= {(f"of-{w}", key) for w, n in pieces["import"] for key in imported_keys(w, n)}
    undeleted = len(deleted & {row["sample_id"] for row in rows})
    extra = sum(there.values()) - len(there) + len(there.keys() - wanted)
    return len(wanted - there.keys()) + undeleted, extra


def _count_labels(store: Store, pieces: Pieces, deleted: set[int]) -> tuple[int, int]:
    columns = ["teacher_id", "split", "sample_id", "class_id", "confidence"]
    rows = store.table("soft_labels").read(columns=columns)
    teachers = Counter(store.table("teachers").read()["teacher_id"].to_pylist())
    base = np.arange(NUM_LABELED, _FIRST + NUM_DELETABLE + NUM_KEPT)
    wanted = np.setdiff1d(base, sorted(deleted))
    lost = repeated = 0
    for writer, number in (*pieces["label"], *pieces["fuse"]):
        name = _name(writer, number)
        found = rows.filter(pc.equal(rows["teacher_id"], name)).sort_by("sample_id")
        ids = found["sample_id"].to_numpy()
        repeated += len(ids) - len(np.unique(ids)) + len(np.setdiff1d(ids, wanted))
        lost += len(np.setdiff1d(wanted, ids))
        if (writer, number) in pieces["fuse"]:
            lost, repeated = lost + (not teachers[name]), repeated + max(teachers[name] - 1, 0)
        elif len(ids) and len(ids) == len(np.unique(ids)):
            lost += _wrong(found, writer, number)
    return lost, repeated


def _wrong(found: pa.Table, writer: int, number: int) -> int:
    ids = found["sample_id"].to_numpy()
    wrong = 0
    held_out = pc.equal(found["split"], "validation").to_numpy(zero_copy_only=False)
    for members in (held_out, ~held_out):
        if members.any():
            probs = distributions(writer, number, ids[members]).probabilities
            right = found["class_id"].to_numpy()[members] == probs.argmax(axis=1)
            right &= found["confidence"].to_numpy()[members] == probs.max(axis=1)
            wrong += int((~right).sum())
    return wrong


def _count_decisions(store: Store, pieces: Pieces) -> tuple[int, int]:
    excluded = Counter(store.table("exclusions").read()["sample_id"].to_pylist())
    wanted = {decided_id(*piece) for piece in pieces["exclude"]}
    lost = len(wanted - excluded.keys())
    repeated = sum(excluded.values()) - len(excluded)
    classes = dict(enumerate(store.class_names))
    found = {sample_id: classes[label] for sample_id, label in corrected_labels(store).items()}
    last = {decided_id(w, n): decided_class(n) for w, n in sorted(pieces["correct"])}
    lost += sum(found.get(sample_id) != name for sample_id, name in last.items())
    known = {tag.name for tag in tags(store)}
    for _, own in itertools.groupby(sorted(pieces["tag"]), key=lambda piece: piece[0]):
        lost += sum(f"t-{_name(w, n)}" not in known for w, n in list(own)[-_TAGS_KEPT:])
    runs = Counter(
        (row["run"], row["name"])
        for row in store.table("runs").read().to_pylist()
        if row["name"].startswith("calibration/")
    )
    calibrated = {_name(w, n - 2) for w, n in pieces["calibrate"]}
    lost += len(calibrated - {run for run, _ in runs})
    return lost, repeated + sum(runs.values()) - len(runs)


def _count_views(store: Store, pieces: Pieces) -> tuple[int, int]:
    views = Counter(store.table("views").read()["identity"].to_pylist())
    lost = repeated = 0
    for piece in pieces["select"]:
        view = find_view(store, _name(*piece))
        lost += 1 if view is None else min(view.num_deleted, 0)
        repeated += max(views[_name(*piece)] - 1, 0)
    return lost, repeated


def bytes_left(store: Store, noted: Sequence[tuple[int, int]]) -> int:
    """Return how many deleted images have their bytes in some file of the store."""
    deleted = {deleted_id(w, n) for w, n in noted if KINDS[n % len(KINDS)] == "delete"}
    contents = b"\0".join(p.read_bytes() for p in store.root.rglob("*") if p.is_file())
    return sum(image([0, index]) in contents for index in deleted)
