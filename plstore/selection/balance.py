"""What a selection keeps: a floor of confidence, and how classes are balanced above it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from plstore.errors import InputError

Policy = Literal["exact", "reference", "cap", "none"]
"""How a class meets its quota K.

`exact`: at most the K most confident; where there are fewer, copies that sum to exactly K, the
remainder to images drawn by a seeded hash (Noisy Student, 3.1). `reference`: as the official
code does it, all of the bins of 0.01 that reach K, with K / T copies each, rounded at random by
a seeded hash, so that K is met in expectation. `cap`: at most the K most confident, once each.
`none`: all above the floor, once each.
"""

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Floor and balance of a selection.

    At most one of `images_per_class`, `total` and `quotas` says what a class is to have; with
    none of them, every class has an even share of the unlabeled images.

    Attributes:
        policy: How a class meets its quota, see `Policy`.
        min_confidence: Labels above this are candidates, 0 up to below 1 (Noisy Student: 0.3).
        images_per_class: K of every class.
        total: Sum of all quotas, shared out in proportion to a power of each class's number of
            candidates; classes without candidates have no share.
        power: That power: 0 for equal shares, 1 for the classes as they come.
        quotas: K by class name; classes that are not named are not kept.
        seed: Draws which images get one copy more.
    """

    policy: Policy = "exact"
    min_confidence: float = 0.3
    images_per_class: int | None = None
    total: int | None = None
    power: float = 0.0
    quotas: Mapping[str, int] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible settings, all of them at once."""
        wanted = {"images_per_class": self.images_per_class, "total": self.total}
        named = [n for n, v in {**wanted, "quotas": self.quotas}.items() if v is not None]
        at_least_one = [f"{n} {v}" for n, v in wanted.items() if v is not None and v < 1]
        quotas = (self.quotas or {}).values()
        checks = {
            f"policy {self.policy!r}; wanted {', '.join(get_args(Policy))}": self.policy
            not in get_args(Policy),
            f"min_confidence {self.min_confidence}; wanted 0 up to below 1": not 0
            <= self.min_confidence
            < 1,
            f"{' and '.join(named)} at once; wanted one of them": len(named) > 1,
            f"{''.join(named[:1])} with policy 'none', which balances nothing": bool(named)
            and self.policy == "none",
            f"{' and '.join(at_least_one)}; wanted 1 or more": bool(at_least_one),
            "a quota below 0; wanted 0 or more": any(quota < 0 for quota in quotas),
            f"power {self.power}; wanted 0 to 1, and a total to share out": not 0
            <= self.power
            <= 1
            or bool(self.power and self.total is None),
            f"seed {self.seed}; wanted 0 or more": self.seed < 0,
        }
        problems = [text for text, is_wrong in checks.items() if is_wrong]
        if problems:
            raise InputError(f"the selection has {'; '.join(problems)}")

    def with_even_quota(self, num_images: int, num_classes: int) -> "Balance":
        """Return the same with an even share of the images where nothing says what K is."""
        if self.policy == "none" or any(
            value is not None for value in (self.images_per_class, self.total, self.quotas)
        ):
            return self
        return replace(self, images_per_class=max(num_images // num_classes, 1))

    def as_json(self) -> dict[str, Any]:
        """Return the settings that are set, for a view's record."""
        values = asdict(self) | {"quotas": None if self.quotas is None else dict(self.quotas)}
        return {name: value for name, value in values.items() if value is not None}

    def quotas_of(self, candidates: Counts, class_names: Sequence[str]) -> Counts:
        """Return K by class, int64 [classes].

        Args:
            candidates: Labels above the floor by class, int64 [classes].
            class_names: Names by class id.

        Raises:
            InputError: If quotas name a class that there is not, or nothing says what K is.
        """
        if self.policy == "none":
            return candidates.copy()
        if self.quotas is not None:
            unknown = sorted(self.quotas.keys() - set(class_names))
            if unknown:
                raise InputError(
                    f"quotas name {', '.join(map(repr, unknown))}; the classes are "
                    f"{', '.join(class_names)}"
                )
            return np.array([self.quotas.get(name, 0) for name in class_names], np.int64)
        if self.total is not None:
            return share_out(self.total, candidates, self.power)
        if self.images_per_class is None:
            raise InputError("nothing says how many images of a class are wanted")
        return np.full(len(class_names), self.images_per_class, np.int64)


def share_out(total: int, candidates: Counts, power: float) -> Counts:
    """Return whole shares that sum to `total`, in proportion to candidates ** power.

    By the largest remainder; of equal ones the lower class id comes first. Classes without
    candidates have none; where no class has any, all shares are 0.
    """
    weights = np.where(candidates > 0, np.power(np.maximum(candidates, 1.0), power), 0.0)
    if not weights.any():
        return np.zeros(len(candidates), np.int64)
    exact = weights / weights.sum() * total
    shares: Counts = np.floor(exact).astype(np.int64)
    left = total - int(shares.sum())
    order = np.argsort(-(exact - shares), kind="stable")
    shares[order[:left]] += 1
    return shares
