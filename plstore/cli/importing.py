"""Verbs that fill a store: init and import."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plstore.cli.options import FormatOption, StoreOption, print_rows, with_examples

if TYPE_CHECKING:
    from plstore.exchange import Source

verbs = typer.Typer(help="Bring images into a store.", no_args_is_help=True)


InPlaceOption = Annotated[
    bool,
    typer.Option(
        "--in-place", help="Keep path, size and hash, not the bytes; files must stay."
    ),
]
DatasetOption = Annotated[str, typer.Option(help="Name of the collection.")]
MaxPixelsOption = Annotated[int, typer.Option(help="Larger images are refused.")]
FractionOption = Annotated[
    float, typer.Option(help="Share of labeled images split off where none are for validation.")
]


def init(
    store: StoreOption,
    profile: Annotated[
        str,
        typer.Option(
            help="Of Parquet files: compact, or portable (Spark before 4.1 reads it)."
        ),
    ] = "compact",
) -> None:
    """Make an empty store.

    Examples:
      plstore init --store pets/store
      plstore init --store s3://bucket/pets --profile portable
    """
    from plstore.store import create

    if profile not in {"compact", "portable"}:
        raise typer.BadParameter(f"--profile is {profile!r}; wanted compact or portable")
    print(create(store, profile=profile).root)  # type: ignore[arg-type]  # checked above


@verbs.command("images")
@with_examples
def import_images(
    store: StoreOption,
    labeled: Annotated[
        Path | None,
        typer.Option(help="A folder for each class, images below it; not needed again."),
    ] = None,
    unlabeled: Annotated[
        Path | None, typer.Option(help="Images anywhere below this folder.")
    ] = None,
    validation: Annotated[Path | None, typer.Option(help="As --labeled.")] = None,
    test: Annotated[Path | None, typer.Option(help="As --labeled; never trained on.")] = None,
    validation_fraction: FractionOption = 0.15,
    seed: Annotated[int, typer.Option(help="Draws that share.")] = 0,
    dataset: DatasetOption = "images",
    max_pixels: MaxPixelsOption = 64_000_000,
    in_place: InPlaceOption = False,
    format_: FormatOption = "table",
) -> None:
    """Import folders of images: a class is a folder's name.

    Images in the store keep their split, so the same folders may grow and be imported again.
    Another pool with the same file names wants a name of its own.

    Examples:
      plstore import images --store pets/store --labeled pets/labeled --unlabeled pets/all
      plstore import images --store pets/store --unlabeled holiday/all --dataset holiday
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
    _import(store, source, max_pixels, format_, in_place=in_place)


@verbs.command("parquet")
@with_examples
def import_parquet(
    store: StoreOption,
    folder: Annotated[Path, typer.Argument(help="Folder of labeled.parquet and the others.")],
    dataset: DatasetOption = "images",
    max_pixels: MaxPixelsOption = 64_000_000,
    format_: FormatOption = "table",
) -> None:
    """Import Parquet files with images inside, as the datasets library lays them out.

    Example:
      plstore import parquet trainers/data/fashion_mnist --store fashion/store
    """
    from plstore.exchange import parquet_folder

    _import(store, parquet_folder(folder, dataset=dataset), max_pixels, format_)


@verbs.command("idx")
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
    dataset: DatasetOption = "fashion_mnist",
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


@verbs.command("table")
@with_examples
def import_table(
    store: StoreOption,
    listing: Annotated[Path, typer.Argument(help="CSV with a header, or Parquet.")],
    path_column: Annotated[str, typer.Option(help="Paths or URLs of images.")] = "path",
    label_column: Annotated[
        str, typer.Option(help="Classes; class, class_name, ... found; '' for no labels.")
    ] = "label",
    split_column: Annotated[str, typer.Option(help="Splits, if there is such.")] = "split",
    validation_fraction: FractionOption = 0.15,
    seed: Annotated[int, typer.Option(help="Draws that share.")] = 0,
    dataset: DatasetOption = "images",
    max_pixels: MaxPixelsOption = 64_000_000,
    in_place: InPlaceOption = False,
    format_: FormatOption = "table",
) -> None:
    """Import images that a CSV or Parquet file names by path.

    Example:
      plstore import table pool.csv --path-column file --in-place --store pets/store
    """
    from plstore.exchange import ListingColumns, image_listing

    source = image_listing(
        listing,
        columns=ListingColumns(path=path_column, label=label_column, split=split_column),
        validation_fraction=validation_fraction,
        seed=seed,
        dataset=dataset,
    )
    _import(store, source, max_pixels, format_, in_place=in_place)


@verbs.command("datasets")
@with_examples
def import_datasets(
    store: StoreOption,
    name: Annotated[str, typer.Argument(help="A folder, or a name on the hub.")],
    labeled: Annotated[str | None, typer.Option(help="Its split: train[:10%].")] = None,
    unlabeled: Annotated[str | None, typer.Option(help="Its split: train[10%:].")] = None,
    validation: Annotated[str | None, typer.Option(help="Its split.")] = None,
    test: Annotated[str | None, typer.Option(help="Its split.")] = None,
    image_column: Annotated[str, typer.Option(help="Of an Image feature.")] = "image",
    label_column: Annotated[str, typer.Option(help="Of a ClassLabel, or values.")] = "label",
    streaming: Annotated[
        bool, typer.Option("--streaming", help="Read while it is downloaded; no local copy.")
    ] = False,
    dataset: Annotated[str | None, typer.Option(help="Name of the collection.")] = None,
    max_pixels: MaxPixelsOption = 64_000_000,
    in_place: InPlaceOption = False,
    format_: FormatOption = "table",
) -> None:
    """Import a data set of the datasets library, local or from the hub.

    Examples:
      plstore import datasets cifar10 --labeled "train[:10%]" --unlabeled "train[10%:]"
      plstore import datasets my-folder --labeled train --test test --image-column img
    """
    from plstore.errors import MissingExtraError

    try:
        from plstore.exchange.datasets import datasets_splits
    except ModuleNotFoundError as error:
        raise MissingExtraError("datasets", "train", "importing its data sets") from error
    named = {
        "labeled": labeled,
        "unlabeled": unlabeled,
        "validation": validation,
        "test": test,
    }
    source = datasets_splits(
        name,
        {ours: theirs for ours, theirs in named.items() if theirs is not None},
        image_column=image_column,
        label_column=label_column,
        streaming=streaming,
        dataset=dataset,
    )
    _import(store, source, max_pixels, format_, in_place=in_place)


@verbs.command("webdataset")
@with_examples
def import_webdataset(
    store: StoreOption,
    labeled: Annotated[list[Path] | None, typer.Option(help="Tars; repeatable.")] = None,
    unlabeled: Annotated[list[Path] | None, typer.Option(help="Tars; repeatable.")] = None,
    validation: Annotated[list[Path] | None, typer.Option(help="Tars; repeatable.")] = None,
    test: Annotated[list[Path] | None, typer.Option(help="Tars; repeatable.")] = None,
    classes: Annotated[
        str | None, typer.Option(help="Names of the numbers in .cls, by commas.")
    ] = None,
    dataset: DatasetOption = "images",
    max_pixels: MaxPixelsOption = 64_000_000,
    format_: FormatOption = "table",
) -> None:
    """Import WebDataset tars: an image and its .cls or .json under one name.

    Example:
      plstore import webdataset --labeled a.tar --labeled b.tar --unlabeled pool.tar
    """
    from plstore.exchange import tar_files

    named = {
        "labeled": labeled,
        "unlabeled": unlabeled,
        "validation": validation,
        "test": test,
    }
    source = tar_files(
        {split: paths for split, paths in named.items() if paths},
        class_names=None if classes is None else classes.split(","),
        dataset=dataset,
    )
    _import(store, source, max_pixels, format_)


@verbs.command("predictions")
@with_examples
def import_predictions(
    store: StoreOption,
    values: Annotated[Path, typer.Argument(help="Parquet, CSV, JSON or .npy.")],
    teacher: Annotated[str, typer.Option(help="Name that these labels get: [a-z0-9_-]+.")],
    iteration: Annotated[int, typer.Option(help="That these labels belong to.")] = 1,
    ids: Annotated[
        Path | None, typer.Option(help="For .npy: sample ids (.npy) or names, one a line.")
    ] = None,
    id_column: Annotated[
        str | None, typer.Option(help="Of sample ids, keys or paths; found unless given.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Of the images, where keys repeat among data sets.")
    ] = None,
    logits: Annotated[bool, typer.Option("--logits", help="Apply a softmax first.")] = False,
    codec: Annotated[str, typer.Option(help="topk, dense or hard.")] = "topk",
    k: Annotated[int, typer.Option(help="Classes kept.")] = 20,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put them in the place of those there are.")
    ] = False,
    format_: FormatOption = "table",
) -> None:
    """Import predictions that you have as a teacher's labels; several files add up.

    A table has a column a class (cat, dog or prob_cat, prob_dog), or a label and its
    confidence; an array has its classes in the order of the store, which is printed.

    Examples:
      plstore import predictions probs.npy --ids names.txt --teacher clip --store pets/store
      plstore import predictions predictions.csv --teacher mine --store pets/store
    """
    from plstore.codec import Codec
    from plstore.exchange import import_predictions as keep
    from plstore.report.progress import Display
    from plstore.store import open as open_store

    matched = keep(
        open_store(store),
        values,
        teacher_id=teacher,
        iteration=iteration,
        ids=ids,
        id_column=id_column,
        dataset=dataset,
        logits=logits,
        codec=Codec(name=codec, k=k),  # type: ignore[arg-type]  # checked there
        replace=replace,
        shows=Display(),
    )
    rows = [{"what": f"{split} images labeled", "n": n} for split, n in matched.counts.items()]
    rows.append({"what": "predictions of images not in the store", "n": matched.num_unknown})
    rows.append({"what": "predictions of refused images", "n": matched.num_refused})
    rows += [
        {"what": f"rows without a class, {why}", "n": n} for why, n in matched.left_out.items()
    ]
    print_rows(rows, format_)


def _import(
    path: str,
    source: "Source",
    max_pixels: int,
    format_: str,
    *,
    in_place: bool = False,
) -> None:
    from plstore.exchange import import_source
    from plstore.report.progress import Display
    from plstore.store import create

    imported = import_source(
        create(path), source, Display(), max_pixels=max_pixels, in_place=in_place
    )
    counts = imported.counts
    rows = [{"what": "already there", "images": counts.already_there}]
    rows += [{"what": what, "images": n} for what, n in imported.remarks.items()]
    rows += [{"what": k, "images": n} for k, n in sorted(counts.verdicts.items())]
    rows += [
        {"what": f"of these converted, {k}", "images": n}
        for k, n in sorted(counts.conversions.items())
    ]
    print_rows(rows, format_, whole=True)
