"""A teacher labels the images that a student will see, with their noise.

The student's own loader makes them: what a draw shows follows from its number, so the teacher
can be asked before the student is there. Draws are labeled and committed file by file: a
labeling that is stopped goes on from there, and ends with the same files.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from plstore.codec import Codec
from plstore.errors import InputError
from plstore.labels import (
    Span,
    TeacherRecord,
    ViewLabels,
    ViewLabelSet,
    commit_view_labels,
    missing_spans,
    open_view_labels,
    view_label_rows,
)
from plstore.loaders import Batch, ImageFormat
from plstore.store import Store
from plstore.version import __version__
from trainers.events import Teller
from trainers.inference.clean import BatchSize, answers, first_batch
from trainers.models.model import Bundle, load_teacher
from trainers.sections import Label
from trainers.training.train import Training


@dataclass(frozen=True, kw_only=True)
class ViewLabeling:
    """What is labeled, by whom, and how.

    Attributes:
        training: Of the student; it need not have begun.
        teacher: Of the store, with a model.
        settings: How labels are kept, and for how many epochs.
    """

    training: Training
    teacher: TeacherRecord
    settings: Label

    @property
    def num_draws(self) -> int:
        """Pseudo-labeled draws of those epochs, of the training's steps at most."""
        course = self.training.course
        steps = max(int(self.settings.view_epochs * course.steps_per_epoch), 1)
        return min(steps, course.steps) * self.training.pseudo_batch

    @property
    def codec(self) -> Codec:
        """How distributions are kept."""
        return Codec(name=self.settings.codec, k=self.settings.topk)

    def label_set(self, format_: ImageFormat) -> ViewLabelSet:
        """Return whose labels of which draws they are.

        Args:
            format_: How images reach the student.
        """
        record, loader = self.training.view.record, self.training.loader(format_, 0)
        state = loader.state_dict()
        return ViewLabelSet(
            view=record.view,
            version=record.version,
            files=state["view"],
            plan=state["plan"],
            seed=state["seed"],
            backend=loader.backend,
            teacher_id=self.teacher.teacher_id,
            checkpoint_hash=self.teacher.checkpoint_hash or "",
            temperature=self.settings.temperature,
            codec=self.codec,
        )


def make_view_labels(labeling: ViewLabeling, teller: Teller) -> ViewLabels:
    """Label what is not labeled yet of the first draws of a training.

    Args:
        labeling: Of which training, by whom.
        teller: Told of progress.

    Returns:
        The labels, for `Training.labels` or `plstore.load`.

    Raises:
        InputError: If the teacher has no model, or sees gray images where the student sees RGB.
    """
    training, store = labeling.training, labeling.training.view.store
    bundle = load_teacher(store, labeling.teacher, device=training.device)
    format_ = training.format()
    _check_channels(labeling.teacher, bundle.format, format_)
    label_set, count = labeling.label_set(format_), labeling.num_draws
    missing = missing_spans(store, label_set, count)
    replaced = 0
    title = f"label {count} views, as {label_set.backend} makes them"
    with teller.task(title, sum(end - start for start, end in missing)) as advance:
        for run in _runs(missing):
            shown = _Shown(labeling, label_set, format_, bundle, advance)
            shown.label(run)
            replaced += shown.num_replaced
    if replaced:
        teller.say(
            f"  {replaced} draws of damaged images were replaced by others; 'plstore verify' "
            "names the images"
        )
    return open_view_labels(store, label_set, count)


def _check_channels(teacher: TeacherRecord, theirs: ImageFormat, ours: ImageFormat) -> None:
    if theirs.channels < ours.channels:
        raise InputError(
            f"teacher {teacher.teacher_id!r} sees gray images and the student those of "
            f"{ours.channels} channels: it cannot look at what the student sees. Set "
            "label.views to false, or model.channels to that of the teacher"
        )


def _runs(spans: list[Span]) -> Iterator[list[Span]]:
    """Yield spans that follow each other together: one loader makes them all."""
    run: list[Span] = []
    for span in spans:
        if run and run[-1].end != span.start:
            yield run
            run = []
        run.append(span)
    if run:
        yield run


class _Shown:
    """The noised images of successive draws, shown to a teacher."""

    def __init__(
        self,
        labeling: ViewLabeling,
        label_set: ViewLabelSet,
        format_: ImageFormat,
        bundle: Bundle,
        advance: Callable[[int], None],
    ) -> None:
        self._labeling, self._training = labeling, labeling.training
        self._label_set, self._format, self._bundle = label_set, format_, bundle
        self._advance = advance
        self._size = BatchSize(first_batch(bundle.format, self._training.device))
        self.num_replaced = 0

    def label(self, run: list[Span]) -> None:
        """Label spans that follow each other, and commit each as it is complete."""
        spans, parts = iter(run), list[pa.Table]()
        span = next(spans)
        for first, ids, probs in self._answers(span.start, run[-1].end):
            done = 0
            while done < len(ids):
                count = min(span.end - first - done, len(ids) - done)
                part = slice(done, done + count)
                codec = self._labeling.codec
                parts.append(view_label_rows(first + done, ids[part], probs[part], codec))
                done += count
                if first + done == span.end:
                    self._commit(span, pa.concat_tables(parts))
                    parts, span = [], next(spans, span)
            self._advance(len(ids))

    def _answers(
        self, start: int, end: int
    ) -> Iterator[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Yield the first of successive draws, their images, and what the teacher says.

        A draw is seen in the company of its own step, whatever is to be labeled, so that a
        labeling that was stopped ends with the same bits.
        """
        batch_size = self._training.pseudo_batch
        step = start // batch_size
        # without labeled images, which are drawn apart: the same pixels for less decoding
        loader = replace(self._training, labeled_batch=0, labels=None).loader(
            self._format, step
        )
        for batch in loader:
            first = batch.step * batch_size
            self.num_replaced += len(batch.replaced)
            probs = self._look(batch)
            wanted = slice(max(start - first, 0), min(end - first, batch_size))
            yield first + wanted.start, batch.sample_ids.numpy()[wanted], probs[wanted]
            if first + batch_size >= end:
                return

    def _look(self, batch: Batch) -> npt.NDArray[np.float32]:
        found = answers(
            self._bundle,
            batch.images,
            device=self._training.device,
            temperature=self._labeling.settings.temperature,
            batch_size=self._size,
        )
        probs: npt.NDArray[np.float32] = found.numpy()
        return probs

    def _commit(self, span: Span, rows: pa.Table) -> None:
        notes = {
            "recipe_hash": self._training.run.hash,
            "code_version": __version__,
        }
        store = self._training.view.store
        commit_view_labels(store, self._label_set, rows, span, notes=notes)


def outputs_of_labels(labels: ViewLabels) -> dict[str, Any]:
    """Return, JSON-like, how a later step finds labels."""
    return {"labels": labels.label_set.as_json(), "num_draws": labels.num_draws}


def labels_of(store: Store, outputs: Mapping[str, Any]) -> ViewLabels:
    """Return the labels of `outputs_of_labels`.

    Raises:
        InputError: If some are gone.
    """
    label_set = ViewLabelSet.from_json(outputs["labels"])
    return open_view_labels(store, label_set, outputs["num_draws"])
