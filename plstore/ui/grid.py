"""Which images a grid shows: filters give ids, and what is said of those is read after."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from plstore.errors import InputError
from plstore.labels import LabelSet
from plstore.report.comparison import KNOWN
from plstore.report.held import (
    Source,
    divergence_source,
    images_source,
    known_source,
    labels_source,
    view_source,
)
from plstore.report.shown import pictures
from plstore.report.snapshot import Snapshot, find_labels, labels_name
from plstore.report.tiles import Tile
from plstore.schema import SPLITS
from plstore.ui.address import Address

PAGE: Final = 60

SORTS: Final = {
    "confidence": "the surest first",
    "-confidence": "the least sure first",
    "margin": "the smallest lead first",
    "entropy": "the most spread first",
    "disagreement": "the most disputed first",
    "id": "as they were imported",
}

_CORRECTED: Final = "sample_id, arg_max(label, decided_at) as label"


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What a grid shows.

    Attributes:
        labels: Whose labels; None for images by themselves.
        split: Of the images; any for "".
        class_id: That the labels say, or that people do where there are none.
        low: Confidence from, not included.
        high: Confidence up to.
        margin: Lead of the first class over the second, at most.
        entropy: At least, in nats.
        against: Labels to compare with, `KNOWN`, or None.
        other_id: The class that these say.
        change: "flipped" for another class than these say, "same" for the same one.
        divergence: From these, at least, in nats.
        verdict: Of the import; accepted unless given.
        excluded: "" for all, "no" or "only".
        corrected: The same.
        view: ``NAME@VERSION`` that must hold the image.
        ids: Images that a query answered, in its order; None for all.
        sort: One of `SORTS`.
        page: From 0.
    """

    labels: LabelSet | None = None
    split: str = ""
    class_id: int | None = None
    low: float | None = None
    high: float | None = None
    margin: float | None = None
    entropy: float | None = None
    against: LabelSet | str | None = None
    other_id: int | None = None
    change: str = ""
    divergence: float | None = None
    verdict: str = "accepted"
    excluded: str = ""
    corrected: str = ""
    view: str = ""
    ids: pa.Array | None = field(default=None, repr=False)
    sort: str = "confidence"
    page: int = 0


def read_filters(snapshot: Snapshot, address: Address) -> Filters:
    """Return the filters that a URL names; what it names wrongly is as if not given."""
    split = address.text("split")
    split = split if split in SPLITS else ""
    name = address.text("labels")
    labels = None if name == "none" else find_labels(snapshot, name, split or "unlabeled")
    sort = address.text("sort", "confidence" if labels else "id")
    classes = snapshot.class_id
    return Filters(
        labels=labels,
        split=split if labels is None else labels.split,
        class_id=classes(address.text("class")),
        low=address.number("low"),
        high=address.number("high"),
        margin=address.number("margin"),
        entropy=address.number("entropy", high=100),
        against=_against(snapshot, address.text("against"), labels),
        other_id=classes(address.text("other")),
        change=address.text("change"),
        divergence=address.number("divergence"),
        verdict=address.text("verdict", "accepted"),
        excluded=address.text("excluded"),
        corrected=address.text("corrected"),
        view=address.text("view"),
        sort=sort if sort in SORTS else "confidence",
        page=address.whole("page", 0) or 0,
    )


def _against(snapshot: Snapshot, name: str, labels: LabelSet | None) -> LabelSet | str | None:
    if labels is None or not name:
        return None
    return KNOWN if name == KNOWN else find_labels(snapshot, name, labels.split)


@dataclass
class _Query:
    """A SELECT of ids, in parts."""

    source: str
    wheres: list[str]
    parameters: dict[str, Any]

    def sql(self, head: str, tail: str = "") -> str:
        where = f" where {' and '.join(self.wheres)}" if self.wheres else ""
        return f"select {head} from {self.source}{where} {tail}"  # noqa: S608  values are parameters

    def reading(self, source: Source, name: str) -> str:
        """Take the parameters of a source; return it under a name."""
        self.parameters |= source.parameters
        return f"{source.sql} as {name}"


def _query(snapshot: Snapshot, filters: Filters) -> _Query:
    query = _Query("", [], {})
    if filters.labels is None:
        source = query.reading(images_source(snapshot), "i")
    else:
        source = _of_labels(snapshot, filters, filters.labels, query)
    if filters.ids is not None:
        place = "i" if filters.labels is None else "l"
        source += f" inner join asked on {place}.sample_id = asked.sample_id"
    _of_images(snapshot, filters, query)
    query.source = source
    return query


def _of_labels(snapshot: Snapshot, filters: Filters, labels: LabelSet, query: _Query) -> str:
    """Add what is asked of labels, and of others beside them; return where they are."""
    limits = {
        "class_id": (filters.class_id, "l.class_id = $class_id"),
        "low": (filters.low, "l.confidence > $low::float"),
        "high": (filters.high, "l.confidence <= $high::float"),
        "margin": (filters.margin, "l.lead <= $margin"),
        "entropy": (filters.entropy, "l.entropy >= $entropy"),
    }
    for name, (value, condition) in limits.items():
        if value is not None:
            query.parameters[name] = value
            query.wheres.append(condition)
    source = query.reading(labels_source(snapshot, labels, "l"), "l")
    return source + _beside(snapshot, filters, labels, query)


def _beside(snapshot: Snapshot, filters: Filters, labels: LabelSet, query: _Query) -> str:
    other = filters.against
    if other is None:
        return ""
    if isinstance(other, LabelSet):
        there = query.reading(labels_source(snapshot, other, "o"), "o")
        joined = f" inner join {there} on l.sample_id = o.sample_id"
        if filters.divergence is not None or filters.sort == "disagreement":
            apart = query.reading(divergence_source(snapshot, labels, other, "d"), "d")
            joined += f" inner join {apart} on l.sample_id = d.sample_id"
        if filters.divergence is not None:
            query.parameters["divergence"] = filters.divergence
            query.wheres.append("d.divergence >= $divergence")
    else:
        known = query.reading(known_source(snapshot), "o")
        joined = f" inner join {known} on l.sample_id = o.sample_id"
    if filters.other_id is not None:
        query.parameters["other_id"] = filters.other_id
        query.wheres.append("o.class_id = $other_id")
    if filters.change in {"flipped", "same"}:
        equal = "<>" if filters.change == "flipped" else "="
        query.wheres.append(f"l.class_id {equal} o.class_id")
    return joined


def _of_images(snapshot: Snapshot, filters: Filters, query: _Query) -> None:
    """Add what is asked of the images themselves."""
    wheres, parameters = query.wheres, query.parameters
    place = "i" if filters.labels is None else "l"
    if filters.labels is None:
        wheres.append("i.verdict = 'accepted'")
        if filters.verdict != "accepted":
            wheres[-1] = "i.verdict <> 'accepted'"
            if filters.verdict != "refused":
                wheres[-1] = "i.verdict = $verdict"
                parameters["verdict"] = filters.verdict
        if filters.split:
            wheres.append("i.split = $split")
            parameters["split"] = filters.split
        if filters.class_id is not None:
            wheres.append("i.label = $class_id")
            parameters["class_id"] = filters.class_id
    for table, wanted in (("exclusions", filters.excluded), ("corrections", filters.corrected)):
        if wanted in {"no", "only"}:
            how = "not in" if wanted == "no" else "in"
            wheres.append(f"{place}.sample_id {how} (select sample_id from {table})")  # noqa: S608
    name, _, version = filters.view.rpartition("@")
    if name and version.isascii() and version.isdigit():
        sizes = {(row["view"], row["version"]): row["num_images"] for row in _views(snapshot)}
        key = (name, int(version))
        source = view_source(snapshot, *key, sizes.get(key, 0))
        parameters |= source.parameters
        wheres.append(f"{place}.sample_id in (select sample_id from {source.sql})")  # noqa: S608


def _views(snapshot: Snapshot) -> list[dict[str, Any]]:
    sql = "select view, version, num_images from views"
    return snapshot.once("view sizes", lambda: snapshot.rows(sql))


def _order(filters: Filters) -> str:
    place = "i" if filters.labels is None else "l"
    last = f"{place}.sample_id"
    if filters.ids is not None:
        return f"asked.place, {last}"
    compared = isinstance(filters.against, LabelSet)
    if filters.labels is None or filters.sort == "id":
        return last
    orders = {
        "confidence": "l.confidence desc",
        "-confidence": "l.confidence",
        "margin": "l.lead",
        "entropy": "l.entropy desc",
        "disagreement": "d.divergence desc" if compared else "l.confidence",
    }
    return f"{orders[filters.sort]}, {last}"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What filters find: how many images, and the ids of one page of them."""

    total: int
    sample_ids: list[int]
    first: int

    @property
    def num_pages(self) -> int:
        """How many pages there are."""
        return -(-self.total // PAGE)


def find_images(snapshot: Snapshot, filters: Filters) -> Found:
    """Return the ids of a page; a page past the last one is the last one."""
    query = _query(snapshot, filters)
    tables = {}
    if filters.ids is not None:
        places = pa.array(range(len(filters.ids)), pa.int64())
        tables["asked"] = pa.table({"sample_id": filters.ids, "place": places})
    total = snapshot.rows(query.sql("count(*) as n"), query.parameters, tables)[0]["n"]
    first = min(filters.page, max(-(-total // PAGE) - 1, 0)) * PAGE
    place = "i" if filters.labels is None else "l"
    tail = f"order by {_order(filters)} limit {PAGE} offset {first}"
    rows = snapshot.table(query.sql(f"{place}.sample_id", tail), query.parameters, tables)
    return Found(total=total, sample_ids=rows["sample_id"].to_pylist(), first=first)


def ids_of(rows: pa.Table) -> pa.Array:
    """Return the images that rows of a query name, each once, in its order.

    Raises:
        InputError: If the query has no column sample_id of whole numbers.
    """
    if "sample_id" not in rows.column_names:
        raise InputError(
            f"the query answers {', '.join(rows.column_names)}; wanted a column sample_id, to "
            "show its images"
        )
    ids = [i for i in rows["sample_id"].to_pylist() if isinstance(i, int)]
    return pa.array(list(dict.fromkeys(ids)), pa.int64())


def tiles(snapshot: Snapshot, filters: Filters, sample_ids: Sequence[int]) -> list[Tile]:
    """Return what is said of some images, in their order."""
    if not sample_ids:
        return []
    among = f"sample_id in ({', '.join(str(int(i)) for i in sample_ids)})"
    images = pictures(snapshot).facts(sample_ids)
    said = _said(snapshot, filters.labels, among)
    other = filters.against if isinstance(filters.against, LabelSet) else None
    beside = _said(snapshot, other, among)
    excluded = _decided(snapshot, "exclusions", "sample_id", among)
    corrected = _decided(snapshot, "corrections", _CORRECTED, among)
    found = []
    for i in sample_ids:
        image, label = images.get(i), said.get(i, {})
        right = corrected.get(i, {}).get("label")
        known = image.label if right is None and image is not None else right
        others = known if filters.against == KNOWN else beside.get(i, {}).get("class_id")
        found.append(
            Tile(
                sample_id=i,
                key="gone" if image is None else image.key,
                split="" if image is None else image.split,
                class_name=snapshot.class_name(label.get("class_id") if label else known),
                confidence=label.get("confidence"),
                other_name=snapshot.class_name(others),
                is_excluded=i in excluded,
                corrected_name=snapshot.class_name(right),
            )
        )
    return found


def _decided(
    snapshot: Snapshot, table: str, columns: str, among: str
) -> dict[int, dict[str, Any]]:
    """Return what people decided of images; a table that has no commit is not asked."""
    if not snapshot.pins[table]:
        return {}
    sql = f"select {columns} from {table} where {among} group by sample_id"  # noqa: S608  whole numbers
    return {row["sample_id"]: row for row in snapshot.rows(sql)}


def _said(snapshot: Snapshot, labels: LabelSet | None, among: str) -> dict[int, dict[str, Any]]:
    if labels is None:
        return {}
    source = labels_source(snapshot, labels, "l")
    sql = f"select sample_id, class_id, confidence from {source.sql} where {among}"  # noqa: S608
    return {row["sample_id"]: row for row in snapshot.rows(sql, source.parameters)}


def label_choices(snapshot: Snapshot) -> dict[str, str]:
    """Return whose labels there are, newest first, as a list to choose from."""
    return {
        labels_name(s): f"{s.teacher_id}, iteration {s.iteration}" for s in snapshot.sets[::-1]
    }
