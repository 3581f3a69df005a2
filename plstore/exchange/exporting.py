"""A view, or a teacher's labels, written for other tools: by what people call it."""

from collections.abc import Callable
from pathlib import Path

from plstore.errors import InputError
from plstore.exchange.exports import Exported, Kind, export_labels, export_view
from plstore.labels import find_label_sets
from plstore.store import AsOf, Store, resolve
from plstore.views import open_view


def export(
    store: Store,
    what: str,
    folder: str | Path,
    *,
    kind: Kind = "parquet",
    split: str = "unlabeled",
    as_of: AsOf = None,
    on_images: Callable[[int], None] = lambda _: None,
) -> Exported:
    """Write a view, or a teacher's labels with their images, to a new folder.

    Args:
        store: The store.
        what: ``VIEW[@VERSION]`` or ``TEACHER[@ITERATION]``.
        folder: New, or empty.
        kind: `datasets`, `parquet`, `webdataset` or `folder`.
        split: Of a teacher's labels.
        as_of: Snapshot of labels; see `plstore.store.AsOf`. A view is the same at all times.
        on_images: Called with the number of images just written.

    Raises:
        InputError: If there is nothing of that name, or the folder is not empty.
    """
    name, _, number = what.partition("@")
    if number and not number.isdigit():
        raise InputError(f"{what!r}; wanted VIEW[@VERSION] or TEACHER[@ITERATION]")
    wanted = int(number) if number else None
    views = set(store.table("views").read(columns=["view"])["view"].to_pylist())
    if name in views:
        if as_of is not None:
            raise InputError(f"view {name!r} is the same at all times; --as-of is for labels")
        return export_view(
            open_view(store, name, wanted), Path(folder), kind, on_images=on_images
        )
    pins = resolve(store, as_of)
    sets = find_label_sets(store, name, iteration=wanted, version=pins["soft_labels"])
    found = [s for s in sets if s.split == split]
    if not found:
        raise InputError(f"teacher {name!r} has no labels of split {split!r}")
    return export_labels(store, found[0], Path(folder), kind, pins=pins, on_images=on_images)
