"""The verb that measures models: evaluate."""

from typing import Annotated, Any

import typer

from plstore.cli.labeling import BackendOption
from plstore.cli.options import FormatOption, StoreOption, print_rows
from plstore.cli.training import DeviceOption, programs_of_training


def evaluate(
    store: StoreOption,
    teacher: Annotated[
        list[str], typer.Argument(help="With a model, or with labels of the split.")
    ],
    splits: Annotated[str, typer.Option(help="By commas: validation, test, labeled.")] = (
        "validation,test"
    ),
    corruptions: Annotated[
        str | None, typer.Option(help="By commas, such as fog,snow; all: the 15 of mCE.")
    ] = None,
    severities: Annotated[str, typer.Option(help="Of corruptions, 1 to 5.")] = "1,2,3,4,5",
    sequences: Annotated[
        str | None, typer.Option(help="By commas, such as rotate,tilt; all: the ten of mFR.")
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

    Robustness (extra plstore[robustness]): images are made worse on the way and kept nowhere,
    what models say of them is. mCE and mFR are over the baseline's, the first teacher's unless
    given. By image: evaluation/perturbed_accuracy, evaluation/flip_probabilities.

    Examples:
      plstore evaluate t3-1a2b3c4d --splits test --store pets/store
      plstore evaluate t0-5d6e7f80 t3-1a2b3c4d control-9a8b7c6d --store pets/store
      plstore evaluate t0-5d6e7f80 t3-1a2b3c4d --splits test --corruptions all --sequences all
      plstore evaluate t3-1a2b3c4d --splits test --attacks fgsm,pgd --limit 500
    """
    programs_of_training()
    from plstore.report.progress import Display
    from plstore.store import open as open_store
    from trainers.evaluation import agreement
    from trainers.evaluation import evaluate as measure
    from trainers.events import Shown

    opened = open_store(store)
    named = {"corruptions": corruptions, "sequences": sequences, "attacks": attacks}
    asked: dict[str, Any] = {}
    if any(named.values()):  # checked before long work
        from trainers.robustness.asking import as_asked
        from trainers.robustness.evaluation import check_asked

        for split in splits.split(","):
            asked[split] = as_asked(
                **named,
                severities=severities,
                baseline=baseline,
                workers=workers,
                limit=limit,
                split=split,
                device=device,
                backend=backend,
            )
            check_asked(opened, teacher, asked[split])
    found = measure(
        opened,
        teacher,
        splits=splits.split(","),  # type: ignore[arg-type]  # checked there
        device=device,
        backend=backend,  # type: ignore[arg-type]  # checked there
        on_event=Shown(Display()),
    )
    worse: list[dict[str, Any]] = []
    if asked:
        from trainers.robustness.evaluation import robustness

        for split in dict.fromkeys(row["split"] for row in found):
            worse += robustness(opened, teacher, asked[split], on_event=Shown(Display()))
    if format_ != "table":
        print_rows(_together(found, worse), format_)
        return
    print_rows(found, format_)
    if len(teacher) > 1:
        for split in dict.fromkeys(row["split"] for row in found):
            print_rows(agreement(opened, teacher, split), format_)
    if worse:
        print_rows(worse, format_)


def _together(found: list[dict[str, Any]], worse: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each teacher and split."""
    of = {(row["teacher_id"], row["split"]): row for row in worse}
    return [row | of.get((row["teacher_id"], row["split"]), {}) for row in found]
