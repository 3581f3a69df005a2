"""What a model's features are worth: probe."""

from typing import Annotated

import typer

from plstore.cli.labeling import BackendOption
from plstore.cli.options import FormatOption, StoreOption, print_rows
from plstore.cli.training import DeviceOption, programs_of_training


def probe(
    store: StoreOption,
    model: Annotated[
        str,
        typer.Argument(
            help="A teacher, a model folder, a file or folder of weights, or a timm name."
        ),
    ],
    train: Annotated[
        str, typer.Option(help="labeled, validation or test; or DATASET/SPLIT.")
    ] = "labeled",
    test: Annotated[str, typer.Option(help="As --train, with other images.")] = "test",
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    format_: FormatOption = "table",
) -> None:
    """Fit a linear probe on a model's frozen features; its accuracy is kept in the table runs.

    Its strength C is chosen on the validation images; where those are few, on training images
    that are held out in turn too. Accuracy, with its 95 % interval (Wilson), is in percent.

    Examples:
      plstore probe t3-1a2b3c4d --train labeled --test test --store pets/store
      plstore probe resnet50.safetensors --train flowers/labeled --test flowers/test
    """
    programs_of_training()
    from plstore.report.progress import Display
    from plstore.store import open as open_store
    from trainers.evaluation.probe import probe as measure
    from trainers.events import Shown

    display = Display()
    found = measure(
        open_store(store),
        model,
        train=train,
        test=test,
        device=device,
        backend=backend,  # type: ignore[arg-type]  # checked there
        on_event=Shown(display),
    )
    for reason, count in found.dropped.items():
        display.say(f"{count} training images left out: {reason}")
    low, high = found.interval
    row = {
        "model": found.model,
        "train": found.train,
        "images": found.num_train,
        "test": found.test,
        "tested": found.num_test,
        "accuracy": round(found.accuracy, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "C": found.strength,
        "chosen by": found.chosen_by,
        "validation": found.num_validation,
    }
    print_rows([row], format_)
