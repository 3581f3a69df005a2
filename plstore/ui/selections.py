"""Views of a store: what went in, what did not and why, and how two of them differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from plstore.errors import InputError
from plstore.query.differences import diff_views
from plstore.report.snapshot import Snapshot
from plstore.views import View, open_view

_LIST: Final = """
select view, version, query, num_images, num_draws, mode, created_at
from views order by created_at desc, view, version
"""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A view in the list of all."""

    key: str
    query: str
    num_images: int
    num_draws: int
    created_at: datetime


def list_views(snapshot: Snapshot) -> list[Listed]:
    """Return all views, the newest first."""
    return [
        Listed(
            key=f"{row['view']}@{row['version']}",
            query=row["query"],
            num_images=row["num_images"],
            num_draws=row["num_draws"],
            created_at=row["created_at"],
        )
        for row in snapshot.rows(_LIST)
    ]


def find_view(snapshot: Snapshot, key: str) -> View:
    """Return the view that ``NAME`` or ``NAME@VERSION`` names.

    Raises:
        InputError: If there is none.
    """
    name, at, version = key.rpartition("@")
    if not at:
        return open_view(snapshot.store, key)
    if not version.isascii() or not version.isdigit():
        raise InputError(f"view {key!r}; wanted NAME or NAME@VERSION")
    return open_view(snapshot.store, name, int(version))


@dataclass(frozen=True, kw_only=True)
class ViewCounts:
    """A view in numbers.

    Attributes:
        view: The view.
        num_in: Unlabeled images that it was chosen from; None where nothing tells.
        kept: Pseudo-labeled images.
        labeled: Labeled images.
        draws: Of pseudo-labeled images in one pass.
        dropped: Images by the reason why not, most first.
        by_class: Counts by class, by what is counted: predicted, kept, draws and the like.
        deleted: Images that were deleted since.
        older: Tables that have newer versions than it read, with how many.
    """

    view: View
    num_in: int | None
    kept: int
    labeled: int
    draws: int
    dropped: Mapping[str, int]
    by_class: Mapping[str, Sequence[int]]
    deleted: int
    older: Mapping[str, int]


def counts_of(snapshot: Snapshot, view: View) -> ViewCounts:
    """Return the numbers of a view's record, and what changed since."""
    record = view.record
    counts = record.counts
    dropped = {
        **counts.get("dropped", {}),
        **{f"labeled, {why}": n for why, n in counts.get("labeled_dropped", {}).items()},
    }
    suffix = "_by_class"
    pins = snapshot.pins
    return ViewCounts(
        view=view,
        num_in=counts.get("in"),
        kept=int(counts.get("kept", 0)),
        labeled=record.num_labeled,
        draws=int(counts.get("draws", 0)),
        dropped=dict(sorted(dropped.items(), key=lambda pair: (-pair[1], pair[0]))),
        by_class={
            name.removesuffix(suffix): values
            for name, values in counts.items()
            if name.endswith(suffix)
        },
        deleted=view.num_deleted,
        older={
            name: pins[name] - version
            for name, version in record.pins.items()
            if name in _READ and pins.get(name, version) > version
        },
    )


_READ: Final = ("images", "soft_labels", "exclusions", "corrections", "classes", "deletions")


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How one view differs from another.

    Attributes:
        images: By what became of them: kept, flipped, entered, left.
        flips: Most frequent changes of class: before, after, images.
        entered: Images that entered by class, int64 [classes].
        left: That left.
    """

    images: Mapping[str, int]
    flips: Sequence[tuple[int, int, int]]
    entered: npt.NDArray[np.int64]
    left: npt.NDArray[np.int64]


def differ(snapshot: Snapshot, before: View, after: View) -> Difference:
    """Compare two views by the images that they hold; once for a snapshot."""
    key = ("differ", before.key, after.key)
    rows = snapshot.once(key, lambda: diff_views(before, after))
    images: dict[str, int] = dict.fromkeys(("kept", "flipped", "entered", "left"), 0)
    flips: list[tuple[int, int, int]] = []
    by_class = {name: np.zeros(len(snapshot.class_names), np.int64) for name in images}
    for row in rows.to_pylist():
        images[row["change"]] += row["images"]
        if row["change"] == "flipped":
            flips.append((row["class_before"], row["class_after"], row["images"]))
        side = "class_before" if row["change"] == "left" else "class_after"
        by_class[row["change"]][row[side]] += row["images"]
    flips.sort(key=lambda flip: (-flip[2], flip))
    return Difference(
        images=images, flips=flips, entered=by_class["entered"], left=by_class["left"]
    )


def settings(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return what a view was told, as text."""
    return {
        name.replace("_", " "): ", ".join(map(str, v)) if isinstance(v, list) else str(v)
        for name, v in parameters.items()
    }
