"""Options of verbs whose work a Ray cluster can do."""

from typing import TYPE_CHECKING, Annotated

import typer

from plstore.errors import InputError

if TYPE_CHECKING:
    from trainers.engines import Engine

EngineOption = Annotated[
    str, typer.Option(help="local: this process; ray: workers on a cluster, see --address.")
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        help="Of a Ray cluster, such as auto or 10.0.0.1:6379; RAY_ADDRESS unless given, else "
        "one is started here for the command."
    ),
]
WorkersOption = Annotated[
    str | None,
    typer.Option(help="Of Ray, at least and at most: 1..64; as many as fit unless given."),
]
CpusOption = Annotated[
    int, typer.Option("--cpus-per-worker", help="Of Ray: to compute and to decode with.")
]
GpusOption = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-worker",
        help="Of Ray: such as 1 or 0.5; 1 unless given where there are some.",
    ),
]


def engine_of(
    name: str, address: str | None, workers: str | None, cpus: int, gpus: float | None
) -> "Engine":
    """Return the engine that options name.

    Raises:
        InputError: If there is no such engine, or options of Ray are given without it.
    """
    from trainers.engines import HERE, Ray

    if name == "ray":
        return Ray(address=address, workers=_least_and_most(workers), cpus=cpus, gpus=gpus)
    if name != "local":
        raise InputError(f"--engine is {name!r}; wanted local or ray")
    given = {
        "--address": address is not None,
        "--workers": workers is not None,
        "--cpus-per-worker": cpus != 1,
        "--gpus-per-worker": gpus is not None,
    }
    if wrong := [option for option, is_given in given.items() if is_given]:
        raise InputError(f"{', '.join(wrong)} without --engine ray; add it, or leave them out")
    return HERE


def _least_and_most(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    low, dots, high = text.partition("..")
    numbers = [low, high if dots else low]
    if not all(number.isdecimal() for number in numbers):
        raise InputError(f"--workers is {text!r}; wanted such as 1..64, or 8")
    return int(numbers[0]), int(numbers[1])
