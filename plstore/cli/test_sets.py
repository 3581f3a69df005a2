"""Verbs that bring what models are tested with: import test-set, import answers."""

from pathlib import Path
from typing import Annotated

import typer

from plstore.cli.importing import InPlaceOption, MaxPixelsOption
from plstore.cli.options import FormatOption, StoreOption, print_rows
from plstore.cli.training import programs_of_training


def import_test_set(
    store: StoreOption,
    images: Annotated[
        str,
        typer.Argument(
            help="A folder for each class in a folder; Parquet, CSV or tar; a datasets folder."
        ),
    ],
    name: Annotated[str, typer.Option(help="Of the set, such as imagenet-a.")],
    class_map: Annotated[
        Path | None,
        typer.Option(help="Table of class, the set's, and label, the store's or empty."),
    ] = None,
    split: Annotated[str, typer.Option(help="Of a data set of the datasets library.")] = "test",
    max_pixels: MaxPixelsOption = 64_000_000,
    in_place: InPlaceOption = False,
    format_: FormatOption = "table",
) -> None:
    """Import labeled images that no run reads, for `plstore evaluate --sets`.

    Their classes are the store's, or a map says which they are. Sets of these names are read
    as their authors ask for, where the store's classes are ImageNet's: imagenet-a, imagenet-r,
    imagenet-v2, imagenet-sketch, objectnet.

    Examples:
      plstore import test-set new-camera/ --name new-camera --store pets/store
      plstore import test-set imagenet-a/ --name imagenet-a --in-place --store in1k/store
      plstore import test-set found.parquet --name found --class-map classes.csv
    """
    programs_of_training()
    from plstore.report.progress import Display
    from plstore.store import open as open_store
    from trainers.evaluation.test_sets import import_test_set as keep

    found = keep(
        open_store(store),
        images,
        name=name,
        class_map=class_map,
        split=split,
        max_pixels=max_pixels,
        in_place=in_place,
        shows=Display(),
    )
    counts = found.imported.counts
    rows = [{"what": "already there", "images": counts.already_there}]
    rows += [{"what": what, "images": n} for what, n in found.imported.remarks.items()]
    rows += [{"what": what, "images": n} for what, n in sorted(counts.verdicts.items())]
    if found.num_trained:
        what = "labeled or unlabeled as well: models that learned them are not tested by them"
        rows.append({"what": what, "images": found.num_trained})
    if found.num_accepted:
        rows.append({"what": "several classes may be right", "images": found.num_accepted})
    print_rows(rows, format_, whole=True)


def import_answers(
    store: StoreOption,
    answers: Annotated[
        str, typer.Argument(help="Table of images and labels, a row a right class; or: real.")
    ] = "real",
    source: Annotated[str | None, typer.Option(help="Their name; the file's.")] = None,
    split: Annotated[str, typer.Option(help="Of the images, for real.")] = "validation",
    dataset: Annotated[
        str | None, typer.Option(help="Of the images, where keys repeat among data sets.")
    ] = None,
    format_: FormatOption = "table",
) -> None:
    """Note which classes are right for images, where several may be.

    real: the reassessed labels of ImageNet's validation images (Beyer et al. 2020), which are
    found by their file names.

    Examples:
      plstore import answers real --split validation --store in1k/store
      plstore import answers second-look.csv --store pets/store
    """
    programs_of_training()
    from plstore.store import open as open_store
    from trainers.evaluation.test_sets import import_answers as keep

    count = keep(
        open_store(store),
        answers,
        source=source,
        split=split,  # type: ignore[arg-type]  # none of another split is found
        dataset=dataset,
    )
    print_rows([{"what": "images with answers, new", "images": count}], format_, whole=True)
