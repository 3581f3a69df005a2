"""Verbs of teachers' labels: label, embed, calibrate, fuse."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from plstore.cli.engines import (
    AddressOption,
    CpusOption,
    EngineOption,
    GpusOption,
    WorkersOption,
    engine_of,
)
from plstore.cli.options import FormatOption, StoreOption, print_rows
from plstore.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from plstore.labels import Ensemble
    from plstore.report.progress import Display

CodecOption = Annotated[str, typer.Option(help="topk, dense or hard.")]
KOption = Annotated[int, typer.Option("--k", help="Classes kept.")]
BackendOption = Annotated[
    str,
    typer.Option(
        help="Of the loader: threads, dali, torch; auto is DALI on a GPU, else threads, "
        "whatever the model was trained with."
    ),
]
BatchOption = Annotated[
    str,
    typer.Option(
        "--batch-size", "--batch", help="Images at once, or auto; halved where memory is short."
    ),
]
MassOption = Annotated[
    float | None, typer.Option(help="Keep only as many classes as hold this mass; --k at most.")
]


def label(
    store: StoreOption,
    teacher: Annotated[
        list[str],
        typer.Option(help="Teacher of the store, or its new name; several share one pass."),
    ],
    checkpoint: Annotated[
        str | None,
        typer.Option(help="Folder of a model to bring in: config.json, model.safetensors."),
    ] = None,
    iteration: Annotated[int, typer.Option(help="That these labels belong to.")] = 1,
    splits: Annotated[str, typer.Option(help="By commas.")] = "unlabeled,validation",
    codec: CodecOption = "topk",
    k: KOption = 20,
    mass: MassOption = None,
    temperature: Annotated[float, typer.Option(help="Logits are divided by it.")] = 1.0,
    part: Annotated[str, typer.Option(help="This worker of how many: 0/4.")] = "0/1",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    backend: BackendOption = "auto",
    batch_size: BatchOption = "auto",
    compile_: Annotated[
        bool,
        typer.Option("--compile", help="Compile the model by torch.compile: for many images."),
    ] = False,
    engine: EngineOption = "local",
    address: AddressOption = None,
    workers: WorkersOption = None,
    cpus_per_worker: CpusOption = 1,
    gpus_per_worker: GpusOption = None,
    format_: FormatOption = "table",
) -> None:
    """Label the images that a teacher has not labeled; goes on where it was stopped.

    Several teachers label as each does alone. Images are read once, and decoded once for those
    that see the same pixels: one size, crop, interpolation and number of channels.

    Examples:
      plstore label --teacher t3-1a2b3c4d --iteration 4 --store pets/store
      plstore label --teacher mine --checkpoint my-model --codec dense --store pets/store
      plstore label --teacher clip --teacher dino --batch-size 512 --store pets/store
      plstore label --teacher clip --engine ray --address auto --workers 1..64
    """
    try:
        from trainers.events import Shown
        from trainers.labeling.label import Labeling, label_by_all
        from trainers.models.bringing import bring_teacher
        from trainers.training.train import pick_device
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train", "labeling") from error
    from dataclasses import replace

    from plstore.codec import Codec
    from plstore.report.progress import Display
    from plstore.schema import SPLITS
    from plstore.store import open as open_store

    opened, display = open_store(store), Display()
    wanted = splits.split(",")
    if unknown := sorted(set(wanted) - set(SPLITS)):
        raise InputError(f"--splits has {unknown}; wanted some of {', '.join(SPLITS)}")
    if checkpoint is not None and len(teacher) > 1:
        raise InputError(
            f"--checkpoint {checkpoint} with teachers {', '.join(teacher)}; it brings one. "
            "Bring each with a call of its own, then label by all"
        )
    where = engine_of(engine, address, workers, cpus_per_worker, gpus_per_worker)
    labeling = Labeling(
        teacher_id=teacher[0],
        iteration=iteration,
        splits=wanted,
        codec=Codec(name=codec, k=k, mass=mass),  # type: ignore[arg-type]  # checked there
        temperature=temperature,
        part=_part(part),
        device=pick_device(device) if where.is_here else device,
        backend=backend,  # type: ignore[arg-type]  # checked there
        batch=batch_of(batch_size),  # type: ignore[arg-type]  # checked there
        compiled=compile_,
    )
    if checkpoint is not None:
        here = pick_device(device if where.is_here else "cpu")
        bring_teacher(opened, teacher[0], checkpoint, device=here, say=display.say)
    labelings = [replace(labeling, teacher_id=name) for name in teacher]
    counts = label_by_all(opened, labelings, engine=where, on_event=Shown(display))
    rows = [
        {"teacher": name, "split": split, "labeled": n}
        for name, found in counts.items()
        for split, n in found.items()
    ]
    if len(teacher) == 1:
        rows = [{"split": row["split"], "labeled": row["labeled"]} for row in rows]
    print_rows(rows, format_)


def batch_of(text: str) -> int | str:
    """Return images at once; what is no number is checked where it is used."""
    return int(text) if text.isdecimal() else text


def embed(
    store: StoreOption,
    teacher: Annotated[
        str | None, typer.Option(help="A teacher of the store, its classifier left off.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="timm name; that of the weights unless given.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="A .safetensors or .pth file, a folder with one, or hub: timm's."),
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(help="Pixels a side; the model's own unless given.")
    ] = None,
    splits: Annotated[str, typer.Option(help="By commas.")] = (
        "labeled,validation,unlabeled,test"
    ),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    backend: BackendOption = "auto",
    engine: EngineOption = "local",
    address: AddressOption = None,
    workers: WorkersOption = None,
    cpus_per_worker: CpusOption = 1,
    gpus_per_worker: GpusOption = None,
    format_: FormatOption = "table",
) -> None:
    """Keep a frozen model's features of images, for probes, SQL and filters on neighbours.

    They fill the table embeddings: model, split, sample_id, vector. Goes on where it was
    stopped.

    Examples:
      plstore embed --weights resnet50.safetensors --store pets/store
      plstore embed --teacher t3-1a2b3c4d --splits unlabeled --store pets/store
      plstore embed --teacher t3-1a2b3c4d --engine ray --address auto --store s3://b/pets
    """
    try:
        from trainers.events import Shown
        from trainers.features.embedding import Embedding
        from trainers.features.work import embed_images
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train", "embedding") from error
    from plstore.report.progress import Display
    from plstore.schema import SPLITS
    from plstore.store import open as open_store

    wanted = splits.split(",")
    if unknown := sorted(set(wanted) - set(SPLITS)):
        raise InputError(f"--splits has {unknown}; wanted some of {', '.join(SPLITS)}")
    embedding = Embedding(
        teacher=teacher,
        model=model,
        weights=None if weights == "hub" else weights,
        resolution=resolution,
        splits=wanted,
        device=device,
        backend=backend,  # type: ignore[arg-type]  # checked there
    )
    where = engine_of(engine, address, workers, cpus_per_worker, gpus_per_worker)
    name, counts = embed_images(
        open_store(store), embedding, engine=where, on_event=Shown(Display())
    )
    rows = [{"model": name, "split": split, "embedded": n} for split, n in counts.items()]
    print_rows(rows, format_)


def _part(text: str) -> tuple[int, int]:
    number, slash, parts = text.partition("/")
    if not (slash and number.isdigit() and parts.isdigit() and int(number) < int(parts)):
        raise InputError(f"--part is {text!r}; wanted such as 0/4 to 3/4")
    return int(number), int(parts)


def calibrate(
    store: StoreOption,
    teacher: Annotated[str, typer.Argument(help="With labels of the validation images.")],
    iteration: Annotated[int | None, typer.Option(help="Its last unless given.")] = None,
    format_: FormatOption = "table",
) -> None:
    """Fit a teacher's temperature on the validation images; show its calibration error.

    Example:
      plstore calibrate t0-1a2b3c4d --store pets/store
    """
    from dataclasses import asdict

    from plstore.labels import find_label_sets
    from plstore.store import open as open_store

    opened = open_store(store)
    label_set = find_label_sets(opened, teacher, iteration=iteration)[0]
    found = _calibrator()(opened, teacher, label_set.iteration)
    print_rows([{"teacher": teacher, **asdict(found)}], format_)


def _calibrator() -> Any:  # noqa: ANN401  a function of an extra
    try:
        from trainers.evaluation.calibration import calibrate as fit
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train", "calibration") from error
    return fit


def fuse(
    store: StoreOption,
    members: Annotated[
        list[str], typer.Argument(help="TEACHER[@ITERATION][*WEIGHT], several.")
    ],
    teacher: Annotated[str, typer.Option(help="Name of the fusion: [a-z0-9_-]+.")],
    iteration: Annotated[
        int | None, typer.Option(help="Of the fused labels; the members' last unless given.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(help="Mean: arithmetic, geometric, or votes (of hard labels)."),
    ] = "arithmetic",
    weights: Annotated[
        str,
        typer.Option(help="given (*WEIGHT), or fitted on the validation images."),
    ] = "given",
    temperatures: Annotated[
        str, typer.Option(help="1, calibrated, or one a member by commas: 1.2,0.9.")
    ] = "1",
    codec: CodecOption = "topk",
    k: KOption = 20,
    mass: MassOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    workers: WorkersOption = None,
    cpus_per_worker: CpusOption = 1,
    format_: FormatOption = "table",
) -> None:
    """Fuse the labels of several teachers into those of one, which names its members.

    Fitted weights minimise the negative log-likelihood of the fusion on the validation images
    that all members labeled, with the classes that people corrected; of votes, on those that a
    member is right about. What was found is printed, and kept (teachers, column members).

    Examples:
      plstore fuse clip dino --teacher both --store pets/store
      plstore fuse "clip*2" dino@1 --teacher both --method geometric --temperatures calibrated
      plstore fuse clip dino vit --teacher all --method votes --weights fitted
      plstore fuse clip dino --teacher both --engine ray --address auto
    """
    from dataclasses import asdict, replace

    from plstore.codec import Codec
    from plstore.labels import make_ensemble, member_of
    from plstore.report.progress import Display
    from plstore.store import open as open_store

    opened, display = open_store(store), Display()
    named = [member_of(opened, member) for member in members]
    notes: dict[str, Any] = {}
    if temperatures == "calibrated":
        fitted = [_calibrator()(opened, m.teacher_id, m.iteration) for m in named]
        notes = {m.teacher_id: asdict(f) for m, f in zip(named, fitted, strict=True)}
        values = [f.temperature for f in fitted]
    else:
        values = _temperatures(temperatures, len(named))
    named = [replace(m, temperature=t) for m, t in zip(named, values, strict=True)]
    where = engine_of(engine, address, workers, cpus_per_worker, None)
    with (
        where.connected(),
        display.task(f"fuse {len(named)} teachers", None) as advance,
    ):
        made = make_ensemble(
            opened,
            teacher,
            named,
            iteration=iteration,
            method=method,  # type: ignore[arg-type]  # checked there
            weights=weights,  # type: ignore[arg-type]  # checked there
            codec=Codec(name=codec, k=k, mass=mass),  # type: ignore[arg-type]  # checked there
            notes={"calibration": notes} if notes else None,
            spread=None if where.is_here else where.run,
            on_images=advance,
        )
    _say_weights(made, display)
    rows = [
        {"split": split, "fused": n, "not labeled by all": made.incomplete[split]}
        for split, n in made.images.items()
    ]
    print_rows(rows, format_)


def _say_weights(made: "Ensemble", display: "Display") -> None:
    found = made.weighting
    if found is None:
        return
    shares = ", ".join(f"{m.teacher_id}@{m.iteration} {m.weight:g}" for m in made.members)
    silent = found.num_images - found.num_telling
    display.say(
        f"weights fitted on {found.num_images} validation images: {shares}; negative "
        f"log-likelihood {found.nll_before:.4f} -> {found.nll_after:.4f} nats"
        f"{f' (without {silent} that no member is right about)' if silent else ''}, accuracy "
        f"{found.accuracy_before:.2f} -> {found.accuracy_after:.2f} %"
    )


def _temperatures(text: str, count: int) -> list[float]:
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        values = []
    if len(values) == 1:
        values *= count
    if len(values) != count:
        raise InputError(
            f"--temperatures is {text!r}; wanted 'calibrated', one number, or {count} by commas"
        )
    return values
