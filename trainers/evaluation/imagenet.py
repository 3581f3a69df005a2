"""ImageNet's test sets: which classes they have, under which names, and what counts as right.

| set | classes | how it is asked |
|---|---|---|
| `imagenet-a` | 200 synsets | among its 200 classes (Hendrycks et al. 2019) |
| `imagenet-r` | 200 synsets | among its 200 classes (Hendrycks et al. 2020) |
| `imagenet-sketch` | 1,000 synsets | among all (Wang et al. 2019) |
| `imagenet-v2` | folders 0 to 999, in order of synsets | among all (Recht et al. 2019) |
| `objectnet` | 313 names, 113 of them known | any class that its own map names is right |

ObjectNet (Barbu et al. 2019) has a border, which is cut off. `real` are reassessed labels of
the validation images, of which several may be right (Beyer et al. 2020). Synsets, the 200
classes and ReaL's labels are those that timm ships; ObjectNet's maps are in its archive.
"""

import io
import json
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from PIL import Image, UnidentifiedImageError

from plstore.errors import InputError
from plstore.exchange.test_sets import ClassMap
from plstore.images import DEFAULT_MAX_PIXELS

Among = Literal["all", "own"]
"""Which classes a model may say: all, or those of the test set alone."""

Settings = tuple[Path, Callable[[bytes], bytes] | None, ClassMap]
"""Where the images of a set are, what is done to each, and the map of its classes."""

REAL: Final = "real"
_BORDER: Final = 2
_MAPS: Final = {
    "folders": "folder_to_objectnet_label.json",
    "right": "objectnet_to_imagenet_1k.json",
    "ids": "pytorch_to_imagenet_2012_id.json",
    "names": "imagenet_to_label_2012_v2",
}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a test set is read and asked.

    Attributes:
        settings: Returns them for a path and a store's classes.
        among: Which classes a model may say.
        border: What is done to each image, in words; empty for nothing.
        num_classes: That the whole set has images of, where it is asked among its own.
        accepts_several: Whether several classes may be right for an image.
    """

    settings: Callable[[Path, Sequence[str]], Settings]
    among: Among = "all"
    border: str = ""
    num_classes: int | None = None
    accepts_several: bool = False


def _synsets(subset: str) -> list[str]:
    return _shipped(f"{subset}_synsets.txt").splitlines()


@cache
def _shipped(name: str) -> str:
    data = pkgutil.get_data("timm.data", f"_info/{name}")
    if data is None:
        raise InputError(f"timm ships no {name}; wanted timm 1.0 or later")
    return data.decode()


def synset_map(store_classes: Sequence[str], synsets: Sequence[str] | None = None) -> ClassMap:
    """Return a store's classes by synset of ImageNet-1k.

    Args:
        store_classes: Named by synset (n01440764), or by number in their order (0 to 999).
        synsets: Which; all 1,000 unless given.

    Raises:
        InputError: If a store has classes of other names.
    """
    every, there = _synsets("imagenet"), set(store_classes)
    wanted = every if synsets is None else synsets
    if set(wanted) <= there:
        return {name: [name] for name in wanted}
    numbers = {name: str(number) for number, name in enumerate(every)}
    if {numbers[name] for name in wanted} <= there:
        return {name: [numbers[name]] for name in wanted}
    raise InputError(
        f"the store's classes are {', '.join(list(store_classes)[:5])}, ...; wanted those of "
        "ImageNet-1k, named by synset (n01440764) or by number (0 to 999). --class-map FILE "
        "names the store's class for each of the set's"
    )


def _of_synsets(subset: str | None) -> Callable[[Path, Sequence[str]], Settings]:
    def settings(path: Path, store_classes: Sequence[str]) -> Settings:
        synsets = None if subset is None else _synsets(subset)
        return path, None, synset_map(store_classes, synsets)

    return settings


def _of_numbers(path: Path, store_classes: Sequence[str]) -> Settings:
    right = synset_map(store_classes)
    return path, None, {str(n): right[name] for n, name in enumerate(_synsets("imagenet"))}


def _of_objectnet(path: Path, store_classes: Sequence[str]) -> Settings:
    """Read ObjectNet's own maps, which name classes by the words of ILSVRC 2012."""
    maps = {what: _mapping(path, name) for what, name in _MAPS.items() if what != "names"}
    words = [line.strip() for line in _text(path, _MAPS["names"]).splitlines()]
    synsets, right = _synsets("imagenet"), synset_map(store_classes)
    by_words = {
        words[int(number)]: right[synsets[int(place)]][0]
        for place, number in maps["ids"].items()
    }
    found: dict[str, list[str]] = {}
    for folder, label in maps["folders"].items():
        named = [name.strip() for name in str(maps["right"].get(label, "")).split(";")]
        if unknown := [name for name in named if name and name not in by_words]:
            raise InputError(
                f"{path / 'mappings' / _MAPS['right']} has {', '.join(unknown)} for {label!r}, "
                f"which {_MAPS['names']} does not have"
            )
        found[folder] = [by_words[name] for name in named if name]
    return path / "images", without_border, found


def _text(path: Path, name: str) -> str:
    file = path / "mappings" / name
    if not file.is_file():
        raise InputError(
            f"{path} has no mappings/{name}; wanted the unpacked archive of ObjectNet, with "
            "the folders images and mappings"
        )
    return file.read_text()


def _mapping(path: Path, name: str) -> Mapping[str, Any]:
    try:
        found = json.loads(_text(path, name))
    except ValueError as error:
        raise InputError(f"{path / 'mappings' / name} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path / 'mappings' / name} is no map of names")
    return found


def without_border(data: bytes) -> bytes:
    """Return an image without its outer two pixels, as PNG; what is no image as it is.

    ObjectNet's images have a red border, by which they are known, and which its authors ask to
    be taken off.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > DEFAULT_MAX_PIXELS or min(width, height) <= 2 * _BORDER:
                return data
            inner = image.crop((_BORDER, _BORDER, width - _BORDER, height - _BORDER))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return data  # the import says what is wrong with it
    stream = io.BytesIO()
    inner.save(stream, format="PNG")
    return stream.getvalue()


PROTOCOLS: Final[Mapping[str, Protocol]] = {
    "imagenet-a": Protocol(settings=_of_synsets("imagenet_a"), among="own", num_classes=200),
    "imagenet-r": Protocol(settings=_of_synsets("imagenet_r"), among="own", num_classes=200),
    "imagenet-sketch": Protocol(settings=_of_synsets(None)),
    "imagenet-v2": Protocol(settings=_of_numbers),
    "objectnet": Protocol(
        settings=_of_objectnet,
        border=f"border of {_BORDER} pixels cut off",
        accepts_several=True,
    ),
}
"""How test sets of these names are read and asked."""


def real_labels(store_classes: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Return the classes that ReaL accepts, by file name of a validation image.

    Images of which it accepts none are not there.

    Raises:
        InputError: If a store has other classes than ImageNet-1k.
    """
    right, synsets = synset_map(store_classes), _synsets("imagenet")
    every: list[list[int]] = json.loads(_shipped("imagenet_real_labels.json"))
    return {
        f"ILSVRC2012_val_{number:08d}.JPEG": [right[synsets[place]][0] for place in places]
        for number, places in enumerate(every, start=1)
        if places
    }
