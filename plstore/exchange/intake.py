"""A source into a store: settled by what the store has, said, imported, counted."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from plstore.exchange.source import Source
from plstore.images import (
    DEFAULT_MAX_PIXELS,
    ImportCounts,
    import_images,
    large_images_are_verdicts,
    prepare_import,
)
from plstore.store import Store

_CLASSES_SHOWN = 20
_Advance = Callable[[int], None]


class Shows(Protocol):
    """Where an import says what it does."""

    def say(self, message: str) -> None:
        """Show one line."""

    def task(self, title: str, total: int | None) -> AbstractContextManager[_Advance]:
        """Show a task and yield what takes the number of images just done."""


class _Silent:
    """Shows nothing."""

    def say(self, message: str) -> None:
        """Say nothing."""

    def task(self, title: str, total: int | None) -> AbstractContextManager[_Advance]:
        """Show nothing."""
        del title, total
        return nullcontext(lambda _: None)


def silent() -> Shows:
    """Return what shows nothing."""
    return _Silent()


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import brought.

    Attributes:
        source: As the store took it: with the splits that were drawn.
        counts: What became of its images.
    """

    source: Source
    counts: ImportCounts

    @property
    def remarks(self) -> Mapping[str, int]:
        """What a person should know besides verdicts, with how often."""
        counts = self.counts
        copy, of = counts.first_copy
        found = {
            f"deleted before (plstore delete; first: {counts.first_deleted}), not imported; "
            "another --store would take them": counts.deleted,
            "the same bytes were deleted before under another name (plstore delete; first: "
            f"{copy}, deleted as {of}), not imported; another --store would take "
            "them": counts.deleted_copies,
            "in another dataset with the same label, not imported again": counts.elsewhere,
            "same bytes under another label (plstore query run audit/contradicting_labels)": (
                counts.contradicting
            ),
            **self.source.noticed,
            **{f"ignored: {kind}": number for kind, number in self.source.ignored.items()},
        }
        return {what: number for what, number in found.items() if number}


def import_source(
    store: Store,
    source: Source,
    shows: Shows | None = None,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    in_place: bool = False,
) -> Imported:
    """Import a source; what is in the store already stays as it is there.

    Validation is drawn among images that can be used and are new; those in the store keep their
    split. Labeled images that another dataset of the store has, with the same label, are not
    imported again.

    Args:
        store: Where to.
        source: What.
        shows: Where splits and classes are said, and progress is shown; nowhere unless given.
        max_pixels: Images of more pixels are refused.
        in_place: As of `import_images`.

    Raises:
        InputError: As of `import_images`; or if a class has no labeled image that can be used.
    """
    shows = silent() if shows is None else shows
    intake = prepare_import(store, source.dataset, max_pixels=max_pixels, once=True)
    with large_images_are_verdicts():
        if source.settle is not None:
            source = source.settle(intake)
        shows.say(_splits(source))
        shows.say(_classes(list(store.ensure_classes(())) or source.class_names))
        with shows.task("import images", source.num_images or None) as advance:
            counts = import_images(
                store,
                source.records(),
                dataset=source.dataset,
                class_names=source.class_names,
                in_place=in_place,
                on_progress=advance,
                intake=intake,
            )
    return Imported(source=source, counts=counts)


def _splits(source: Source) -> str:
    named = [f"{split} {number}" for split, number in source.splits.items()]
    return f"splits: {', '.join(named) or 'none'}"


def _classes(names: Sequence[str]) -> str:
    more = len(names) - _CLASSES_SHOWN
    shown = ", ".join(names[:_CLASSES_SHOWN]) + (f" and {more} more" if more > 0 else "")
    return f"classes ({len(names)}): {shown or 'none'}"
