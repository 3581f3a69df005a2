"""What to select, as people say it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from plstore.errors import InputError
from plstore.query import Limits
from plstore.selection.balance import Balance
from plstore.selection.rules import Rule
from plstore.views import DEFAULT_QUALITY, Shrink, ViewMode

EngineName = Literal["duckdb", "spark"]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What to select.

    Attributes:
        view: Name of the view, `[a-z0-9_-]+`.
        teachers: Whose labels, ``[ALIAS=]TEACHER[@ITERATION]`` each.
        balance: Floor of confidence, and how classes are balanced.
        rule: With several teachers, what makes a candidate.
        mode: Whether the view holds image bytes (`packed`) or names their place (`reference`).
            Packed on object stores, by reference in folders, unless given.
        max_side: Images whose longer side has more pixels are packed as JPEGs shrunk to it, all
            others byte for byte; None for all as they are. The view is packed then.
        quality: Of those JPEGs, 1 to 100 on libjpeg's scale; 90 unless given.
        engine: What runs the SQL: `duckdb` here, or `spark`.
        relabel: ``VIEW[@VERSION]`` whose images, copies and weights are kept, with new labels,
            in place of a balance and a rule.
        query: A saved query, or a .sql file, that decides in place of policy and rule. It has
            the columns sample_id, class_id, confidence, outcome and copies, and may have
            weight, above 0 and up to 1: what an image counts for in the student's loss.
        parameters: Of that query. teacher_id, iteration, seed, min_confidence and
            images_per_class are filled in where it takes them.
        held_out: Whether images are taken, labeled or not, whose very bytes are in validation
            or test too; else they are left out and counted.
        recipe_hash: Of the recipe that asks, for the record.
        limits: Of memory and time, for SQL of one's own: a query, or the expressions of a rule
            over each range of sample ids alone. What `plstore.query.connect` can't stop, only
            the command line does.
    """

    view: str
    teachers: Sequence[str]
    balance: Balance = field(default_factory=Balance)
    rule: Rule = field(default_factory=Rule)
    mode: ViewMode | None = None
    max_side: int | None = None
    quality: int | None = None
    engine: EngineName = "duckdb"
    relabel: str | None = None
    query: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    held_out: bool = False
    recipe_hash: str = ""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        if isinstance(self.teachers, str) or not self.teachers:
            raise InputError(f"teachers are {self.teachers!r}; wanted a list of one or more")
        self._check_who_decides()
        if self.mode not in {None, "packed", "reference"}:
            raise InputError(f"mode is {self.mode!r}; wanted 'packed' or 'reference'")
        if self.engine not in {"duckdb", "spark"}:
            raise InputError(f"engine is {self.engine!r}; wanted 'duckdb' or 'spark'")
        if self.engine == "spark" and (self.relabel is not None or self.query is not None):
            raise InputError("the engine 'spark' balances; relabel and queries run in duckdb")
        self._check_size()

    @property
    def shrink(self) -> Shrink | None:
        """To what images are shrunk, None where they stay as they are."""
        if self.max_side is None:
            return None
        quality = DEFAULT_QUALITY if self.quality is None else self.quality
        return Shrink(max_side=self.max_side, quality=quality)

    def _check_size(self) -> None:
        """Refuse numbers out of range, and what does not go with shrunk images."""
        if self.shrink is None:
            if self.quality is not None:
                raise InputError("quality without max_side; it is of images that are shrunk")
            return
        if self.mode == "reference":
            raise InputError(
                "mode is 'reference' with max_side; images that are shrunk are packed into the "
                "view's own files"
            )

    def _check_who_decides(self) -> None:
        """Refuse settings that would not be used."""
        if self.relabel is not None and self.query is not None:
            raise InputError("a selection has both relabel and query; wanted one")
        decider = "relabel" if self.relabel is not None else "query"
        if self.relabel is None and self.query is None:
            if self.parameters:
                raise InputError("parameters without a query; they are of a query of your own")
            return
        if self.relabel is not None and self.parameters:
            raise InputError("parameters with relabel; they are of a query of your own")
        used = Balance(seed=self.balance.seed)
        if self.query is not None:
            used = replace(
                used,
                min_confidence=self.balance.min_confidence,
                images_per_class=self.balance.images_per_class,
            )
        if self.balance != used or not self.rule.is_empty or len(self.teachers) > 1:
            raise InputError(
                f"a selection by {decider} with settings that it does not use: it takes one "
                "teacher and a seed, a query also a floor and a quota, and no rule, policy or "
                "total"
            )
