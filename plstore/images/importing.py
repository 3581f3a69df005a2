"""Images into the store: a verdict for each, a number for each, in order, once."""

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from plstore.errors import InputError
from plstore.fingerprint import value_hash
from plstore.images.committing import Portion
from plstore.images.known import NO_LABEL, KnownImage, KnownImages
from plstore.images.looking import Looked, Looking
from plstore.images.records import UNSTORED, ImageRecord, ImportCounts, UnreachableError
from plstore.images.verdict import DEFAULT_MAX_PIXELS, Verdict, large_images_are_verdicts
from plstore.schema import ACCEPTED, EVALUATION, SPLITS

if TYPE_CHECKING:
    from plstore.store import Store

_SHARD_ROWS = 8192
_SHARD_BYTES = 256 << 20
_NAMES = ("label", "truth")


@dataclass(frozen=True, kw_only=True)
class Intake:
    """What an import rests on; see `prepare_import`.

    Attributes:
        known: What the store has.
        looking: Who reads and judges the images.
        once: Whether labeled images that another dataset has, with the same label, are left
            out and counted as `elsewhere`.
    """

    known: KnownImages
    looking: Looking
    once: bool = False


def prepare_import(
    store: "Store", dataset: str, *, max_pixels: int = DEFAULT_MAX_PIXELS, once: bool = False
) -> Intake:
    """Ask the store what it has of a dataset, for steps between a source and its import."""
    known = KnownImages.read(store, dataset)
    return Intake(known=known, looking=Looking(max_pixels=max_pixels), once=once)


def import_images(
    store: "Store",
    records: Iterable[ImageRecord],
    *,
    dataset: str,
    class_names: Sequence[str],
    max_pixels: int = DEFAULT_MAX_PIXELS,
    in_place: bool = False,
    on_progress: Callable[[int], None] = lambda _: None,
    intake: Intake | None = None,
) -> ImportCounts:
    """Import images; those already there, by dataset and key, are skipped.

    Images are numbered in the order they come, written file by file and committed every half a
    minute, or 256 files, so an import that was stopped goes on from there. It holds 64 MiB of
    files, or one larger one, besides the shard to be written; of an image that is there, about
    a hundred bytes.

    Args:
        store: Where to.
        records: The images, in an order that is the same every time.
        dataset: Name of the collection; keys are unique in it.
        class_names: The label space; the first import into a store fixes it.
        max_pixels: Images of more pixels are refused.
        in_place: Keep where images are, their size and their hash, but not their bytes. The
            files must stay there, unchanged.
        on_progress: Called with the number of images just finished.
        intake: What `prepare_import` returned, where that was asked before; it has its own
            limit of pixels.

    Raises:
        InputError: If a class or split is unknown, a key is there with other contents,
            images to be left in place are not files of their own, or a remote store does not
            answer.
        CommitConflictError: If another import ran at the same time; run it again.
    """
    composed = (unicodedata.normalize("NFC", name) for name in class_names)
    class_ids = {name: number for number, name in enumerate(composed)}
    if store.table("classes").dataset().count_rows() or len(class_ids) != len(class_names):
        class_ids = store.ensure_classes(class_names)  # else with the first images
    if intake is None:
        intake = prepare_import(store, dataset, max_pixels=max_pixels)
    writer = _Writer(store, intake, class_ids, in_place=in_place)
    with large_images_are_verdicts():
        try:
            for seen in intake.looking.all(records, writer.asks):
                on_progress(1)
                writer.take(seen)
        except UnreachableError:  # what was seen before is sound, and is not read again
            writer.finish()
            raise
        except Exception:
            writer.portion.commit()
            raise
    writer.finish()
    return writer.counts


class _Writer:
    """Numbers images, writes them file by file and commits them portion by portion."""

    def __init__(
        self, store: "Store", intake: Intake, class_ids: dict[str, int], *, in_place: bool
    ) -> None:
        self.counts = ImportCounts()
        self.portion = Portion(store, intake.known.dataset)
        self._store = store
        self._known = intake.known
        self._once = intake.once
        self._dataset = intake.known.dataset
        self._max_pixels = intake.looking.max_pixels
        self._in_place = in_place
        self._class_ids = (
            class_ids  # the store's, or as the import orders them until it has any
        )
        self._fixed_ids: dict[str, int] = {}
        self._class_names = {number: name for name, number in class_ids.items()}
        self._first_id = self._next_id = store.next_sample_id()
        self._truths_noted: set[int] = set()
        self._rows: list[dict[str, Any]] = []
        self._truths: list[dict[str, Any]] = []
        self._num_bytes = 0

    def asks(self, record: ImageRecord, content: str | None) -> bool:
        """Return whether an image is to be judged: it may be new."""
        known = self._known
        is_deleted = known.is_deleted(record.key) or known.are_deleted(content)
        return known.find(record.key) is None and not is_deleted

    def take(self, seen: Looked) -> None:
        """Count one image, and keep it if it is new."""
        known = self._known.find(seen.record.key)
        if seen.verdict is not None and seen.verdict.verdict in UNSTORED:
            self.counts.verdicts[seen.verdict.verdict] += 1
        elif self._known.is_deleted(seen.record.key):
            self.counts.deleted += 1
            self.counts.first_deleted = self.counts.first_deleted or seen.record.key
        elif known is not None:
            self._meet_again(seen.record, known, seen.content)
        elif self._known.are_deleted(seen.content):
            self._count_copy(seen)
        elif seen.verdict is not None:
            self._add(seen, seen.verdict)

    def _count_copy(self, seen: Looked) -> None:
        """Count an image whose very bytes were deleted; of the first, say under which name."""
        if not self.counts.deleted_copies:
            rows = self._store.table("deletions").read(
                columns=["key"], where=pc.field("content_hash") == seen.content
            )
            self.counts.first_copy = (seen.record.key, rows["key"][0].as_py())
        self.counts.deleted_copies += 1

    def _changes(
        self, record: ImageRecord, known: KnownImage, content: str | None
    ) -> list[str]:
        """Say in what an image differs from the one of its name that the store holds."""
        label = (
            None
            if record.label is None
            else self._class_ids.get(unicodedata.normalize("NFC", record.label))
        )
        stored = {
            "contents": known.content,
            "split": SPLITS[known.split],
            "label": None if known.label == NO_LABEL else known.label,
        }
        found = {"contents": content, "split": record.split, "label": label}
        changed = [f"{k} {stored[k]}, now {found[k]}" for k in found if stored[k] != found[k]]
        if 0 < known.num_pixels <= self._max_pixels:
            changed.append(f"refused for its {known.num_pixels} pixels, now within the limit")
        return changed

    def _meet_again(self, record: ImageRecord, known: KnownImage, content: str | None) -> None:
        if changed := self._changes(record, known, content):
            raise InputError(
                f"image {record.key!r} of dataset {self._dataset!r} is in the store with "
                f"{'; '.join(changed)}. Use a new store to change it; if these are other "
                "images that happen to have the same names, give them a name of their own by "
                "--dataset, and name only what is new: plstore import images --unlabeled "
                "FOLDER --dataset NAME"
            )
        self.counts.already_there += 1
        if not self._has_truth(known.sample_id):  # stopped between images and truth
            self._note_truth(record, known.sample_id)
            self._truths_noted.add(known.sample_id)

    def _has_truth(self, sample_id: int) -> bool:
        is_ours = sample_id >= self._first_id or sample_id in self._truths_noted
        return is_ours or self._known.has_truth(sample_id)

    def _add(self, seen: Looked, verdict: Verdict) -> None:
        row = _row(seen, verdict, self._class_ids)
        if self._in_place:
            row["image"] = {"bytes": None, "path": _place(seen.record)}
        others = self._other_labels(row)
        is_test_set = row["split"] == EVALUATION  # its copies elsewhere are not trained on
        if self._once and not is_test_set and row["label"] in others["elsewhere"]:
            self.counts.elsewhere += 1
            return
        self.counts.contradicting += any(
            set(found) - {row["label"]} for found in others.values()
        )
        row |= {"sample_id": self._next_id, "dataset": self._dataset}
        self._note_truth(seen.record, self._next_id)
        self._rows.append(row)
        self._known.add(row["key"], _known(row, self._class_ids))
        self._next_id += 1
        self._num_bytes += 0 if self._in_place else len(verdict.data or b"")
        self.counts.verdicts[verdict.verdict] += 1
        self.counts.splits[row["split"]] += 1
        if verdict.conversion is not None:
            self.counts.conversions[verdict.conversion] += 1
        if len(self._rows) >= _SHARD_ROWS or self._num_bytes >= _SHARD_BYTES:
            self._write()
            if self.portion.is_due:
                self.portion.commit()

    def _other_labels(self, row: dict[str, Any]) -> dict[str, list[str]]:
        """Return the class names of labeled images with the same bytes, here and elsewhere."""
        found: dict[str, list[str]] = {"here": [], "elsewhere": []}
        if row["label"] is None or row["verdict"] != ACCEPTED:
            return found
        for label, here in self._known.labels_of(row["content_hash"]):
            found["here" if here else "elsewhere"].append(self._class_names[label])
        return found

    def _note_truth(self, record: ImageRecord, sample_id: int) -> None:
        if record.truth is not None:
            name = _class_name(record.truth, self._class_ids, record.key)
            self._truths.append({"sample_id": sample_id, "label": name})

    def finish(self) -> None:
        """Write and commit what is left."""
        self._write()
        self.portion.commit()

    def _write(self) -> None:
        if not (self._rows or self._truths):
            return
        class_ids = self._fixed_ids or self._store.ensure_classes(list(self._class_ids))
        self._fixed_ids = class_ids  # from the first flush on they are the store's for good
        for row in (*self._rows, *self._truths):  # by name: another import may have been first
            row["label"] = None if row["label"] is None else class_ids[row["label"]]
        if self._rows:
            first = self._rows[0]["sample_id"]
            images = [(row["key"], row["content_hash"]) for row in self._rows]
            identity = value_hash({"dataset": self._dataset, "images": images})
            self.portion.write("images", self._rows, f"{first:012d}-{identity}")
        if self._truths:
            truths = value_hash({"truths": self._truths})
            self.portion.write("truth", self._truths, truths)
        self._rows, self._truths, self._num_bytes = [], [], 0


def _place(record: ImageRecord) -> str:
    if record.place is None:
        raise InputError(
            f"image {record.key!r} is no file of its own, so it cannot be left in place; "
            "import it with its bytes"
        )
    return record.place


def _class_name(name: str, class_ids: dict[str, int], key: str) -> str:
    """Return a class name as the store spells it."""
    composed = unicodedata.normalize("NFC", name)
    if composed not in class_ids:
        raise InputError(
            f"image {key!r} has the class {name!r}; the store's classes are "
            f"{', '.join(class_ids)}"
        )
    return composed


def _row(seen: Looked, verdict: Verdict, class_ids: dict[str, int]) -> dict[str, Any]:
    """Return an image's row; its label is still a name."""
    record = seen.record
    if record.split not in SPLITS:
        raise InputError(
            f"image {record.key!r} has the split {record.split!r}; wanted one of "
            f"{', '.join(SPLITS)}"
        )
    label = None if record.label is None else _class_name(record.label, class_ids, record.key)
    if label is None and record.split != "unlabeled" and verdict.verdict == ACCEPTED:
        raise InputError(f"image {record.key!r} of split {record.split!r} has no label")
    return {
        "key": record.key,
        "split": record.split,
        "label": label,
        "image": {"bytes": verdict.data, "path": record.key},
        "width": verdict.width,
        "height": verdict.height,
        "num_bytes": seen.num_bytes,
        "content_hash": seen.content,
        "verdict": verdict.verdict,
        "conversion": verdict.conversion,
    }


def _known(row: dict[str, Any], class_ids: dict[str, int]) -> KnownImage:
    """Return what a later image of the same name is compared with."""
    content = int(row["content_hash"] or "0", 16)
    too_large = row["verdict"] == "over_pixel_limit"
    return KnownImage(
        content_high=content >> 64,
        content_low=content & (1 << 64) - 1,
        sample_id=row["sample_id"],
        label=NO_LABEL if row["label"] is None else class_ids[row["label"]],
        split=SPLITS.index(row["split"]),
        accepted=row["verdict"] == ACCEPTED,
        num_pixels=row["width"] * row["height"] if too_large else 0,
    )
