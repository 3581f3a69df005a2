"""The verb that measures models: evaluate."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plstore.cli.engines import (
    AddressOption,
    CpusOption,
    EngineOption,
    GpusOption,
    engine_of,
)
from plstore.cli.labeling import BackendOption
from plstore.cli.options import FormatOption, StoreOption, print_rows
from plstore.cli.training import DeviceOption, programs_of_training
from plstore.errors import InputError

if TYPE_CHECKING:
    from plstore.store import Store
    from trainers.robustness.evaluation import Robustness


def evaluate(
    store: StoreOption,
    teacher: Annotated[
        list[str], typer.Argument(help="With a model, or with labels of the split.")
    ],
    splits: Annotated[
        str | None, typer.Option(help="By commas: validation, test, labeled; the first two.")
    ] = None,
    sets: Annotated[
        str | None, typer.Option(help="Test sets by commas, or all; see import test-set.")
    ] = None,
    among: Annotated[
        str | None,
        typer.Option(help="Classes to choose from in them: all, or own; as its authors do."),
    ] = None,
    corruptions: Annotated[
        str | None, typer.Option(help="By commas, such as fog,snow; all: the 15 of mCE.")
    ] = None,
    severities: Annotated[str, typer.Option(help="Of corruptions, 1 to 5.")] = "1,2,3,4,5",
    sequences: Annotated[
        str | None, typer.Option(help="By commas, such as rotate,tilt; all: the ten of mFR.")
    ] = None,
    corruption_files: Annotated[
        Path | None, typer.Option(help="Folder of ImageNet-C, in place of made ones.")
    ] = None,
    sequence_files: Annotated[
        Path | None, typer.Option(help="Folder of ImageNet-P, in place of made ones.")
    ] = None,
    attacks: Annotated[
        str | None, typer.Option(help="By commas: fgsm, pgd (L-inf), pgd_l2.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=0, help="So many images of a split are made worse; 0: all.")
    ] = 1000,
    baseline: Annotated[
        str, typer.Option(help="Whose errors are 100 %: a teacher, or alexnet for ImageNet.")
    ] = "",
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that make images worse; all cores.")
    ] = None,
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    engine: EngineOption = "local",
    address: AddressOption = None,
    cpus_per_worker: CpusOption = 1,
    gpus_per_worker: GpusOption = None,
    format_: FormatOption = "table",
) -> None:
    """Measure models on images that no one trains on; kept in the table runs.

    What they say is kept as labels of the split, which images are read for once. Columns:
    top-1 accuracy with its 95 % interval, and top-5 accuracy, in percent; nll, the negative
    log-likelihood in nats; Brier score; expected calibration error. Of several teachers a
    second table says how alike they are. More of the same labels:

      plstore query run evaluation/per_class --split test
      plstore query run evaluation/confusions
      plstore query run evaluation/selective_accuracy

    With --engine ray, a cluster labels the images; those that are made worse are looked at
    here.

    Robustness (extra plstore[robustness]): images are made worse on the way and kept nowhere,
    what models say of them is. mCE and mFR are over the baseline's, the first teacher's unless
    given. By image: evaluation/perturbed_accuracy, evaluation/flip_probabilities.

    Examples:
      plstore evaluate t3-1a2b3c4d --splits test --store pets/store
      plstore evaluate t0-5d6e7f80 t3-1a2b3c4d --sets imagenet-v2,imagenet-a --store in1k/store
      plstore evaluate t0-5d6e7f80 t3-1a2b3c4d control-9a8b7c6d --store pets/store
      plstore evaluate t0-5d6e7f80 t3-1a2b3c4d --splits test --corruptions all --sequences all
      plstore evaluate t3-1a2b3c4d --splits test --attacks fgsm,pgd --limit 500
      plstore evaluate t3-1a2b3c4d --splits validation --corruption-files imagenet-c/ --limit 0
    """
    programs_of_training()
    from plstore.report.progress import Display
    from plstore.store import open as open_store
    from trainers.evaluation.evaluate import evaluate as measure
    from trainers.evaluation.measured import answers
    from trainers.events import Shown

    opened, chosen = open_store(store), _splits(splits, sets)
    named_sets = sets.split(",") if sets else []
    if among not in {None, "all", "own"}:
        raise InputError(f"--among is {among!r}; wanted all or own")
    if among is not None and not named_sets:
        raise InputError("--among is of test sets; name some with --sets")
    asked = _asked(  # checked before long work
        opened,
        teacher,
        chosen,
        named={
            "corruptions": corruptions,
            "sequences": sequences,
            "attacks": attacks,
            "corruption_files": corruption_files,
            "sequence_files": sequence_files,
        },
        severities=severities,
        baseline=baseline,
        workers=workers,
        limit=limit,
        device=device,
        backend=backend,
    )
    found = measure(
        opened,
        teacher,
        splits=chosen,  # type: ignore[arg-type]  # checked there
        sets=named_sets,
        among=among,  # type: ignore[arg-type]  # checked above
        device=device,
        backend=backend,  # type: ignore[arg-type]  # checked there
        engine=engine_of(engine, address, None, cpus_per_worker, gpus_per_worker),
        on_event=Shown(Display()),
    )
    worse: list[dict[str, Any]] = []
    for split in dict.fromkeys(row["split"] for row in found if "dataset" not in row):
        if split in asked:
            from trainers.robustness.evaluation import robustness

            worse += robustness(opened, teacher, asked[split], on_event=Shown(Display()))
    right = answers(opened, teacher, splits=chosen, sets=named_sets, among=among)  # type: ignore[arg-type]
    if format_ != "table":
        print_rows(_together(found, worse, right), format_)
        return
    _print_tables(opened, teacher, found)
    if right:
        print_rows(right, "table")
    if worse:
        print_rows(worse, format_)


def _asked(
    store: "Store",
    teachers: list[str],
    splits: list[str],
    *,
    named: dict[str, Any],
    **asked: Any,  # noqa: ANN401  of as_asked, checked there
) -> dict[str, "Robustness"]:
    """Return what is done to the images of each split, if anything is."""
    if not any(named.values()):
        return {}
    if not splits:
        raise InputError(
            "corruptions, sequences and attacks want --splits; found test sets alone"
        )
    from trainers.robustness.asking import as_asked
    from trainers.robustness.evaluation import check_asked

    found = {}
    for split in splits:
        found[split] = as_asked(**named, split=split, **asked)
        check_asked(store, teachers, found[split])
    return found


def _print_tables(store: "Store", teachers: list[str], found: list[dict[str, Any]]) -> None:
    """Print what teachers are worth, and how alike they are."""
    from trainers.evaluation.evaluate import agreement

    for rows in _tables(found):
        print_rows(rows, "table")
    for images in dict.fromkeys(map(_images, found)) if len(teachers) > 1 else ():
        alike = agreement(store, teachers, *images)  # type: ignore[arg-type]  # of `measure`
        print_rows(alike, "table")


def _splits(splits: str | None, sets: str | None) -> list[str]:
    """Return the splits that are meant: none where test sets are named alone."""
    if splits is not None:
        return splits.split(",")
    return [] if sets else ["validation", "test"]


def _images(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["split"], row.get("dataset", ""), row.get("among", "all")


def _tables(found: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield rows that have the same columns: of splits, and of test sets."""
    for is_of_sets in (False, True):
        if rows := [row for row in found if ("dataset" in row) is is_of_sets]:
            yield rows


def _together(
    found: list[dict[str, Any]], worse: list[dict[str, Any]], right: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return one row for each teacher and images, and each source of further answers."""
    of = {(row["teacher_id"], row["split"]): row for row in worse}
    rows = [
        row if "dataset" in row else row | of.get((row["teacher_id"], row["split"]), {})
        for row in found
    ]
    rows += right
    columns = dict.fromkeys(column for row in rows for column in row)
    return [{column: row.get(column) for column in columns} for row in rows]
