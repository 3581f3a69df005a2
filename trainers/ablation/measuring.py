"""The numbers that a cell takes from the model it asks for."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from plstore.machine import num_cores
from plstore.store import Store
from trainers.ablation.cells import ResolvedCell
from trainers.ablation.grid import OF_ATTACKS, OF_CORRUPTIONS, OF_SEQUENCES, ROBUST, Worse
from trainers.context import Outputs
from trainers.events import Listener
from trainers.robustness.attacks import Attack
from trainers.robustness.evaluation import Robustness, robustness
from trainers.robustness.kinds import Corruptions, Sequences
from trainers.robustness.labeling import Asked
from trainers.robustness.published import CORRUPTIONS, PERTURBATIONS

_MADE_SECONDS: Final = {"corruption": 0.0012, "sequence": 0.0008, "attack": 0.0005}
"""Of an image of 28 pixels, made and looked at by two small models, on two cores."""

_FRAMES: Final = 31

_FEW: Final = 5_000
"""Images that are made sooner here than processes start that would make them."""


def is_robust(cell: ResolvedCell) -> bool:
    """Whether a cell measures images that were made worse."""
    return bool(ROBUST & set(cell.numbers))


def check_extra(worse: Worse) -> None:
    """Check that images can be made worse.

    Raises:
        MissingExtraError: If the extra `robustness` is not installed.
    """
    Corruptions(severities=worse.severities).identity(CORRUPTIONS[0])
    Sequences(num_frames=worse.frames).identity(PERTURBATIONS[0])


def robust_seconds(cell: ResolvedCell, worse: Worse, num_images: int) -> float:
    """Return about how long it takes to make so many images worse, or a limit of them."""
    numbers, seconds = set(cell.numbers), 0.0
    limit, few = (
        min(most or num_images, num_images) for most in (worse.limit, worse.sequence_limit)
    )
    if numbers & OF_CORRUPTIONS:
        count = limit * len(CORRUPTIONS) * len(worse.severities)
        seconds += count * _MADE_SECONDS["corruption"]
    if numbers & OF_SEQUENCES:
        count = few * len(PERTURBATIONS) * (worse.frames or _FRAMES)
        seconds += count * _MADE_SECONDS["sequence"]
    if numbers & OF_ATTACKS:
        seconds += limit * _MADE_SECONDS["attack"]
    return seconds


def measured(
    cell: ResolvedCell,
    done: Mapping[str, Outputs],
    store: Store,
    worse: Worse,
    *,
    device: str,
    on_event: Listener,
) -> dict[str, float]:
    """Return a cell's numbers, by name; one that is not known is left out.

    Args:
        cell: The cell.
        done: What the steps of its run left, by name.
        store: Of the run.
        worse: How images are made worse.
        device: "cpu" or a CUDA device.
        on_event: Told of progress.
    """
    found = done[f"evaluate-{cell.model}"]
    known: dict[str, Any] = {name: found[name] for name in cell.numbers if name in found}
    if is_robust(cell):
        names = [done["evaluate-0"]["teacher_id"], found["teacher_id"]]
        for what in _asked(cell, worse, device):
            rows = robustness(store, list(dict.fromkeys(names)), what, on_event=on_event)
            known |= _named(rows[-1], cell)
    return {name: round(float(value), 4) for name, value in known.items()}


def _asked(cell: ResolvedCell, worse: Worse, device: str) -> Sequence[Robustness]:
    """Return what is done to images: of corruptions and attacks as many, fewer of sequences."""
    numbers = set(cell.numbers)
    made = len(CORRUPTIONS) * len(worse.severities) * (worse.limit or _FEW)
    workers = num_cores() if made >= _FEW else 0
    corruptions = Corruptions(severities=worse.severities, workers=workers)
    sequences = Sequences(num_frames=worse.frames, workers=workers)
    attack = Attack(kind=worse.attack, norm="linf", epsilons=(worse.epsilon / 255,))
    asked = []
    if numbers & (OF_CORRUPTIONS | OF_ATTACKS | {"clean_accuracy"}):
        asked.append(
            Robustness(
                asked=Asked(limit=worse.limit, device=device),
                corruptions=corruptions if numbers & OF_CORRUPTIONS else None,
                attacks=[attack] if numbers & OF_ATTACKS else [],
            )
        )
    if numbers & OF_SEQUENCES:
        few = Asked(limit=worse.sequence_limit, device=device)
        asked.append(Robustness(asked=few, sequences=sequences))
    return asked


def _named(row: Mapping[str, object], cell: ResolvedCell) -> dict[str, float]:
    """Return the numbers of a row that a cell takes, by their names here."""
    named = dict(row)
    attacked = [name for name in row if "_linf " in name]  # of one attack and epsilon
    if attacked:
        named["attacked_accuracy"] = row[attacked[0]]
    return {name: float(str(named[name])) for name in cell.numbers if name in named}
