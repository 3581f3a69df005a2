"""The verb that does all of it: run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from plstore.cli.options import FormatOption, print_rows
from plstore.errors import InputError, MissingExtraError
from plstore.storage import location

if TYPE_CHECKING:
    from plstore.exchange import Source
    from plstore.report.progress import Display
    from trainers.planning import Wishes
    from trainers.recipe import Recipe

FOLDERS_RECIPE = "images"
_HUB = "hub"
_NEEDED = {
    "labeled": "your images with a folder for each class",
    "unlabeled": "a folder of images whose class nobody knows",
}
_METHODS = {"probe": "probe", "finetune": "finetune", "noisy-student": "scratch"}

RecipeArgument = Annotated[
    str | None,
    typer.Argument(
        help="A TOML file, or one that ships: images, probe, finetune, fashion_mnist, cifar10, "
        "svhn_b0, imagenet_b0_b0, imagenet_resnet50, imagenet_b7_l2."
    ),
]
ModelOption = Annotated[str | None, typer.Option("--model", help="Any timm model of images.")]
ResolutionOption = Annotated[
    int | None, typer.Option("--resolution", min=8, max=1024, help="Pixels a side.")
]
PretrainedOption = Annotated[
    bool,
    typer.Option("--pretrained", help="The same as --weights hub."),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights",
        help="Start from those of a .safetensors or .pth file, of a folder with one, or, by "
        "'hub', from timm's: of its cache, or the network.",
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a value: --set train.steps=500. Repeatable."),
]


def run(
    recipe: RecipeArgument = None,
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
    teacher: Annotated[
        str | None,
        typer.Option(help="A teacher of the store in place of the first training."),
    ] = None,
    model: ModelOption = None,
    resolution: ResolutionOption = None,
    pretrained: PretrainedOption = False,
    weights: WeightsOption = None,
    device: DeviceOption = "auto",
    set_: SetOption = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            help="One more first teacher: a file or folder of weights, or a timm name, from "
            "the hub. Its labels and the first's are fused, by votes. Repeatable."
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="probe, finetune or noisy-student (from random weights); or "
            "TEACHER:STUDENTS, such as probe:noisy-student."
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Time for all of it, such as 30m or 2h, for the plan of one's own images; "
            "30m on a CPU and none on a GPU unless given. With --seeds, of each."
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Run several: 0..4 or 0,3,7; one folder a seed.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print plan, steps, images, time and disk; run nothing."
        ),
    ] = False,
    card: Annotated[
        str | None,
        typer.Option(
            help="With --dry-run: count operations, memory and hours on a card that need not "
            "be here, such as 'H100 SXM' or 'A100 80GB'."
        ),
    ] = None,
    cards: Annotated[
        int, typer.Option(min=1, help="With --dry-run: how many cards share a step.")
    ] = 1,
    patience: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="End the run after so many students that were no better on validation images.",
        ),
    ] = None,
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard",
            help="Write metrics for TensorBoard too, beside the store; metrics.jsonl and the "
            "table runs have them anyway.",
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
    format_: FormatOption = "table",
) -> None:
    """Run Noisy Student: train, label, select, train again. Goes on where it was stopped.

    Of your own folders, without a recipe, it first makes a plan that fits them, this machine
    and the --budget, says why, and keeps it as plan.toml beside the store. With a --store that
    has images, and neither recipe nor folders, it plans for those. With --teacher, that one
    labels first; one without a model (predictions, a fusion) has labels.

    Examples:
      plstore run fashion_mnist --store demo/store
      plstore run --labeled pets/labeled --unlabeled pets/all --test pets/test --dry-run
      plstore run --labeled pets/labeled --unlabeled pets/all --weights hub --budget 2h
      plstore run --labeled pets/labeled --unlabeled pets/all --weights hub --also resnet50
      plstore run --store pets/store --teacher clip
      plstore run imagenet_b7_l2 --dry-run --card "A100 80GB" --cards 512
      plstore run fashion_mnist --set train.steps=500 --seeds 0..4 --store seeds/store
      torchrun --nproc-per-node 8 -m plstore run imagenet_b0_b0 --store in1k/store
    """
    programs = programs_of_training()
    from plstore.report.progress import Display
    from trainers.training.processes import join

    processes = join(device)
    if not processes.is_first:
        programs.take_part(device, processes)
        return
    _check_together(dry_run, card, seeds)
    folders = {
        "labeled": labeled,
        "unlabeled": unlabeled,
        "validation": validation,
        "test": test,
    }
    named = {name: str(path) for name, path in folders.items() if path is not None}
    display = Display(quiet=quiet)
    chosen = {**model_values(model, resolution, pretrained, weights), **_also(also or [])}
    told = _Told(recipe, store, named, chosen, method, budget, set_ or [], device, teacher)
    asked = _planned(told, display) if recipe is None else _named(told)
    given = {"teacher": teacher, "patience": patience}
    changes = {name: value for name, value in given.items() if value is not None}
    loaded = asked.recipe.model_copy(update=changes)
    if dry_run:
        rows = programs.dry_run(
            loaded,
            asked.home,
            device=device,
            display=display,
            source=asked.source,
            card=card,
            cards=cards,
        )
    else:
        rows = programs.run_all(
            loaded,
            asked.home,
            seeds=None if seeds is None else programs.parse_seeds(seeds),
            device=device,
            display=display,
            source=asked.source,
            budget=asked.seconds,
            processes=processes,
            tensorboard=tensorboard,
        )
    programs.end_together(processes)
    print_rows(rows, format_)


class _Told(NamedTuple):
    """What the command line says of recipe, images and store."""

    recipe: str | None
    store: str | None
    folders: Mapping[str, str]
    model: dict[str, object]
    method: str | None
    budget: str | None
    overrides: Sequence[str]
    device: str
    teacher: str | None

    @property
    def home(self) -> Path:
        """The store's place."""
        return location(self.store or f"plstore-{self.recipe or FOLDERS_RECIPE}/store")

    @property
    def data(self) -> dict[str, object]:
        """Values of a recipe's section `data`."""
        if self.folders:
            self._check_folders()
            return {"source": "folders", **self.folders}
        if self.recipe is not None:
            return {}
        if self.store is None:
            raise typer.BadParameter(
                "name a recipe (plstore run fashion_mnist), your own images with --labeled and "
                "--unlabeled, or a --store that has images"
            )
        return {"source": "store"}

    def _check_folders(self) -> None:
        """Stop where a folder is not named that every run has; a recipe file may name it."""
        set_ = {override.partition("=")[0].strip() for override in self.overrides}
        for name, what in _NEEDED.items():
            if not (self.recipe or name in self.folders or f"data.{name}" in set_):
                given = ", ".join(f"--{folder}" for folder in self.folders)
                raise typer.BadParameter(f"{given} given, and no --{name}: wanted {what}")


class _Asked(NamedTuple):
    """What is to be run, where, on which listed images, in how many seconds."""

    recipe: "Recipe"
    home: Path
    source: "Source | None" = None
    seconds: float | None = None


def _planned(told: _Told, display: "Display") -> _Asked:
    """Return the plan for folders of images, or for those of a store."""
    from plstore.store import Store
    from trainers.loop import given_teacher
    from trainers.planning.planned import planned_recipe

    wishes = _wishes(told)
    home = told.home
    if told.teacher is not None:
        given_teacher(Store(home), told.teacher)
    recipe, source = planned_recipe(
        told.data,
        wishes,
        told.overrides,
        programs_of_training().beside(home, "plan.toml"),
        store=Store(home),
        device=told.device,
        display=display,
    )
    return _Asked(recipe, home, source if told.folders else None, wishes.seconds)


def _check_together(dry_run: bool, card: str | None, seeds: str | None) -> None:
    if card is not None and not dry_run:
        raise typer.BadParameter("--card is for --dry-run: a run uses what is here")
    if dry_run and seeds is not None:
        raise typer.BadParameter("--dry-run estimates one run: leave --seeds out")


def _named(told: _Told) -> _Asked:
    """Return a recipe that is named."""
    from trainers.recipe import load_recipe

    if told.budget is not None:
        raise typer.BadParameter(
            f"--budget is for a plan, and {told.recipe} is a recipe: leave one of them out, or "
            "set what the recipe takes by --set train.steps=500"
        )
    values = {"data": told.data, "model": told.model, "method": _methods(told.method)}
    recipe = load_recipe(str(told.recipe), told.overrides, values)
    home = told.home if told.store is not None else location(f"plstore-{recipe.name}/store")
    return _Asked(recipe, home)


def _also(names: Sequence[str]) -> dict[str, object]:
    """Return the values of a recipe's section `model` that --also names."""
    from trainers.models.pretrained import architecture_of

    found: list[dict[str, object]] = []
    for name in names:
        if not Path(name).exists():
            found.append({"architecture": name, "pretrained": True})
        elif (model := architecture_of(name)) is not None:
            found.append({"architecture": model, "weights": name})
        else:
            raise InputError(
                f"--also {name} does not say of which model it is: no config.json of timm, no "
                "name of one. Name the file as timm does, such as resnet50.safetensors"
            )
    return {"also": found} if found else {}


def _methods(method: str | None) -> dict[str, object]:
    """Return the values of a recipe's section `method` that --method names."""
    if method is None:
        return {}
    teacher, colon, students = method.partition(":")
    names = (teacher, students if colon else teacher)
    if unknown := [name for name in names if name not in _METHODS]:
        raise InputError(
            f"--method {method!r}: {unknown[0]!r} is none; wanted {', '.join(_METHODS)}, or "
            "TEACHER:STUDENTS of them"
        )
    return dict(zip(("teacher", "students"), (_METHODS[name] for name in names), strict=True))


def _wishes(told: _Told) -> "Wishes":
    from trainers.planning import DEFAULT_BUDGET, Wishes, parse_budget
    from trainers.training.train import pick_device

    chosen, budget = told.model, told.budget
    seconds = DEFAULT_BUDGET if pick_device(told.device) == "cpu" else None
    return Wishes(
        model=chosen.get("architecture"),  # type: ignore[arg-type]  # as options name them
        resolution=chosen.get("resolution"),  # type: ignore[arg-type]
        weights=chosen.get("weights"),  # type: ignore[arg-type]
        pretrained=bool(chosen.get("pretrained")),
        also=tuple(chosen.get("also", ())),  # type: ignore[arg-type]
        is_taught=told.teacher is not None,
        **_methods(told.method),  # type: ignore[arg-type]
        seconds=seconds if budget is None else parse_budget(budget),
    )


def model_values(
    model: str | None, resolution: int | None, pretrained: bool, weights: str | None
) -> dict[str, object]:
    """Return the values of a recipe's section that options name.

    Weights of a file that says of which model they are name the model too.
    """
    is_named = weights is None or weights == _HUB or not Path(weights).exists()
    if model is None and not is_named:
        from trainers.models.pretrained import architecture_of

        model = architecture_of(str(weights))
    wishes = {
        "architecture": model,
        "resolution": resolution,
        "pretrained": pretrained or weights == _HUB or None,
        "weights": None if weights == _HUB else weights,
    }
    return {name: value for name, value in wishes.items() if value is not None}


def programs_of_training() -> ModuleType:
    """Return `trainers.programs`, or say which extra is not installed."""
    try:
        from trainers import programs
        from trainers.training.threads import use_threads
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train", "training") from error
    use_threads()
    return programs
