"""A step: one recorded, re-runnable piece of a run. Each kind is a file beside this one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from trainers.context import Context, Outputs
from trainers.estimate import Estimate, Estimator
from trainers.recipe import Recipe
from trainers.result import Findings

CONTROL = "control"


@dataclass(frozen=True, kw_only=True)
class Step(ABC):
    """One step of a run.

    Its key is the hash of its kind, of `what`, of the keys of the steps that it needs and of
    the code version: the same key means the same result, so it is not done again.

    Attributes:
        name: Such as "train-2" or "train-control".
        iteration: Of the teacher, student or labels; the control has the last student's.
        member: Which of several first teachers it belongs to, from 1.
        needs: Names of the steps whose outputs it reads.
        key: Identity; given by the chain.
    """

    kind: ClassVar[str]
    is_shared: ClassVar[bool] = False
    """Whether several processes do it, each calling `do`; the first one's result counts."""

    name: str
    iteration: int = 0
    member: int = 1
    needs: tuple[str, ...] = ()
    key: str = ""

    @property
    def model(self) -> str:
        """The model of a run that it belongs to: "0" for the teacher, "1", … or "control"."""
        if self.name.endswith(f"-{CONTROL}"):
            return CONTROL
        return str(self.iteration) if self.member == 1 else f"{self.iteration}.{self.member}"

    @property
    def title(self) -> str:
        """The model, in words."""
        if self.model == CONTROL:
            return "the control"
        if self.member > 1:
            return f"teacher {self.member}"
        return "the teacher" if self.iteration == 0 else f"student {self.iteration}"

    def recipe(self, context: Context) -> Recipe:
        """Return the recipe as its model and iteration see it."""
        return context.recipe.at(self.iteration).member(self.member)

    def freshness(self, _: Context) -> str:
        """Return what changes its own key, and not those of the steps that need it."""
        return ""

    @abstractmethod
    def what(self, context: Context) -> Mapping[str, object]:
        """Return all that its result depends on, beside the steps that it needs."""

    @abstractmethod
    def do(self, context: Context, needs: Sequence[Outputs]) -> dict[str, Any]:
        """Do it; return what it leaves, JSON-like.

        One that was stopped is done again, and must then end with the same result.

        Args:
            context: What every step works with.
            needs: What the steps left that it needs, in the order of `needs`.
        """

    @abstractmethod
    def cost(self, estimator: Estimator) -> Estimate:
        """Return what it would take."""

    def report(self, findings: Findings, outputs: Outputs) -> None:  # noqa: B027  may be nothing
        """Say in the result of the run what came of it."""
