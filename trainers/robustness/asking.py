"""What the command line asks of robustness, from its words."""

from pathlib import Path
from typing import Any

from plstore.errors import InputError
from plstore.machine import num_cores
from trainers.robustness.evaluation import Robustness
from trainers.robustness.kinds import ATTACKS, Corruptions, Sequences
from trainers.robustness.labeling import Asked
from trainers.robustness.official import CorruptedFiles, SequenceFiles
from trainers.robustness.published import CORRUPTIONS, PERTURBATIONS


def as_asked(
    *,
    corruptions: str | None,
    severities: str,
    sequences: str | None,
    attacks: str | None,
    baseline: str,
    workers: int | None,
    corruption_files: Path | None = None,
    sequence_files: Path | None = None,
    **asked: Any,  # noqa: ANN401  of Asked, checked there
) -> Robustness:
    """Return what is done to images.

    Args:
        corruptions: Names by commas, or "all" for the 15 of mCE; None for none.
        severities: Numbers by commas.
        sequences: Names by commas, or "all" for the ten of mFR; None for none.
        attacks: Names of `ATTACKS` by commas; None for none.
        baseline: As in `Robustness`.
        workers: Processes; the cores of this machine unless given.
        corruption_files: Folder of ImageNet-C, in place of made ones.
        sequence_files: Folder of ImageNet-P, in place of made ones.
        **asked: Of `Asked`.

    Raises:
        InputError: If a name or a number is none of those that there are.
    """
    count = num_cores() if workers is None else workers
    wrong = [word for word in severities.split(",") if not word.strip().isdecimal()]
    if wrong:
        raise InputError(f"--severities is {severities!r}; wanted numbers such as 1,3,5")
    named = attacks.split(",") if attacks else []
    if unknown := [name for name in named if name not in ATTACKS]:
        raise InputError(f"attack is {', '.join(unknown)}; wanted some of {', '.join(ATTACKS)}")
    levels = tuple(int(word) for word in severities.split(","))
    return Robustness(
        asked=Asked(**asked),
        corruptions=_corruptions(corruptions, levels, count, corruption_files),
        sequences=_sequences(sequences, count, sequence_files),
        attacks=[ATTACKS[name] for name in named],
        baseline=baseline,
    )


def _corruptions(
    words: str | None, levels: tuple[int, ...], workers: int, folder: Path | None
) -> Corruptions | CorruptedFiles | None:
    if folder is not None:
        named = () if words in {None, "all"} else _names(str(words), ())
        return CorruptedFiles(folder=folder, names=named, severities=levels)
    if not words:
        return None
    return Corruptions(names=_names(words, CORRUPTIONS), severities=levels, workers=workers)


def _sequences(
    words: str | None, workers: int, folder: Path | None
) -> Sequences | SequenceFiles | None:
    if folder is not None:
        named = () if words in {None, "all"} else _names(str(words), ())
        return SequenceFiles(folder=folder, names=named)
    if not words:
        return None
    return Sequences(names=_names(words, PERTURBATIONS), workers=workers)


def _names(words: str, every: tuple[str, ...]) -> tuple[str, ...]:
    return every if words == "all" else tuple(words.split(","))
