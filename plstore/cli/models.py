"""The verb that trains one model: train."""

from typing import Annotated

import typer

from plstore.cli.options import FormatOption, StoreOption, print_rows
from plstore.cli.training import (
    FOLDERS_RECIPE,
    DeviceOption,
    ModelOption,
    PretrainedOption,
    ResolutionOption,
    SetOption,
    WeightsOption,
    model_values,
    programs_of_training,
)
from plstore.errors import InputError


def train(
    store: StoreOption,
    view: Annotated[str, typer.Argument(help="VIEW[@VERSION], as plstore select makes it.")],
    teacher: Annotated[
        str | None, typer.Option(help="Name of the model; made of its settings unless given.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="Whose model, train and noise count: a TOML file, or a name.")
    ] = FOLDERS_RECIPE,
    model: ModelOption = None,
    resolution: ResolutionOption = None,
    pretrained: PretrainedOption = False,
    weights: WeightsOption = None,
    seed: Annotated[int | None, typer.Option(help="Of the training.")] = None,
    device: DeviceOption = "auto",
    set_: SetOption = None,
    format_: FormatOption = "table",
) -> None:
    """Train one model on a view; it becomes a teacher. Goes on where it was stopped.

    A view with pseudo-labels gives a student, in the recipe's ratio of labeled and
    pseudo-labeled images; one without gives a teacher.

    Examples:
      plstore train surer --teacher second --model resnet34 --store pets/store
      plstore train surer@2 --set train.steps=5000 --set noise.dialect=noisystudent
    """
    programs_of_training()
    from plstore.report.progress import Display
    from plstore.store import open as open_store
    from plstore.views import open_view
    from trainers.events import Shown
    from trainers.on_view import train_on_view
    from trainers.recipe import load_recipe
    from trainers.training.processes import join, leave

    processes = join(device)

    name, _, number = view.partition("@")
    if number and not number.isdigit():
        raise InputError(f"{view!r}; wanted VIEW or VIEW@VERSION")
    values = {"model": model_values(model, resolution, pretrained, weights)}
    loaded = load_recipe(recipe, set_ or [], values)
    if seed is not None:
        loaded = loaded.model_copy(update={"seed": seed})
    found = open_view(open_store(store), name, int(number) if number else None)
    record = train_on_view(
        found,
        loaded,
        teacher_id=teacher,
        device=device,
        on_event=Shown(Display(quiet=not processes.is_first)),
        processes=processes,
    )
    leave()
    if not processes.is_first:
        return
    row = {name: getattr(record, name) for name in ("teacher_id", "role", "architecture")}
    row |= {"view": found.key, **{k: str(v) for k, v in (record.metrics or {}).items()}}
    print_rows([row], format_)
