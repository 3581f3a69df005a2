"""Folders of images: a class is a folder's name."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import xxhash

from plstore.errors import InputError
from plstore.exchange.source import Source
from plstore.fingerprint import value_hash
from plstore.store import ImageRecord

_File = tuple[Path, str, str, str | None]  # path, key, split, class name


def image_folders(
    *,
    labeled: Path,
    unlabeled: Path,
    test: Path | None = None,
    validation: Path | None = None,
    validation_fraction: float = 0.1,
    seed: int = 0,
    dataset: str = "images",
) -> Source:
    """Read folders of images, every file that is not hidden, in order of name.

    Args:
        labeled: A folder for each class, with its images anywhere below.
        unlabeled: Images anywhere below.
        test: As `labeled`, with the same classes; never trained on.
        validation: As `labeled`. Where none is given, a part of `labeled` is split off.
        validation_fraction: That part, 0 to 1, of each class: at least one image, never all.
        seed: Draws that part, by a hash of each image's name.
        dataset: Name of the collection in the store.

    Raises:
        InputError: If a folder is missing, holds no image, or names other classes.
    """
    class_names = _class_names(labeled)
    files = _labeled_files(labeled, "labeled", class_names)
    if validation is None:
        files = _split_off(files, validation_fraction, seed)
    else:
        files += _labeled_files(validation, "validation", class_names)
    if test is not None:
        files += _labeled_files(test, "test", class_names)
    unlabeled_files = _files_below(_folder(unlabeled))
    if not unlabeled_files:
        raise InputError(f"{unlabeled} holds no files; wanted the unlabeled images")
    files += [
        (path, f"unlabeled/{path.relative_to(unlabeled).as_posix()}", "unlabeled", None)
        for path in unlabeled_files
    ]
    stats = [path.stat() for path, _, _, _ in files]
    sizes = [stat.st_size for stat in stats]
    named = [
        (key, split, label, size)
        for (_, key, split, label), size in zip(files, sizes, strict=True)
    ]
    return Source(
        dataset=dataset,
        identity=value_hash({"files": named}),
        freshness=value_hash({"times": [stat.st_mtime_ns for stat in stats]}),
        class_names=class_names,
        num_images=len(files),
        num_bytes=sum(sizes),
        splits=dict(Counter(split for _, _, split, _ in files)),
        keys=lambda: [key for _, key, _, _ in files],
        records=lambda: _records(files),
    )


def files_below(folder: Path) -> list[Path]:
    """Return the files anywhere below a folder, hidden ones left out, in order of name."""
    return _files_below(_folder(folder))


def _records(files: list[_File]) -> Iterator[ImageRecord]:
    for path, key, split, name in files:
        yield ImageRecord(
            key=key,
            split=split,
            data=path.read_bytes(),
            label=name,
            place=str(path.resolve()),
        )


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise InputError(f"{path} is no folder; wanted a folder of images")
    return path


def _files_below(folder: Path) -> list[Path]:
    files: list[Path] = []
    seen: set[str] = set()
    for name, folders, names in os.walk(folder, followlinks=True):
        here = Path(name)
        if os.path.realpath(here) in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(os.path.realpath(here))
        folders[:] = [f for f in folders if not f.startswith(".")]
        files += [here / n for n in names if not n.startswith(".")]
    for path in files:
        _check_file(path)
    return sorted(files)


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path} is a link that leads nowhere, or no file; remove it")
    try:
        path.as_posix().encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the name {path!a} is not UTF-8; rename the file") from error


def _class_names(labeled: Path) -> list[str]:
    names = sorted(
        path.name
        for path in _folder(labeled).iterdir()
        if path.is_dir() and not path.name.startswith(".")
    )
    if len(names) < 2:  # noqa: PLR2004  one is no choice
        raise InputError(
            f"{labeled} holds {len(names)} class folders; wanted two or more, such as "
            f"{labeled}/cat and {labeled}/dog, each with that class's images"
        )
    stray = [p.name for p in labeled.iterdir() if p.is_file() and not p.name.startswith(".")]
    if stray:
        raise InputError(
            f"{labeled} holds {len(stray)} files outside its class folders, such as "
            f"{stray[0]}; move each into the folder of its class, or away"
        )
    return names


def _labeled_files(folder: Path, split: str, class_names: list[str]) -> list[_File]:
    found = _class_names(folder)
    unknown = sorted(set(found) - set(class_names))
    if unknown:
        raise InputError(
            f"{folder} has classes {', '.join(unknown)} that the labeled images lack; they "
            f"have {', '.join(class_names)}"
        )
    files: list[_File] = []
    for name in found:
        paths = _files_below(folder / name)
        if not paths:
            raise InputError(f"{folder / name} is empty; wanted images of that class in it")
        files += [
            (path, f"{split}/{path.relative_to(folder).as_posix()}", split, name)
            for path in paths
        ]
    return files


def _split_off(files: list[_File], fraction: float, seed: int) -> list[_File]:
    moved = split_off([(key, str(name)) for _, key, _, name in files], fraction, seed)
    return [
        (path, key, "validation" if index in moved else split, label)
        for index, (path, key, split, label) in enumerate(files)
    ]


def split_off(named: Sequence[tuple[str, str]], fraction: float, seed: int) -> set[int]:
    """Return which of some (key, class name) go to validation: those of lowest seeded hash.

    The fraction holds in each class, with at least one image, and never all.
    """
    if not 0 < fraction < 1:
        raise InputError(f"the validation fraction is {fraction}; wanted above 0 and below 1")
    hashes = np.array([xxhash.xxh3_64_intdigest(key.encode(), seed) for key, _ in named])
    names = np.array([name for _, name in named])
    moved: set[int] = set()
    for name in sorted(set(names.tolist())):
        members = np.flatnonzero(names == name)
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        moved.update(members[np.argsort(hashes[members], kind="stable")[:count]].tolist())
    return moved
