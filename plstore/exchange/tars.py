"""WebDataset tars: images, and the ``.cls`` or ``.json`` beside them that has their class.

The last ending of a member's name says what it is, whatever dots come before it:
``IMG_2024.05.01.jpg`` is an image, and ``x.left.jpg`` and ``x.right.jpg`` are two. An image's
name is its path without that ending.

A ``.cls``, or a ``.json`` with "label", is that of the image of its name. An image without one
takes that of the longest part of its own name up to a dot: ``x.cls`` is that of ``x.left.jpg``
and ``x.right.jpg``, as in WebDataset, which groups by the first dot. Where there is an
``x.jpg`` too, nobody can tell whose ``x.cls`` is: an error. So are two images of one name
(``x.jpg``, ``x.png``) and a ``.cls`` of no image.

The parts of a sample may stand anywhere in their tar. Members of other endings are no images,
nor are those of hidden names (``.x.jpg``, ``._x.jpg``) or in ``__MACOSX``.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from plstore.errors import InputError
from plstore.exchange.archive import Member, tar_members
from plstore.exchange.classes import (
    UNKNOWN,
    class_column,
    class_order,
    class_text,
    marks_unknown,
)
from plstore.exchange.label_space import declared_names, label_space
from plstore.exchange.source import Source
from plstore.fingerprint import value_hash
from plstore.images import DEFAULT_MAX_BYTES, ImageRecord
from plstore.schema import SPLITS

_IMAGES: Final = frozenset(
    (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "webp", "gif", "img", "bmp"),
        *("dib", "tif", "tiff", "ppm", "pgm", "pbm", "pnm", "tga", "avif", "heic", "heif"),
        *("jp2", "j2k", "jpx", "jpf"),
    )
)
_SIDECARS: Final = ("cls", "json")  # a class is looked for in this order
_SIDECAR_BYTES: Final = 16 << 20
_LONGEST_ENDING: Final = 8
_SHOWN: Final = 3
_CLASSES_FILE: Final = "classes.txt"


def tar_files(
    shards: Mapping[str, Sequence[str | Path]],
    *,
    class_names: Sequence[str] | None = None,
    dataset: str = "images",
) -> Source:
    """Read tars of images.

    Args:
        shards: Tars by split.
        class_names: By the numbers in ``.cls``. Unless given, those of a ``classes.txt`` beside
            the tar, one a line; without one, a class's name is what stands in ``.cls``, or in
            "label" of a ``.json``.
        dataset: Name of the collection in the store.

    Raises:
        InputError: If a split is unknown; a tar is missing, named twice, damaged or no tar; a
            labeled image has no class, or one that the labeled images lack; or names cannot be
            told apart, see above.
    """
    paths_of = {split: [Path(path) for path in paths] for split, paths in shards.items()}
    _check_shards(paths_of)
    given = None if class_names is None else declared_names(list(class_names), "--classes")
    tars = {s: [_list(p, s, given) for p in paths] for s, paths in paths_of.items()}
    labels = _labels([tar for some in tars.values() for tar in some])
    found = [(split, key) for split, some in tars.items() for tar in some for key in tar.images]
    _check_found(paths_of, found)
    used = {split: set(by_key.values()) for split, by_key in labels.items()}
    declared = {split: _declared(tars[split], used[split]) for split in labels}
    files = [
        (str(p), p.stat().st_size, p.stat().st_mtime_ns) for s in paths_of.values() for p in s
    ]
    sizes = [size for _, size, _ in files]
    return Source(
        dataset=dataset,
        identity=value_hash({"found": found, "sizes": sizes, "labels": labels}),
        freshness=value_hash({"files": files}),
        class_names=label_space(declared, lambda split: used[split], "the tars"),
        num_images=len(found),
        num_bytes=sum(sizes),
        splits=dict(Counter(split for split, _ in found)),
        keys=lambda: [f"{split}/{key}" for split, key in found],
        records=lambda: _records(paths_of, labels),
        noticed=_noticed([tar for some in tars.values() for tar in some]),
    )


def _check_shards(shards: Mapping[str, Sequence[Path]]) -> None:
    for split, paths in shards.items():
        missing = [path for path in paths if not path.is_file()]
        if split not in SPLITS or missing or not paths:
            raise InputError(
                f"{split}: {', '.join(map(str, missing)) or 'no tars'}; wanted tars that are "
                f"there, of the splits {', '.join(SPLITS)}"
            )
    named = [(path.resolve(), split) for split, paths in shards.items() for path in paths]
    for path, count in Counter(path for path, _ in named).items():
        splits = sorted({split for other, split in named if other == path})
        if count > 1 and len(splits) > 1:
            raise InputError(
                f"{path} is named for {' and '.join(splits)}: its images would be there "
                "twice. Name each tar once"
            )


def _check_found(
    shards: Mapping[str, Sequence[Path]], found: Sequence[tuple[str, str]]
) -> None:
    if len(set(found)) != len(found):
        (split, key), count = Counter(found).most_common(1)[0]
        raise InputError(
            f"{key!r} of split {split!r} is there {count} times; wanted every name once in all "
            "tars of a split"
        )
    for split in shards.keys() - {split for split, _ in found}:
        raise InputError(
            f"{', '.join(map(str, shards[split]))}: no image of split {split!r}; wanted "
            f"members whose names end in one of {', '.join(sorted(_IMAGES))}"
        )


@dataclass(kw_only=True)
class _Tar:
    """What a tar holds, by name; images are not kept.

    Attributes:
        path: Of the tar.
        split: Of its images.
        class_names: By number, where there is such a list.
        names_from: Where that list is from.
        is_told: Whether it was given; one that only stands beside the tar may be of something
            else.
        images: The members, by the names of images.
        ignored: Members that are not of these, by their ending.
        values: What stands in sidecars, by ending and name: a class, None where one has none,
            or what is wrong with it.
    """

    path: Path
    split: str
    class_names: Sequence[str]
    names_from: str
    is_told: bool
    images: dict[str, str] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    values: dict[str, dict[str, str | InputError | None]] = field(
        default_factory=lambda: {ending: {} for ending in _SIDECARS}
    )

    def add(self, key: str, ending: str, member: Member) -> None:
        """Take note of a member."""
        is_image = ending in _IMAGES
        if not member.is_file:
            raise InputError(
                f"{self.path}: {member.name} is a link or no file, without bytes of its own. "
                "Write the tar with --dereference --hard-dereference"
            )
        if key in (self.images if is_image else self.values[ending]):
            other = self.images[key] if is_image else member.name
            raise InputError(
                f"{self.path}: {other} and {member.name} have one name; wanted every name "
                "once: rename one, or leave it out"
            )
        if is_image:
            self.images[key] = member.name
        else:
            self.values[ending][key] = _value(self.path, ending, member)

    def classes(self) -> dict[str, str]:
        """Return the class of each image, as its sidecar spells it."""
        found: dict[str, str] = {}
        owners: dict[str, list[str]] = {}
        for key in self.images:
            name, value = self._sidecar(key)
            if name != key and name in self.images:
                raise InputError(
                    f"{self.path}: the class of {name} may be that of {self.images[name]} "
                    f"alone or of {self.images[key]} too; give each image a .cls of its name"
                )
            owners.setdefault(name, []).append(key)
            found[key] = value
        stray = [name for name in self.values["cls"] if name not in owners]
        if stray:
            raise InputError(
                f"{self.path}: {len(stray)} .cls of no image, such as "
                f"{', '.join(stray[:_SHOWN])}; wanted an image of the same name, its ending "
                f"one of {', '.join(sorted(_IMAGES))}"
            )
        return found

    def _sidecar(self, key: str) -> tuple[str, str]:
        for name in _parts(key):
            for ending in _SIDECARS:
                value = self.values[ending].get(name)
                if isinstance(value, InputError):
                    raise value
                if value is not None:
                    return name, value
        raise InputError(
            f"{key} of split {self.split!r} has no class in {self.path}; wanted a .cls beside "
            'the image, or a .json with "label"'
        )


def _list(path: Path, split: str, class_names: Sequence[str] | None) -> _Tar:
    is_told = class_names is not None
    tar = _Tar(
        path=path,
        split=split,
        class_names=_beside(path) if class_names is None else class_names,
        names_from="--classes" if is_told else str(path.parent / _CLASSES_FILE),
        is_told=is_told,
    )
    wanted = _IMAGES if split == "unlabeled" else _IMAGES.union(_SIDECARS)
    for key, ending, member in _named_members(path):
        if ending in wanted:
            tar.add(key, ending, member)
        elif not member.is_folder:
            is_ending = 0 < len(ending) <= _LONGEST_ENDING
            tar.ignored[
                f"*.{ending}" if is_ending else "hidden names, or without an ending"
            ] += 1
    return tar


def _named_members(path: Path) -> Iterator[tuple[str, str, Member]]:
    """Yield members with their name and ending; hidden ones and folders have no ending."""
    for member in tar_members(path):
        folder, slash, base = member.name.rpartition("/")
        stem, _, ending = base.rpartition(".")
        is_hidden = base.startswith(".") or "__MACOSX" in folder.split("/")
        if is_hidden or member.is_folder or not stem:
            yield member.name, "", member
        else:
            yield f"{folder}{slash}{stem}", ending.lower(), member


def _noticed(tars: Sequence[_Tar]) -> dict[str, int]:
    ignored = sum((tar.ignored for tar in tars), Counter[str]())
    return {f"ignored: {name}": count for name, count in sorted(ignored.items())}


def _parts(key: str) -> Iterator[str]:
    """Yield a name, and what of it ends before a dot, the longest first."""
    yield key
    folder, slash, base = key.rpartition("/")
    while "." in base:
        base = base.rpartition(".")[0]
        if base:
            yield f"{folder}{slash}{base}"


def _value(path: Path, ending: str, member: Member) -> str | InputError | None:
    """Return the class in a sidecar; or what is wrong with it, if anyone should need it."""
    if member.size > _SIDECAR_BYTES:
        return InputError(f"{path}: {member.name} has {member.size} bytes; wanted a class")
    data = member.read(_SIDECAR_BYTES)
    try:
        text = data.decode("utf-8-sig")
        if ending == "cls":
            return class_text(text)
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        kind = "text in UTF-8" if ending == "cls" else "JSON"
        return InputError(f"{path}: {member.name} is no {kind}: {error}")
    if not isinstance(about, dict):
        return InputError(
            f"{path}: {member.name} holds a {type(about).__name__}; wanted an object with "
            '"label"'
        )
    label = about.get("label")
    if not isinstance(label, str | int | float | None):
        return InputError(f'{path}: "label" of {member.name} is {label!r}; wanted one class')
    return class_text(label)


def _beside(path: Path) -> list[str]:
    """Return the names in a file of classes beside a tar, as an export writes it."""
    file = path.parent / _CLASSES_FILE
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the names of classes in {file}: {error}") from error
    return declared_names(lines, str(file))


def _labels(tars: Sequence[_Tar]) -> dict[str, dict[str, str]]:
    """Return the classes of images by split, each tar read by its own names."""
    spelled = [(tar, tar.classes()) for tar in tars if tar.split != "unlabeled"]
    values = list(dict.fromkeys(value for _, some in spelled for value in some.values()))
    texts = {
        value: text
        for value, text in zip(values, class_column(values), strict=True)
        if text is not None
    }
    unknown = UNKNOWN in texts.values() and marks_unknown(texts.values())
    labels: dict[str, dict[str, str]] = {}
    for tar, some in spelled:
        by_key = labels.setdefault(tar.split, {})
        spellings = {texts[value] for value in some.values()}
        names = {text for text in spellings if not text.isdecimal()}
        if not tar.is_told and not names <= set(tar.class_names):
            tar.class_names = ()
        for key, value in some.items():
            if unknown and texts[value] == UNKNOWN:
                raise InputError(
                    f"{key} of split {tar.split!r} has the class -1, beside numbers; images of "
                    "unknown class are to be in tars of the split unlabeled"
                )
            by_key[key] = _by_number(tar, key, texts[value])
    return labels


def _by_number(tar: _Tar, key: str, text: str) -> str:
    names = tar.class_names
    if not names or (text in names and not text.isdecimal()):
        return text
    if not text.isdecimal() or int(text) >= len(names):
        raise InputError(
            f"{key} has the class {text!r}; wanted a number below {len(names)}, or a name, of "
            f"those in {tar.names_from}"
        )
    return names[int(text)]


def _declared(tars: Sequence[_Tar], used: set[str]) -> list[str]:
    """Return the classes of a split in order: as lists of names have them, then the others."""
    listed = dict.fromkeys(name for tar in tars for name in tar.class_names)
    return [*listed, *class_order(used - listed.keys())]


def _records(
    shards: Mapping[str, Sequence[Path]], labels: Mapping[str, Mapping[str, str]]
) -> Iterator[ImageRecord]:
    for split, paths in shards.items():
        for path in paths:
            for key, ending, member in _named_members(path):
                if ending not in _IMAGES:
                    continue
                label = None if split == "unlabeled" else labels[split].get(key)
                if label is None and split != "unlabeled":
                    raise InputError(f"{path} changed while it was read: {key} is new in it")
                yield ImageRecord(
                    key=f"{split}/{key}",
                    split=split,
                    data=member.read(DEFAULT_MAX_BYTES + 1),  # enough to see that it is more
                    label=label,
                )
