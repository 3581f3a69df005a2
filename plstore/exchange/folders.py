"""Folders of images: a class is a folder's name."""

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from plstore.errors import InputError
from plstore.exchange.classes import class_order
from plstore.exchange.files import Files, file_source, stream_hash, text_array
from plstore.exchange.source import Source
from plstore.exchange.validation_split import ValidationSplit
from plstore.schema import SPLITS

_File = tuple[str, str]  # its name below a folder, and where it really is

_JUNK_FOLDERS = frozenset(
    (
        *("@eadir", "__macosx", "#recycle", "$recycle.bin", "system volume information"),
        *("lost+found", "__pycache__"),
    )
)  # in lower case, as the others
_JUNK_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"))
_KNOWN_HIDDEN = frozenset((".DS_Store", ".ipynb_checkpoints"))
_SIDECARS = frozenset(
    (
        *(".csv", ".tsv", ".json", ".jsonl", ".txt", ".md", ".rst", ".xml", ".yaml", ".yml"),
        *(".toml", ".ini", ".parquet", ".xlsx", ".xls", ".html", ".pdf", ".log"),
    )
)
_SIDECAR_NAMES = frozenset(("readme", "license", "licence", "notice", "makefile"))


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
    """Read folders of images, every file that is not hidden, in order of name.

    What file managers leave behind (`@eaDir`, `__MACOSX`, `Thumbs.db` and their kin, hidden
    files) is no image, and a table or text beside the class folders is no class: both are
    counted in `noticed`.

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
            in another one.
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
    ignored: Counter[str] = field(default_factory=Counter)
    class_names: list[str] = field(default_factory=list)

    def take_unlabeled(self, folder: Path) -> None:
        files = self._below(folder, "unlabeled")
        if not files:
            raise InputError(f"{folder} holds no files; wanted the unlabeled images")
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
        for name, label in found.items():
            files = self._below(folder / name, split)
            if not files:
                raise InputError(f"{folder / name} is empty; wanted images of that class in it")
            self._take(f"{split}/{name}", files, split, label)

    def _below(self, folder: Path, split: str) -> list[_File]:
        others = {other: root for other, root in self.roots.items() if other != split}
        return _files_below(folder, self.ignored, others)

    def _take(self, prefix: str, files: Sequence[_File], split: str, label: str | None) -> None:
        self.keys += [f"{prefix}/{name}" for name, _ in files]
        self.places += [place for _, place in files]
        self.splits += [SPLITS.index(split)] * len(files)
        self.labels += [label] * len(files)

    def source(self, validation: ValidationSplit, dataset: str) -> Source:
        ids: dict[str | None, int] = {name: n for n, name in enumerate(self.class_names)}
        stats = np.array([_size_and_time(place) for place in self.places], np.int64)
        files = Files(
            keys=text_array(self.keys),
            places=text_array(self.places),
            splits=np.array(self.splits, np.int8),
            labels=np.array([ids.get(label, -1) for label in self.labels], np.int32),
            num_bytes=stats[:, 0],
            class_names=self.class_names,
            validation=validation,
            noticed={f"ignored: {name}": n for name, n in sorted(self.ignored.items())},
        )
        return file_source(
            files,
            dataset=dataset,
            identity=stream_hash(
                "files", files.with_validation().rows_as_json(with_bytes=True)
            ),
            freshness=stream_hash("times", map(str, stats[:, 1].tolist())),
        )


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
        ignored: Takes the number of files and folders that are no images by their names.
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
        folders[:] = [name for name in folders if not _is_junk(name, _JUNK_FOLDERS, ignored)]
        below = here[len(str(folder)) :].lstrip(os.sep)
        for name in files:
            if not _is_junk(name, _JUNK_FILES, ignored):
                place = _place(f"{here}{os.sep}{name}", f"{real}{os.sep}{name}")
                found.append((f"{below}/{name}" if below else name, place))
    return sorted(found, key=lambda file: file[0].replace("/", "\0"))


def _refuse_link(here: str, real: str, others: Mapping[str, str]) -> None:
    for other, root in others.items():
        if _is_within(real, root):
            raise InputError(
                f"{here} leads into the {other} folder {root}, whose images would be there "
                "twice; remove that link"
            )


def _is_junk(name: str, junk: frozenset[str], ignored: Counter[str]) -> bool:
    """Return whether a name is hidden or a file manager's, and count it."""
    is_hidden = name.startswith(".")
    if not is_hidden and name.lower() not in junk:
        return False
    known = name in _KNOWN_HIDDEN or not is_hidden
    ignored[name if known else "hidden files and folders"] += 1
    return True


def _place(path: str, real: str) -> str:
    """Return where a file really is.

    Raises:
        InputError: If it is no file, or its name cannot be kept.
    """
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the name {path!a} is not UTF-8; rename the file") from error
    is_link = os.path.islink(path)  # noqa: PTH114  no error where a folder is closed
    status = _stat(path)
    if status is None and not is_link:
        return real  # gone since it was listed, or out of reach: reading it says so
    if status is None or not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is a link that leads nowhere, or no file; remove it")
    return os.path.realpath(real) if is_link else real


def _stat(path: str) -> os.stat_result | None:
    try:
        return Path(path).stat()
    except OSError:
        return None


def _size_and_time(place: str) -> tuple[int, int]:
    status = _stat(place)
    return (0, 0) if status is None else (status.st_size, status.st_mtime_ns)


def _cannot_list(error: OSError) -> None:
    raise InputError(
        f"cannot list the folder {error.filename}: {error.strerror}; allow reading it, or move "
        "it away. Nothing was imported"
    ) from error


def _class_folders(folder: Path, ignored: Counter[str]) -> dict[str, str]:
    """Return the names of class folders, in order, with the names of their classes."""
    found, stray = {}, []
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        is_folder = path.is_dir()
        if _is_junk(path.name, _JUNK_FOLDERS if is_folder else _JUNK_FILES, ignored):
            continue
        if is_folder:
            found[path.name] = unicodedata.normalize("NFC", path.name)
        elif path.suffix.lower() in _SIDECARS or path.stem.lower() in _SIDECAR_NAMES:
            kind = f"*{path.suffix}" if path.suffix else path.name
            ignored[f"{kind} beside class folders"] += 1
        elif path.is_file():
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
