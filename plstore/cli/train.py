"""Verbs that train and use models: run and predict."""

from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from plstore.cli.label import BackendOption
from plstore.cli.options import FormatOption, StoreOption, print_rows
from plstore.errors import MissingExtraError
from plstore.storage import location

_FOLDERS_RECIPE = "images"


def run(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A TOML file, or fashion_mnist or images, which ship with plstore."
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            envvar="PLSTORE_STORE",
            help="Folder or s3:// URL of the store; plstore-NAME/store unless given. "
            "result.json and report.html are left beside one named store, NAME.result.json and "
            "NAME.report.html beside one of another name.",
        ),
    ] = None,
    labeled: Annotated[
        Path | None, typer.Option(help="Your images: a folder for each class.")
    ] = None,
    unlabeled: Annotated[
        Path | None, typer.Option(help="Your images without labels, anywhere below.")
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="As --labeled; split off by a seeded hash unless given.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="As --labeled; only ever evaluated on.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Any timm model of images.")] = None,
    resolution: Annotated[int | None, typer.Option(help="Pixels a side.")] = None,
    pretrained: Annotated[
        bool,
        typer.Option(
            "--pretrained", help="Start from timm's weights: from its cache, or the network."
        ),
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option(help="Start from those of a .safetensors file, or of a folder with one."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a value: --set train.steps=500. Repeatable."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Run several: 0..4 or 0,3,7; one folder a seed.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print steps, images, time and disk; do nothing.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
    format_: FormatOption = "table",
) -> None:
    """Run Noisy Student: train, label, select, train again. Goes on where it was stopped.

    Examples:
      plstore run fashion_mnist --store demo/store
      plstore run --labeled pets/labeled --unlabeled pets/all --test pets/test --dry-run
      plstore run fashion_mnist --set train.steps=500 --seeds 0..4 --store seeds/store
    """
    programs = _programs()
    from plstore.report.progress import Display
    from trainers.recipe import load_recipe

    folders = {
        "labeled": labeled,
        "unlabeled": unlabeled,
        "validation": validation,
        "test": test,
    }
    named = {name: str(path) for name, path in folders.items() if path is not None}
    if not named and recipe is None:
        raise typer.BadParameter(
            "name a recipe (plstore run fashion_mnist), or your own images with --labeled "
            "and --unlabeled"
        )
    wishes = {
        "teacher": model,
        "resolution": resolution,
        "pretrained": pretrained or None,
        "weights": None if weights is None else str(weights),
    }
    values: dict[str, dict[str, object]] = {
        "data": {"source": "folders", **named} if named else {},
        "model": {name: value for name, value in wishes.items() if value is not None},
    }
    loaded = load_recipe(recipe or _FOLDERS_RECIPE, set_ or [], values)
    home = location(store if store is not None else f"plstore-{loaded.name}/store")
    display = Display(quiet=quiet)
    if dry_run and seeds is not None:
        raise typer.BadParameter("--dry-run estimates one run: leave --seeds out")
    if dry_run:
        rows = programs.dry_run(loaded, home, device=device, display=display)
    elif seeds is not None:
        rows = programs.run_seeds(
            loaded, home, programs.parse_seeds(seeds), device=device, display=display
        )
    else:
        rows = programs.run_recipe(loaded, home, device=device, display=display)
    print_rows(rows, format_)


def predict(
    folder: Annotated[Path, typer.Argument(help="Images anywhere below.")],
    store: StoreOption,
    teacher: Annotated[
        str | None, typer.Option(help="Teacher id; the last student unless given.")
    ] = None,
    probabilities: Annotated[
        bool,
        typer.Option("--probabilities", help="Also a column prob_CLASS for each class."),
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    backend: BackendOption = "auto",
    format_: FormatOption = "table",
) -> None:
    """Say what a trained model sees in a folder of images.

    Columns: path, below the folder; class; confidence, 0 to 1; and verdict: accepted, or why
    there is no class. plstore import predictions takes them.

    Examples:
      plstore predict new-photos --store pets/store --format csv > predictions.csv
      plstore predict new-photos --store pets/store --probabilities --format csv > probs.csv
    """
    _programs()
    from plstore.report.progress import Display
    from plstore.store import open as open_store
    from trainers.prediction import Prediction
    from trainers.prediction import predict as look

    prediction = Prediction(
        teacher_id=teacher,
        device=device,
        backend=backend,  # type: ignore[arg-type]  # checked there
        with_probabilities=probabilities,
    )
    print_rows(look(open_store(store), folder, prediction, Display()), format_)


def _programs() -> ModuleType:
    try:
        from trainers import programs
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train", "training") from error
    return programs
