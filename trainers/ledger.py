"""The finished steps of a store, one JSON file each."""

from collections.abc import Mapping
from typing import Any

from plstore.storage import read_json, write_json
from plstore.store import Store
from plstore.version import __version__
from trainers.steps.step import Step


class Ledger:
    """Which steps are done, and what they left."""

    def __init__(self, store: Store) -> None:
        """Name the folder."""
        self._folder = store.work_folder("steps")

    def outputs(self, step: Step) -> dict[str, Any] | None:
        """Return what a finished step left, or None if it is not finished."""
        record = read_json(self._folder / f"{step.kind}-{step.key}.json")
        return None if record is None else dict(record["outputs"])

    def seconds(self, step: Step) -> float:
        """Return how long a finished step took, 0 if it is not finished."""
        record = read_json(self._folder / f"{step.kind}-{step.key}.json")
        return 0.0 if record is None else float(record["seconds"])

    def finish(self, step: Step, outputs: Mapping[str, Any], seconds: float) -> None:
        """Record a step as finished."""
        record = {
            "name": step.name,
            "key": step.key,
            "outputs": dict(outputs),
            "seconds": seconds,
            "code_version": __version__,
        }
        write_json(self._folder / f"{step.kind}-{step.key}.json", record)
