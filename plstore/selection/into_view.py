"""What was decided becomes a view: the labeled images, and the pseudo-labels that are kept."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from plstore import storage
from plstore.errors import InputError, StoreError
from plstore.query import Limits, connect, stream
from plstore.schema import LABEL_TYPE
from plstore.selection.balanced import choose_balanced
from plstore.selection.by_query import choose_by_query
from plstore.selection.choice import ROW_BYTES, Choice, Rows
from plstore.selection.engine import scratch_folder, shared_files
from plstore.selection.held_out import HELD_OUT, held_out_copies
from plstore.selection.relabeled import choose_relabeled
from plstore.selection.selection import Selection
from plstore.store import AsOf, Store, resolve
from plstore.upkeep import erase
from plstore.version import __version__
from plstore.views import (
    HERE,
    Engine,
    Packing,
    Shrink,
    View,
    ViewMode,
    ViewRecord,
    attach_images,
    check_view_name,
    commit_view,
    find_view,
    next_version,
    shuffled,
    with_weights,
    write_rows,
)

_LABELED_ROWS = """
select
    images.sample_id,
    coalesce(corrected.label, images.label)::integer as class_id,
    1::float as confidence,
    1::integer as copies
from images
left join (
    select sample_id, arg_max(label, decided_at) as label from corrections group by sample_id
) as corrected on images.sample_id = corrected.sample_id
where
    (images.split = 'labeled' or (images.split = 'unlabeled' and corrected.label is not null))
    and images.verdict = 'accepted'
    and images.sample_id not in (select sample_id from exclusions)
    and images.sample_id not in (select sample_id from held_out)
order by images.sample_id asc
"""


def _choose(
    store: Store,
    selection: Selection,
    pins: Mapping[str, int],
    stack: ExitStack,
    *,
    only_counts: bool = False,
) -> Choice:
    """Decide a selection over a snapshot; what it holds open is closed by the stack.

    With `only_counts`, the counts are all that is right of the choice.
    """
    if selection.query is not None:
        return choose_by_query(store, selection, pins, stack)
    if selection.relabel is not None:
        return choose_relabeled(store, selection, pins, stack)
    return choose_balanced(store, selection, pins, stack, only_counts=only_counts)


def preview(store: Store, selection: Selection, *, as_of: AsOf = None) -> dict[str, Any]:
    """Return the counts of a selection, by reason and by class; nothing is written.

    Raises:
        InputError: As `select`.
    """
    with ExitStack() as stack:
        pins = resolve(store, as_of)
        return dict(_choose(store, selection, pins, stack, only_counts=True).counts)


def select(
    store: Store,
    selection: Selection,
    *,
    identity: str | None = None,
    as_of: AsOf = None,
    on_images: Callable[[int], None] = lambda _: None,
    engine: Engine = HERE,
) -> View:
    """Run a selection and keep its result as a new version of a view.

    The view holds all accepted labeled images and the pseudo-labeled images that are kept, in a
    seeded shuffle, and pins the version of every table that was read. What is not kept is
    counted by reason in the view's record.

    Args:
        store: The store.
        selection: What to select.
        identity: Of this selection: done twice, it adds nothing. By default each call is a
            selection of its own.
        as_of: Snapshot to read; see `plstore.store.AsOf`. The newest unless given.
        on_images: Called with the number of images that were just taken in.
        engine: Who fetches, shrinks and packs images: this process, or workers of a
            `plstore.Ray` cluster. The files are the same.

    Raises:
        InputError: If a teacher has no labels, nothing is left, or images are to be packed by
            others and stay where they are.
        QueryError: If a query or an expression fails.
    """

    def choose(pins: Mapping[str, int], stack: ExitStack) -> Choice:
        return _choose(store, selection, pins, stack)

    settings = _Settings(
        selection.view,
        selection.mode,
        selection.balance.seed,
        selection.recipe_hash,
        on_images,
        held_out=selection.held_out,
        shrink=selection.shrink,
        engine=engine,
    )
    return _write(store, settings, choose, identity, as_of)


def select_labeled(
    store: Store,
    name: str,
    *,
    seed: int = 0,
    held_out: bool = False,
    shrink: Shrink | None = None,
    recipe_hash: str = "",
    identity: str | None = None,
    as_of: AsOf = None,
) -> View:
    """Keep all accepted labeled images, and no others, as a view: a teacher trains on it.

    Those whose very bytes are in validation or test too are left out, unless `held_out`. With
    `shrink` large images are packed smaller, as in `Selection`.
    """
    choice = Choice(query="labeled", sql=_LABELED_ROWS, parameters={}, counts={}, rows=_no_rows)
    settings = _Settings(name, None, seed, recipe_hash, held_out=held_out, shrink=shrink)
    return _write(store, settings, lambda _, __: choice, identity, as_of)


@dataclass(frozen=True)
class _Settings:
    view: str
    mode: ViewMode | None
    seed: int
    recipe_hash: str
    on_images: Callable[[int], None] = lambda _: None
    held_out: bool = False
    shrink: Shrink | None = None
    engine: Engine = HERE

    def mode_in(self, store: Store) -> ViewMode:
        """Return where the view's images are."""
        if self.shrink is not None:
            return "packed"
        mode = self.mode or ("packed" if storage.is_remote(store.root) else "reference")
        if mode == "reference" and not self.engine.is_here:
            raise InputError(
                "workers pack images, and this view is by reference: its images stay where "
                "they are. Select with --mode packed or --max-side, or without --engine ray"
            )
        return mode

    def recorded(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what the view's record says of how it was made."""
        own: dict[str, Any] = {} if self.shrink is None else dict(vars(self.shrink))
        own |= {"held_out": True} if self.held_out else {}
        if twice := sorted(own.keys() & parameters.keys()):
            without = "held_out" if twice[0] == "held_out" else "max_side"
            raise InputError(
                f"the query has a parameter {twice[0]!r}, a name that the view's record needs "
                f"to say how it was made: name it otherwise, or select without {without}"
            )
        return {**parameters, **own}


def _no_rows() -> Rows:
    return iter(())


def _write(
    store: Store,
    settings: _Settings,
    make: Callable[[Mapping[str, int], ExitStack], Choice],
    identity: str | None,
    as_of: AsOf,
) -> View:
    check_view_name(settings.view)
    if identity is not None and (existing := find_view(store, identity)) is not None:
        return existing
    identity = identity or f"view-{uuid4().hex}"
    version = next_version(store, settings.view, identity)
    pins = resolve(store, as_of)
    mode = settings.mode_in(store)
    none = HELD_OUT.empty_table()
    copies = none if settings.held_out else held_out_copies(store, pins["images"])
    with ExitStack() as stack:
        choice = make(pins, stack)
        record = ViewRecord(
            view=settings.view,
            version=version,
            identity=identity,
            query=choice.query,
            sql=choice.sql,
            parameters=settings.recorded(choice.parameters),
            pins=pins,
            counts={**choice.counts, **_labeled_dropped(store, pins, copies)},
            mode=mode,
            recipe_hash=settings.recipe_hash,
            code_version=__version__,
        )
        packing = None
        if mode == "packed":
            packing = Packing(
                store=store,
                images_version=pins["images"],
                seed=settings.seed,
                shrink=settings.shrink,
                folder=stack.enter_context(
                    shared_files(store, elsewhere=not settings.engine.is_here)
                ),
                engine=settings.engine,
                on_images=settings.on_images,
            )
        order = _Order(store, pins["images"], settings.seed, settings.on_images, packing)
        rows = _labeled_rows(store, pins, copies)
        labeled = order.of(rows, "labeled", _count_labeled(store, pins))
        kept = choice.counts.get("kept", 0)
        pseudo = order.of(choice.rows(), "pseudo", kept, choice.row_bytes)
        if packing is None:
            view = commit_view(store, record, write_rows(store, record, chain(labeled, pseudo)))
        else:
            packed = packing.write(record, (labeled, pseudo))
            view = commit_view(
                store, record, packed.written, settings.shrink, packed.num_shrunk
            )
    _drop_deleted(store, view)
    return view


@dataclass(frozen=True)
class _Order:
    """How rows become those of a view: with their images, shuffled."""

    store: Store
    images_version: int
    seed: int
    on_images: Callable[[int], None]
    packing: Packing | None

    def of(
        self, rows: Rows, kind: str, count: int, row_bytes: int = ROW_BYTES
    ) -> Iterator[pa.Table]:
        """Yield the rows of one kind in the order of the view."""
        taken = written = 0

        def complete() -> Rows:
            nonlocal taken
            for batch in rows:
                taken += batch.num_rows
                if self.packing is None:  # else counted as they are fetched
                    self.on_images(batch.num_rows)
                yield _complete(batch, kind)

        attached = attach_images(
            self.store,
            complete(),
            version=self.images_version,
            mode="reference",
            also=() if self.packing is None else ("num_bytes",),
        )
        if self.packing is not None:
            attached = self.packing.parts.cut(attached)
        for table in shuffled(
            attached,
            seed=self.seed,
            num_bytes=count * (row_bytes + self._image_bytes()),
            folder=scratch_folder(self.store),
        ):
            written += table.num_rows
            yield table
        if written != taken:
            raise StoreError(f"{taken} {kind} images were selected and {written} came out")

    def _image_bytes(self) -> int:
        """Return the mean bytes of an image, 0 where they stay where they are."""
        if self.packing is None:
            return 0
        sizes = self.store.table("images").read(
            version=self.images_version, columns=["num_bytes"]
        )["num_bytes"]
        mean = int(pc.mean(sizes).as_py() or 0)
        if self.packing.shrink is None:
            return mean
        return min(mean, self.packing.shrink.max_side**2)  # a byte a pixel is much


def _complete(rows: pa.RecordBatch, kind: str) -> pa.RecordBatch:
    columns = {name: rows[name] for name in rows.schema.names}
    columns.setdefault("label", pa.nulls(rows.num_rows, LABEL_TYPE))
    columns["label"] = columns["label"].cast(LABEL_TYPE)
    columns["kind"] = pa.repeat(pa.scalar(kind), rows.num_rows)
    return with_weights(pa.record_batch(columns))


def _labeled_dropped(
    store: Store, pins: Mapping[str, int], held_out: pa.Table
) -> dict[str, Any]:
    """Return how many labeled images are left out, by reason; nothing where none is."""
    ids = held_out.filter(pc.equal(held_out["split"], "labeled"))["sample_id"]
    excluded = store.table("exclusions").read(
        version=pins["exclusions"], columns=["sample_id"]
    )["sample_id"]
    count = pc.sum(pc.invert(pc.is_in(ids, excluded.combine_chunks()))).as_py()
    return {"labeled_dropped": {"held_out": count}} if count else {}


def _labeled_rows(store: Store, pins: Mapping[str, int], held_out: pa.Table) -> Rows:
    with closing(connect(store, as_of=pins, limits=Limits(seconds=None))) as connection:
        connection.register("held_out", held_out)
        yield from stream(connection, _LABELED_ROWS, {})


def _count_labeled(store: Store, pins: Mapping[str, int]) -> int:
    corrections = store.table("corrections").dataset(pins["corrections"]).count_rows()
    return store.count_images("labeled", version=pins["images"]) + int(corrections)


def _drop_deleted(store: Store, view: View) -> None:
    """Delete from a view the images that were deleted from the store while it was written."""
    table, pinned = store.table("deletions"), view.record.pins["deletions"]
    if table.version() == pinned:
        return
    before = table.read(version=pinned, columns=["sample_id"])["sample_id"]
    now = table.read(columns=["sample_id"])["sample_id"]
    since = pc.filter(now, pc.invert(pc.is_in(now, before.combine_chunks())))
    rows = store.table("view_rows").dataset_of(view.shards())
    where = pc.field("sample_id").isin(since.combine_chunks())
    held = rows.to_table(columns=["sample_id"], filter=where)["sample_id"].to_pylist()
    if held:
        erase(store, held, reason="as before")
