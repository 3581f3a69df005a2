"""Folders of images: a class is a folder's name."""

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from plstore.errors import InputError
from plstore.exchange.classes import class_order
from plstore.exchange.files import Files, file_source, stream_hash, text_array
from plstore.exchange.no_images import (
    DANGLING,
    EMPTY,
    SPECIAL,
    folder_is_passed_over,
    is_no_image,
)
from plstore.exchange.source import Source
from plstore.exchange.validation_split import ValidationSplit
from plstore.schema import SPLITS

_NOTES: Final = ("readme", "license", "licence", "notice", "makefile")
_CLASSES_NAMED: Final = 5


class _File(NamedTuple):
    """A file: its name below a folder, where it really is, its bytes, when it was changed."""

    name: str
    place: str
    num_bytes: int
    changed: int


def image_folders(
    *,
    labeled: str | Path | None = None,
    unlabeled: str | Path | None = None,
    test: str | Path | None = None,
    validation: str | Path | None = None,
    validation_fraction: float = 0.1,
    seed: int = 0,
    dataset: str = "images",
) -> Source:
    """Read folders of images, every file that may be one, in order of name.

    What file managers leave behind (`@eaDir`, `__MACOSX`, `Thumbs.db` and their kin, hidden
    files), files that are no images by their suffix (tables, texts, archives, videos), empty
    files and links that lead nowhere are counted in `ignored`, by kind. A file of another
    suffix, or of none, may be an image. Classes without a validation or test image are counted
    in `noticed`.

    Args:
        labeled: A folder for each class, with its images anywhere below.
        unlabeled: Images anywhere below.
        test: As `labeled`, with the same classes; never trained on.
        validation: As `labeled`. Where none is given, a part of `labeled` is split off.
        validation_fraction: That part, 0 to 1, of each class: at least one image, never all.
        seed: Chooses that part, by a hash of each image's name.
        dataset: Name of the collection in the store.

    Raises:
        InputError: If a folder is missing, holds no image, names other classes, or is or lies
            in another one; or if a class of `labeled` has no image.
    """
    folders = {
        "labeled": labeled,
        "validation": validation,
        "test": test,
        "unlabeled": unlabeled,
    }
    given = {split: _folder(Path(path)) for split, path in folders.items() if path is not None}
    if not given:
        raise InputError("no folder is named; wanted labeled or unlabeled images, or both")
    split_off = ValidationSplit(
        fraction=validation_fraction if validation is None and labeled is not None else None,
        seed=seed,
    )
    listed = _Listed(roots={split: os.path.realpath(path) for split, path in given.items()})
    _refuse_overlap(given, listed.roots)
    for split, path in given.items():
        if split == "unlabeled":
            listed.take_unlabeled(path)
        else:
            listed.take_classes(path, split)
    return listed.source(split_off, dataset)


@dataclass
class _Listed:
    """Files found so far, in columns, below the real paths of the folders that were given."""

    roots: Mapping[str, str]
    keys: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    splits: list[int] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    noticed: Counter[str] = field(default_factory=Counter)
    class_names: list[str] = field(default_factory=list)

    def take_unlabeled(self, folder: Path) -> None:
        files, others = self._below(folder, "unlabeled")
        if not files:
            raise InputError(f"{folder} {_holds(others)}; wanted the unlabeled images")
        self._take("unlabeled", files, "unlabeled", None)

    def take_classes(self, folder: Path, split: str) -> None:
        found = _class_folders(folder, self.ignored)
        if split == "labeled" or "labeled" not in self.roots:
            self.class_names = class_order({*self.class_names, *found.values()})
        unknown = sorted(set(found.values()) - set(self.class_names))
        if unknown:
            raise InputError(
                f"{folder} has classes {', '.join(unknown)} that the labeled images lack; they "
                f"have {', '.join(self.class_names)}"
            )
        empty = {}
        for name, label in found.items():
            files, others = self._below(folder / name, split)
            self._take(f"{split}/{name}", files, split, label)
            if not files:
                empty[name] = f"{folder / name} {_holds(others)}"
        if empty:
            self._notice_empty(folder, split, empty, len(found))

    def _notice_empty(
        self, folder: Path, split: str, empty: Mapping[str, str], count: int
    ) -> None:
        """Refuse a class that nothing could learn; of held-out ones note that they lack one."""
        first, *more = empty.values()
        also = f", and {len(more)} more" if more else ""
        if split == "labeled":
            raise InputError(
                f"{len(empty)} of {count} class folders are without an image: {first}{also}. "
                f"Put images of {'these classes' if more else 'that class'} in, or remove the "
                f"folder{'s' if more else ''}; nothing was done"
            )
        if len(empty) == count:
            raise InputError(f"{folder} holds no image in its class folders: {first}{also}")
        named = ", ".join([*empty][:_CLASSES_NAMED]) + (
            ", ..." if more[_CLASSES_NAMED:] else ""
        )
        self.noticed[f"classes without a {split} image ({named})"] += len(empty)

    def _below(self, folder: Path, split: str) -> tuple[list[_File], Counter[str]]:
        """Return the files below a folder, and how many others are there, by kind."""
        others = {other: root for other, root in self.roots.items() if other != split}
        ignored = Counter[str]()
        files = _files_below(folder, ignored, others)
        self.ignored += ignored
        return files, ignored

    def _take(self, prefix: str, files: Sequence[_File], split: str, label: str | None) -> None:
        self.keys += [f"{prefix}/{file.name}" for file in files]
        self.places += [file.place for file in files]
        self.sizes += [file.num_bytes for file in files]
        self.times += [file.changed for file in files]
        self.splits += [SPLITS.index(split)] * len(files)
        self.labels += [label] * len(files)

    def source(self, validation: ValidationSplit, dataset: str) -> Source:
        ids: dict[str | None, int] = {name: n for n, name in enumerate(self.class_names)}
        files = Files(
            keys=text_array(self.keys),
            places=text_array(self.places),
            splits=np.array(self.splits, np.int8),
            labels=np.array([ids.get(label, -1) for label in self.labels], np.int32),
            num_bytes=np.array(self.sizes, np.int64),
            class_names=self.class_names,
            validation=validation,
            noticed=dict(self.noticed),
            ignored=dict(self.ignored.most_common()),
        )
        return file_source(
            files,
            dataset=dataset,
            identity=stream_hash(
                "files", files.with_validation().rows_as_json(with_bytes=True)
            ),
            freshness=stream_hash("times", map(str, self.times)),
            can_lose_files=True,
        )


def _holds(others: Counter[str]) -> str:
    """Say what is in a folder without images."""
    kinds = ", ".join(f"{kind} {number}" for kind, number in others.most_common())
    return f"holds no image ({kinds})" if kinds else "is empty"


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise InputError(f"{path} is no folder; wanted a folder of images")
    return path


def _refuse_overlap(given: Mapping[str, Path], roots: Mapping[str, str]) -> None:
    for inner, path in given.items():
        for outer, other in given.items():
            if inner != outer and _is_within(roots[inner], roots[outer]):
                how = "is" if roots[inner] == roots[outer] else "lies in"
                raise InputError(
                    f"the {inner} folder {path} {how} the {outer} folder {other}, so its "
                    f"images would be {inner} and {outer} at once; give each a folder of its "
                    "own, none in another"
                )


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _files_below(folder: Path, ignored: Counter[str], others: Mapping[str, str]) -> list[_File]:
    """Return the files below a folder, in order of the parts of their names.

    Args:
        folder: Where.
        ignored: Takes the number of files and folders that are no images, by kind.
        others: Real paths of folders that no link may lead to.
    """
    found: list[_File] = []
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_cannot_list):
        real = os.path.realpath(here)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        _refuse_link(here, real, others)
        folders[:] = [name for name in folders if not folder_is_passed_over(name, ignored)]
        below = here[len(str(folder)) :].lstrip(os.sep)
        for name in files:
            if not is_no_image(name, ignored):
                path = f"{here}{os.sep}{name}"
                place = f"{real}{os.sep}{name}"
                file = _file(f"{below}/{name}" if below else name, path, place, ignored)
                found += [] if file is None else [file]
    return sorted(found, key=lambda file: file.name.replace("/", "\0"))


def _refuse_link(here: str, real: str, others: Mapping[str, str]) -> None:
    for other, root in others.items():
        if _is_within(real, root):
            raise InputError(
                f"{here} leads into the {other} folder {root}, whose images would be there "
                "twice; remove that link"
            )


def _file(name: str, path: str, place: str, ignored: Counter[str]) -> _File | None:
    """Return a file; None of one that can be no image, which is counted by the reason.

    Raises:
        InputError: If its name cannot be kept.
    """
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the name {path!a} is not UTF-8; rename the file") from error
    is_link = os.path.islink(path)  # noqa: PTH114  no error where a folder is closed
    try:
        status = os.stat(path)  # noqa: PTH116  a million times
    except OSError as error:
        if is_link and not isinstance(error, PermissionError):
            ignored[DANGLING] += 1
            return None
        return _File(name, place, 0, 0)  # gone since it was listed, or out of reach
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        ignored[EMPTY if stat.S_ISREG(status.st_mode) else SPECIAL] += 1
        return None
    place = os.path.realpath(place) if is_link else place
    return _File(name, place, status.st_size, status.st_mtime_ns)


def _cannot_list(error: OSError) -> None:
    raise InputError(
        f"cannot list the folder {error.filename}: {error.strerror}; allow reading it, or move "
        "it away. Nothing was imported"
    ) from error


def _class_folders(folder: Path, ignored: Counter[str]) -> dict[str, str]:
    """Return the names of class folders, in order, with the names of their classes."""
    found, stray = {}, []
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.is_dir():
            if not folder_is_passed_over(path.name, ignored):
                found[path.name] = unicodedata.normalize("NFC", path.name)
        elif path.stem.lower() in _NOTES:
            ignored[path.suffix.lower() or path.name] += 1
        elif not is_no_image(path.name, ignored) and path.is_file():
            stray.append(path.name)
    if stray:
        raise InputError(
            f"{folder} holds {len(stray)} files outside its class folders, such as "
            f"{stray[0]}; move each into the folder of its class, or away"
        )
    if len(set(found.values())) < 2:  # noqa: PLR2004  one is no choice
        raise InputError(
            f"{folder} holds {len(found)} class folders; wanted two or more, such as "
            f"{folder}/cat and {folder}/dog, each with that class's images"
        )
    return found
