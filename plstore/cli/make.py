"""Verbs that fill a store: init and import."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plstore.cli.options import FormatOption, StoreOption, print_rows, with_examples

if TYPE_CHECKING:
    from plstore.exchange import Source

importing = typer.Typer(help="Bring images into a store.", no_args_is_help=True)


def init(store: StoreOption) -> None:
    """Make an empty store.

    Example:
      plstore init --store pets/store
    """
    from plstore.store import create

    print(create(store).root)


@importing.command("images")
@with_examples
def import_images(
    store: StoreOption,
    labeled: Annotated[Path, typer.Option(help="A folder for each class, images below it.")],
    unlabeled: Annotated[Path, typer.Option(help="Images anywhere below this folder.")],
    validation: Annotated[Path | None, typer.Option(help="As --labeled.")] = None,
    test: Annotated[Path | None, typer.Option(help="As --labeled; never trained on.")] = None,
    validation_fraction: Annotated[
        float, typer.Option(help="Share of --labeled split off without --validation.")
    ] = 0.15,
    seed: Annotated[int, typer.Option(help="Draws that share.")] = 0,
    dataset: Annotated[str, typer.Option(help="Name of the collection.")] = "images",
    max_pixels: Annotated[int, typer.Option(help="Larger images are refused.")] = 64_000_000,
    format_: FormatOption = "table",
) -> None:
    """Import folders of images: a class is a folder's name.

    Example:
      plstore import images --store pets/store --labeled pets/labeled --unlabeled pets/all
    """
    from plstore.exchange import image_folders

    source = image_folders(
        labeled=labeled,
        unlabeled=unlabeled,
        validation=validation,
        test=test,
        validation_fraction=validation_fraction,
        seed=seed,
        dataset=dataset,
    )
    _import(store, source, max_pixels, format_)


@importing.command("parquet")
@with_examples
def import_parquet(
    store: StoreOption,
    folder: Annotated[Path, typer.Argument(help="Folder of labeled.parquet and the others.")],
    dataset: Annotated[str, typer.Option(help="Name of the collection.")] = "images",
    max_pixels: Annotated[int, typer.Option(help="Larger images are refused.")] = 64_000_000,
    format_: FormatOption = "table",
) -> None:
    """Import Parquet files with images inside, as the datasets library lays them out.

    Example:
      plstore import parquet trainers/data/fashion_mnist --store fashion/store
    """
    from plstore.exchange import parquet_folder

    _import(store, parquet_folder(folder, dataset=dataset), max_pixels, format_)


@importing.command("idx")
@with_examples
def import_idx(
    store: StoreOption,
    folder: Annotated[Path, typer.Argument(help="Folder of the four IDX files.")],
    labeled: Annotated[int, typer.Option(help="Labeled images, as many of every class.")] = 300,
    validation: Annotated[int, typer.Option(help="Validation images.")] = 1000,
    unlabeled: Annotated[
        int | None, typer.Option(help="Unlabeled images; all the rest unless given.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Class names, by commas; Fashion-MNIST's unless given.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws who goes where.")] = 0,
    dataset: Annotated[str, typer.Option(help="Name of the collection.")] = "fashion_mnist",
    format_: FormatOption = "table",
) -> None:
    """Import IDX files, such as the whole of Fashion-MNIST.

    Example:
      plstore import idx /usr/share/datasets/fashion-mnist --store full/store --labeled 1000
    """
    from plstore.exchange import IdxSplits, idx_files
    from trainers.data import FASHION_MNIST_CLASSES

    names = FASHION_MNIST_CLASSES if classes is None else tuple(classes.split(","))
    splits = IdxSplits(
        num_labeled=labeled, num_validation=validation, num_unlabeled=unlabeled, seed=seed
    )
    source = idx_files(folder, class_names=names, splits=splits, dataset=dataset)
    _import(store, source, 64_000_000, format_)


def _import(path: Path, source: "Source", max_pixels: int, format_: str) -> None:
    from plstore.report.progress import Display
    from plstore.store import create, import_images

    with Display().task("import images", source.num_images) as advance:
        counts = import_images(
            create(path),
            source.records(),
            dataset=source.dataset,
            class_names=source.class_names,
            max_pixels=max_pixels,
            on_progress=advance,
        )
    rows = [{"what": "already there", "images": counts.already_there}]
    rows += [{"what": k, "images": n} for k, n in sorted(counts.verdicts.items())]
    rows += [
        {"what": f"of these converted, {k}", "images": n}
        for k, n in sorted(counts.conversions.items())
    ]
    print_rows(rows, format_)
