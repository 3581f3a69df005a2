"""Metrics of a run as files: JSON lines, and what TensorBoard shows."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from plstore.errors import MissingExtraError
from trainers.events import Event, Listener, Measured

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Logged:
    """A listener that writes what is measured, and hands every event on."""

    def __init__(
        self, listener: Listener, lines: Path, board: "SummaryWriter | None" = None
    ) -> None:
        """Write nothing yet.

        Args:
            listener: Who is told.
            lines: File that a line of JSON is added to for each metric.
            board: Of TensorBoard.
        """
        self._listener, self._lines, self._board = listener, lines, board

    def __call__(self, event: Event) -> None:
        """Write a metric; hand any event on."""
        if isinstance(event, Measured):
            with self._lines.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(event)) + "\n")
            if self._board is not None:
                name = f"{event.model}/{event.name}"
                self._board.add_scalar(name, event.value, event.step)
        self._listener(event)


@contextmanager
def logged(listener: Listener, lines: Path, board: Path | None) -> Iterator[Listener]:
    """Yield a listener that writes metrics as well.

    Args:
        listener: Who is told.
        lines: File of JSON lines; its folder is made.
        board: Folder for TensorBoard, None for none.

    Raises:
        MissingExtraError: If TensorBoard is wanted and not installed.
    """
    lines.parent.mkdir(parents=True, exist_ok=True)
    writer = None if board is None else _writer(board)
    try:
        yield Logged(listener, lines, writer)
    finally:
        if writer is not None:
            writer.close()


def _writer(folder: Path) -> "SummaryWriter":
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard", "tensorboard", "--tensorboard") from error
    return SummaryWriter(str(folder))
