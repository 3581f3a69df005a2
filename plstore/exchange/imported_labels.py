"""Predictions that people have become a teacher's labels, in one call."""

from pathlib import Path

from plstore.codec import Codec
from plstore.exchange.intake import Shows, silent
from plstore.exchange.predictions import Matched, keep_predictions, match_predictions
from plstore.store import Store

_DEFAULT_CODEC = Codec()


def import_predictions(  # noqa: PLR0913  one keyword per choice of the user
    store: Store,
    values: str | Path,
    *,
    teacher_id: str,
    iteration: int = 1,
    ids: str | Path | None = None,
    id_column: str | None = None,
    dataset: str | None = None,
    logits: bool = False,
    codec: Codec = _DEFAULT_CODEC,
    replace: bool = False,
    shows: Shows | None = None,
) -> Matched:
    """Keep predictions as the labels of a teacher; several files add up.

    Args:
        store: The store.
        values: Parquet, CSV, JSON or .npy. A table has a column a class (cat, dog or prob_cat,
            prob_dog), or a label and its confidence; an array, float [images, classes], has
            its classes in the order of the store.
        teacher_id: Name that these labels get, `[a-z0-9_-]+`.
        iteration: That these labels belong to.
        ids: For .npy: sample ids (.npy) or names, one a line.
        id_column: Of sample ids, keys or paths; found unless given.
        dataset: Of the images, where keys repeat among data sets.
        logits: Whether a softmax is applied first.
        codec: How distributions are kept.
        replace: Whether they take the place of those that there are.
        shows: Where notes are said and progress is shown; nowhere unless given.

    Returns:
        What became of the predictions, by split and reason.

    Raises:
        InputError: If the file is not as it must be, no prediction is of an accepted image, or
            there are labels by this teacher already and `replace` is not set.
    """
    shows = silent() if shows is None else shows
    place = None if ids is None else Path(ids)
    with match_predictions(
        store, Path(values), ids=place, id_column=id_column, dataset=dataset, logits=logits
    ) as matched:
        for note in matched.notes:
            shows.say(note)
        with shows.task("import predictions", sum(matched.counts.values())) as advance:
            keep_predictions(
                store,
                matched,
                teacher_id=teacher_id,
                iteration=iteration,
                codec=codec,
                source=str(values),
                replace=replace,
                on_images=advance,
            )
    return matched
