"""The steps of a run, and the ledger of those that are done.

A step's key is the hash of its slice of the recipe, the keys of the steps it needs and the
code version: the same key means the same result, so it is not done again. A changed recipe
gives new keys from the first step it touches on, beside the old ones.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import plstore
from plstore.exchange import Source
from plstore.fingerprint import value_hash
from plstore.query import saved_query
from plstore.storage import read_json, write_json
from plstore.store import Store
from trainers.pretrained import weights_hash
from trainers.recipe import Recipe

Kind = Literal["import", "labeled", "train", "label", "select", "evaluate"]
CONTROL = "control"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One recorded, re-runnable step.

    Attributes:
        name: Such as "train-2" or "train-control".
        kind: What is done.
        iteration: Of the teacher, student or labels; the control has the last student's.
        key: Identity.
        needs: Names of the steps whose outputs it reads.
    """

    name: str
    kind: Kind
    iteration: int
    key: str
    needs: tuple[str, ...]

    @property
    def is_control(self) -> bool:
        """Whether it belongs to the control."""
        return self.name.endswith(CONTROL)


class _Chain:
    def __init__(self) -> None:
        self.steps: dict[str, Step] = {}
        self._identities: dict[str, str] = {}

    def add(
        self,
        name: str,
        kind: Kind,
        needs: tuple[str, ...],
        what: Mapping[str, object],
        *,
        iteration: int = 0,
        freshness: str = "",
    ) -> str:
        """Add a step; `freshness` is part of its own key, not of those that need it."""
        identity = {
            "kind": kind,
            "what": what,
            "needs": [self._identities[need] for need in needs],
            "code": plstore.__version__,
        }
        self._identities[name] = value_hash(identity)
        key = value_hash({**identity, "freshness": freshness})
        self.steps[name] = Step(name=name, kind=kind, iteration=iteration, key=key, needs=needs)
        return name


def plan_steps(recipe: Recipe, source: Source, decisions: str) -> list[Step]:
    """Return the steps of a run, in order.

    Args:
        recipe: What to do.
        source: The images.
        decisions: A hash of exclusions and corrections: what a person decides changes what is
            selected, and what accuracy is measured by.
    """
    chain = _Chain()
    dump: dict[str, Any] = json.loads(recipe.model_dump_json())
    query = recipe.select.query
    sql = None if query is None else saved_query(query).sql
    imported = chain.add(
        "import",
        "import",
        (),
        {"images": source.identity, "dataset": source.dataset, "max": recipe.data.max_pixels},
        freshness=source.freshness,
    )
    shown = {"decisions": decisions, "held_out": recipe.select.held_out}
    labeled = chain.add("labeled", "labeled", (imported,), shown)

    def train(name: str, view: str, iteration: int) -> str:
        what = {
            "architecture": recipe.model.student(iteration),
            "model": {**dump["model"], "teacher": None, "students": None},
            "train": dump["train"],
            "noise": dump["noise"],
            "seed": recipe.seed,
            "name": name,
        }
        start = weights_hash(recipe.model, recipe.model.student(iteration))
        if start is not None:
            what["start"] = start
        trained = chain.add(f"train-{name}", "train", (view,), what, iteration=iteration)
        decided = {"decisions": decisions}
        needs = (imported, trained)
        chain.add(f"evaluate-{name}", "evaluate", needs, decided, iteration=iteration)
        return trained

    teacher = train("0", labeled, 0)
    for iteration in range(1, recipe.iterations + 1):
        label = chain.add(
            f"label-{iteration}",
            "label",
            (imported, teacher),
            dump["label"],
            iteration=iteration,
        )
        relabeled = recipe.select.relabel and iteration > 1
        chosen = chain.add(
            f"select-{iteration}",
            "select",
            (label, "select-1") if relabeled else (label,),
            {**dump["select"], "seed": recipe.seed, "sql": sql, "decisions": decisions},
            iteration=iteration,
        )
        teacher = train(str(iteration), chosen, iteration)
    if recipe.control:
        train(CONTROL, labeled, recipe.iterations)
    return list(chain.steps.values())


class Ledger:
    """The finished steps of a store, one JSON file each."""

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
            "code_version": plstore.__version__,
        }
        write_json(self._folder / f"{step.kind}-{step.key}.json", record)
