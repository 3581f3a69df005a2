"""What a store lacks that a question is about, and the command that makes it.

An empty answer may mean that nothing is so, or that nothing was looked at yet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from plstore.labels import label_sets
from plstore.query.tables import snapshot_of, tables_in
from plstore.store import AsOf, Store

_MADE_BY: Final[dict[str, tuple[str, str]]] = {
    "images": ("images", "plstore import, or plstore run"),
    "truth": ("true labels of unlabeled images", "imports that know them, such as of idx"),
    "teachers": ("teachers", "plstore run, plstore train or plstore import predictions"),
    "soft_labels": ("soft labels", "plstore run, plstore label or plstore import predictions"),
    "perturbed_labels": ("labels of perturbed images", "plstore evaluate --corruptions"),
    "accepted_classes": ("classes that count as right", "plstore import test-set, or answers"),
    "embeddings": ("embeddings", "plstore embed"),
    "views": ("views", "plstore run, or plstore select"),
    "view_labels": (
        "labels of views",
        "plstore run with label.views, or plstore train with it",
    ),
    "runs": ("measurements", "plstore run, plstore train or plstore evaluate"),
}
_SAME: Final = {"view_rows": "views"}


@dataclass(frozen=True, kw_only=True)
class Need:
    """Soft labels without which a query has nothing to say.

    Attributes:
        splits: Of the images: of one of these.
        iterations: How many must have labeled them.
    """

    splits: tuple[str, ...]
    iterations: int = 1


def what_is_missing(
    store: Store, sql: str, *, as_of: AsOf = None, needs: Sequence[Need] = ()
) -> list[str]:
    """Return a line for each thing that a query reads and a snapshot has none of.

    Decisions of people (exclusions, corrections, deletions) may be none: nothing lacks there.

    Args:
        store: The store.
        sql: The query.
        as_of: The snapshot; see `plstore.store.AsOf`.
        needs: Soft labels that it needs in particular.
    """
    named = [name for name in tables_in(sql) if name in _MADE_BY or name in _SAME]
    if "accepted(" not in sql:  # for others it only adds to what they know
        named = [name for name in named if name != "accepted_classes"]
    pins = snapshot_of(store, as_of, ["images", *named])
    empty = {
        _SAME.get(name, name)
        for name in ("images", *named)
        if name not in store.tables or not store.table(name).shards(pins[name])
    }
    if "images" in empty:
        return [_line("images", as_of)]
    lines = [_line(name, as_of) for name in _MADE_BY if name in empty]
    if "soft_labels" in named and "soft_labels" not in empty:
        lines += _unmet(store, pins["soft_labels"], needs, as_of)
    return lines


def _line(name: str, as_of: AsOf, of: str = "") -> str:
    what, how = _MADE_BY[name]
    when = "yet" if as_of is None else f"as of {as_of}"
    when = "in this snapshot" if isinstance(as_of, Mapping) else when
    return f"no {what}{of} {when}: {how}"


def _unmet(store: Store, version: int, needs: Sequence[Need], as_of: AsOf) -> list[str]:
    known = label_sets(store, version)
    lines = []
    for need in needs:
        found = sorted({s.iteration for s in known if s.split in need.splits})
        of = f" of {' or '.join(need.splits)} images"
        if not found:
            lines.append(_line("soft_labels", as_of, of))
        elif len(found) < need.iterations:
            lines.append(
                f"soft labels{of} are of iteration {found[0]} alone: there is no other to "
                "compare with; plstore run or plstore label makes more"
            )
    return lines
