"""The images of a run into its store: all of them, and of every class some to learn from."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from plstore.errors import InputError
from plstore.exchange import Source, import_source
from plstore.exchange.intake import Shows
from plstore.images import UNSTORED
from plstore.query import run_query
from plstore.schema import ACCEPTED, EVALUATION, FILE_GONE, SPLITS
from plstore.store import Store

Outputs = dict[str, Any]
_IDS_NAMED: Final = 20
_FROM_FOLDERS: Final = f"^({'|'.join(SPLITS)})/."


def import_for_run(store: Store, source: Source, *, max_pixels: int, display: Shows) -> Outputs:
    """Import the images of a run; return the version of `images` and what is in it.

    Raises:
        InputError: If the store has other images too, or none of a split or class that a run
            needs was accepted.
    """
    kept = check_store_is_its_own(store, source)
    imported = import_source(store, source, display, max_pixels=max_pixels)
    counts = _counts(store, source.dataset)
    _check_imported(store, counts["splits"])
    unread = {name: n for name in UNSTORED if (n := imported.counts.verdicts[name])}
    verdicts = {what: n for what, n in counts["verdicts"].items() if what != FILE_GONE}
    for what, number in {**imported.remarks, **verdicts, **unread}.items():
        display.say(f"  {what}: {number}")
    for conversion, number in counts["conversions"].items():
        display.say(f"  of these converted, {conversion}: {number}")
    _say_kept(store, kept, display)
    version = store.table("images").version()
    return {
        "images_version": version,
        **counts,
        "unread": unread,
        "not_in_folders": kept.num_rows,
    }


def check_present(store: Store) -> Outputs:
    """Return the version of `images` and what is in it, for a run on what a store has.

    Raises:
        InputError: If none of a split or class that a run needs is there.
    """
    counts = _counts(store, None)
    _check_imported(store, counts["splits"])
    return {"images_version": store.table("images").version(), **counts, "unread": {}}


def check_store_is_its_own(store: Store, source: Source) -> pa.Table:
    """Return the images of a store that have left the folders they came from.

    They are used all the same: the store has their bytes, or they are where they were.

    Raises:
        InputError: If the store has images that are of other folders.
    """
    rows = store.table("images").read(
        columns=["sample_id", "dataset", "key"],
        where=(pc.field("verdict") == ACCEPTED) & (pc.field("split") != EVALUATION),
    )
    if not rows.num_rows:
        return rows
    here = pc.equal(rows["dataset"], source.dataset)
    other = rows.filter(pc.invert(pc.and_(here, _is_in(rows["key"], source.keys()))))
    left = other.slice(0, 0)
    if source.named is not None and other.num_rows:
        is_left = pc.and_(
            pc.match_substring_regex(other["key"], _FROM_FOLDERS),
            pc.invert(_is_in(other["key"], source.named())),
        )
        is_left = pc.and_(is_left, pc.equal(other["dataset"], source.dataset))
        left, other = other.filter(is_left), other.filter(pc.invert(is_left))
    if other.num_rows:
        raise InputError(
            f"{store.root} holds {other.num_rows} images that this recipe's data does not "
            f"name, such as {other['key'][0].as_py()!r}. A run uses all images of its store: "
            "name another --store, or take them out with 'plstore delete'; nothing was imported"
        )
    if left.num_rows:
        _check_folders_are_the_same(store, rows["key"], left["key"])
    return left


def _is_in(keys: pa.ChunkedArray, names: Sequence[str]) -> pa.ChunkedArray:
    return pc.is_in(keys, value_set=pa.array(names, keys.type))


def _check_folders_are_the_same(
    store: Store, keys: pa.ChunkedArray, left: pa.ChunkedArray
) -> None:
    """Stop where all that came from a folder has left it, or all of a class to be learned."""
    before, gone = Counter(_folders(keys)), Counter(_folders(left))
    for folder, number in gone.items():
        if number == before[folder]:
            example = next(key for key in left.to_pylist() if key.startswith(folder))
            raise InputError(
                f"{store.root} holds {number} images of {folder} (such as {example!r}), and "
                "none of them is in the folders now. A run uses all images of its store, and a "
                "store keeps its classes: if these are other folders, name another --store; "
                "else put some back, or take them out with 'plstore delete'; nothing was "
                "imported"
            )


def _folders(keys: pa.ChunkedArray) -> Iterator[str]:
    """Yield the folder that each image came from, and that of its class, if it was labeled."""
    for key in keys.to_pylist():
        split, name, *_ = key.split("/")
        yield f"{split}/"
        if split == "labeled":
            yield f"{split}/{name}/"


def _say_kept(store: Store, left: pa.Table, display: Shows) -> None:
    """Say which images have left the folders and are used, and how they can be left out."""
    excluded = store.table("exclusions").read(columns=["sample_id"])["sample_id"]
    used = left.filter(pc.invert(pc.is_in(left["sample_id"], excluded.combine_chunks())))
    if not used.num_rows:
        return
    ids = used["sample_id"].to_pylist()
    named = ",".join(map(str, ids)) if len(ids) <= _IDS_NAMED else "..."
    display.say(
        f"  no longer in the folders, kept as the store has them: {len(ids)}; first: "
        f"{used['key'][0].as_py()} (plstore exclude --ids {named} leaves them out)"
    )


def _check_imported(store: Store, splits: Mapping[str, int]) -> None:
    why = f"'plstore query run coverage/verdicts --store {store.root}' says why"
    for split in ("labeled", "unlabeled"):
        if not store.count_images(split):
            raise InputError(
                f"none of the {splits.get(split, 0)} {split} images was accepted; {why}"
            )
    where = (pc.field("split") == "labeled") & (pc.field("verdict") == ACCEPTED)
    rows = store.table("images").read(columns=["label"], where=where)
    taught = set(rows["label"].unique().to_pylist())
    lost = [name for number, name in enumerate(store.class_names) if number not in taught]
    if lost:
        raise InputError(
            f"{len(lost)} of {len(store.class_names)} classes have no labeled image that can "
            f"be used: {', '.join(lost)}. Nothing could learn them: add images of these "
            f"classes that can be read; {why}"
        )


def _counts(store: Store, dataset: str | None) -> dict[str, dict[str, int]]:
    # From the store, not from this import: an earlier one may have been stopped half-way.
    counts: dict[str, Counter[str]] = {
        "splits": Counter(),
        "verdicts": Counter(),
        "conversions": Counter(),
    }
    for row in run_query(store, "coverage/verdicts").to_pylist():
        if dataset in {None, row["dataset"]} and row["split"] != EVALUATION:
            counts["splits"][row["split"]] += row["num_images"]
            counts["verdicts"][row["verdict"]] += row["num_images"]
            if row["conversion"] is not None:
                counts["conversions"][row["conversion"]] += row["num_images"]
    return {name: dict(sorted(counter.items())) for name, counter in counts.items()}
