"""The finished runs of a store: what each one found, kept when the next one is done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from plstore.errors import InputError
from plstore.report.page import write_report
from plstore.storage import read_json, write_json
from plstore.store import Store

_FOLDER: Final = "runs"
_LAST: Final = "last"  # names the run that was done, or gone through again, last


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """One run of a recipe.

    Attributes:
        run_id: Of its steps: the same recipe on the same images has the same.
        finished: UTC, when it was finished first.
        result: As `result.json` has it; accuracies in percent.
        rows: Its table, a row a model.
    """

    run_id: str
    finished: datetime
    result: Mapping[str, Any]
    rows: Sequence[Mapping[str, object]]

    def row(self) -> dict[str, object]:
        """Return what one line of a list of runs says; the last student stands for all."""
        result = self.result
        last, control = result["students"][-1], result["control"] or {}
        on = "test" if last.get("test_accuracy") is not None else "validation"
        models = {"teacher": result["teacher"], "last student": last, "control": control}
        return {
            "run": self.run_id,
            "finished": self.finished.strftime("%Y-%m-%d %H:%M:%S"),
            "recipe": result["recipe"],
            "seed": result["seed"],
            "architecture": last["architecture"],
            "method": last.get("how"),
            "accuracy on": on,
            **{name: _percent(model.get(f"{on}_accuracy")) for name, model in models.items()},
            "best": result["best"],
            "seconds": result["run_seconds"],
        }


def keep_run(
    store: Store,
    run_id: str,
    result: Mapping[str, Any],
    rows: Sequence[Mapping[str, object]],
) -> FinishedRun:
    """Keep what a run found, beside those of other runs; one that is kept stays as it is."""
    place = _place(store, run_id)
    write_json(store.work_folder(_FOLDER, _LAST), {"run": run_id})
    if (known := _read(place)) is not None:
        return known
    finished = datetime.now(UTC)
    found = {"finished": finished.isoformat(), "result": dict(result), "rows": list(rows)}
    write_json(place, found)
    return FinishedRun(run_id=run_id, finished=finished, result=result, rows=rows)


def list_runs(store: Store) -> list[FinishedRun]:
    """Return the finished runs of a store, the newest last."""
    folder = store.work_folder(_FOLDER)
    places = (
        [place for place in folder.iterdir() if place.suffix == ".json"]
        if folder.exists()
        else []
    )
    runs = [found for place in places if (found := _read(place)) is not None]
    return sorted(runs, key=lambda run: (run.finished, run.run_id))


def last_run(store: Store) -> FinishedRun | None:
    """Return the run that was finished last, first or again; None where there is none."""
    found = read_json(store.work_folder(_FOLDER, _LAST))
    named = None if found is None else _read(_place(store, found["run"]))
    return named or next(iter(list_runs(store)[-1:]), None)  # a store of before names none


def find_run(store: Store, run_id: str | None = None) -> FinishedRun:
    """Return one run of a store: the newest unless named, in full or by its beginning.

    Raises:
        InputError: If there is no such run, or there are several.
    """
    runs = list_runs(store)
    found = runs[-1:] if run_id is None else [r for r in runs if r.run_id.startswith(run_id)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(run.run_id for run in runs) or "none; 'plstore run' makes one"
    what = "no finished run" if run_id is None else f"{len(found)} finished runs {run_id!r}"
    raise InputError(f"{store.root} has {what}; it has {known}")


def report_run(store: Store, run: FinishedRun, path: str | Path) -> None:
    """Write the HTML report of a finished run.

    Args:
        store: The store that it filled.
        run: Of `find_run`.
        path: The file.
    """
    write_report(Path(path), store, run.result, run.rows)


def _place(store: Store, run_id: str) -> Path:
    return store.work_folder(_FOLDER, f"{run_id}.json")


def _read(place: Path) -> FinishedRun | None:
    found = read_json(place)
    if found is None:  # gone since it was listed
        return None
    return FinishedRun(
        run_id=place.stem,
        finished=_time(found["finished"]),
        result=found["result"],
        rows=found["rows"],
    )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"
