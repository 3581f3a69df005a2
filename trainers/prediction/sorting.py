"""Images into folders by what a model sees in them: copies, never moves."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import numpy as np

from plstore.errors import InputError
from plstore.exchange import ImagePaths, class_folders
from plstore.fingerprint import content_hash

UNSURE: Final = "_unsure"
"""The folder of images of too little confidence."""

_LONGEST_NAME: Final = 255  # bytes of a file's name
_DIGITS: Final = 16


class Sorter:
    """Copies images into a folder for each class.

    A copy has the bytes and the name of its file; of a web address, the last part of its path.
    Where that name is taken by other bytes, or is too long, the first 16 digits of the hash of
    its own (XXH3-128) are put behind it: photo.jpg, then photo-1f0e2d3c4b5a6978.jpg. So names
    depend on the files and their order alone, nothing is ever written over, and what was copied
    before, in a run that was stopped, is found there.

    Attributes:
        copied: Files by folder.
        num_there: Files whose very bytes the folder has under that name already.
    """

    def __init__(
        self, folder: Path, class_names: Sequence[str], min_confidence: float | None = None
    ) -> None:
        """Check the names; nothing is made yet.

        Args:
            folder: New or not: what is in it stays.
            class_names: Of the model.
            min_confidence: Images whose confidence is not above it go to the folder `_unsure`.

        Raises:
            InputError: If a class cannot have a folder, or `folder` is a file.
        """
        taken = () if min_confidence is None else (UNSURE,)
        folders = class_folders(class_names, taken=taken)
        self._folders = dict(zip(class_names, folders, strict=True))
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file; wanted a folder to sort into")
        self.folder = folder
        self.min_confidence = min_confidence
        self.copied: Counter[str] = Counter()
        self.num_there = 0

    def check_apart(self, paths: ImagePaths) -> None:
        """Stop where copies would be looked at as images, or lie among them.

        Raises:
            InputError: If one folder is the other, or lies in it.
        """
        if not paths.is_folder:
            return
        there = os.path.realpath(self.folder)
        for inner, outer in ((there, paths.base), (paths.base, there)):
            if inner == outer or inner.startswith(outer.rstrip(os.sep) + os.sep):
                raise InputError(
                    f"the folder to sort into, {there}, and that of the images, {paths.base}, "
                    "lie in each other; give each one of its own"
                )

    def put(self, name: str, data: bytes, class_name: str, confidence: float) -> None:
        """Copy an image.

        Args:
            name: Of its file, of which the last part counts.
            data: The file's bytes.
            class_name: That the model sees.
            confidence: 0 to 1, of a float32.
        """
        floor = self.min_confidence
        is_sure = floor is None or np.float32(confidence) > np.float32(floor)  # as rows say it
        group = self._folders[class_name] if is_sure else UNSURE
        digest = content_hash(data)
        folder = self.folder / group
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / _last_part(name)
        is_long = len(place.name.encode()) > _LONGEST_NAME
        if is_long or _is_other(place, data):
            place = folder / _marked(place, digest[:_DIGITS])
        if place.exists():
            self.num_there += 1
            return
        temporary = folder / f".{digest}.partial"
        temporary.write_bytes(data)
        temporary.rename(place)
        self.copied[group] += 1


def _last_part(name: str) -> str:
    """Return the name of a file alone; of a web address, without what follows its path."""
    if name.startswith(("http://", "https://")):
        name = unquote(urlsplit(name).path).replace("\0", "")  # no file has that in its name
    return name.rstrip("/").rpartition("/")[2] or "image"


def _is_other(place: Path, data: bytes) -> bool:
    """Whether a place is taken by something else than these bytes."""
    try:
        same_size = place.stat().st_size == len(data)
    except FileNotFoundError:
        return False
    return not (place.is_file() and same_size and place.read_bytes() == data)


def _marked(place: Path, mark: str) -> str:
    """Return a name with a mark behind its stem, which is cut where all would be too long."""
    suffix = place.suffix if len(place.suffix) < _DIGITS else ""
    ending = f"-{mark}{suffix}"
    stem = place.stem.encode()[: _LONGEST_NAME - len(ending.encode())]
    return stem.decode(errors="ignore") + ending
