"""ImageNet-C and ImageNet-P as they are published: images and videos in folders, by name.

They are of the validation images: a file belongs to the image of the store with the same class
folder and file name, or the same file name. The images are 224 pixels already, cropped; a model
of other pixels sees them resized, as in the paper (Noisy Student, section 3.1).
"""

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from plstore.errors import InputError
from plstore.fingerprint import value_hash
from plstore.images import DEFAULT_MAX_PIXELS
from plstore.labels import PerturbationKind
from trainers.robustness.batches import ImageBatch, check_known
from trainers.robustness.corruptions import KNOWN_CORRUPTIONS, check_severities
from trainers.robustness.labeling import Ids, Made, Pixels
from trainers.robustness.opencv import opencv
from trainers.robustness.published import CORRUPTIONS, PERTURBATIONS, SEVERITIES

_RGB: Final = 3
_MADE: Final = 1

Frames: TypeAlias = npt.NDArray[np.uint8]


def found_in(folder: Path, names: Sequence[str]) -> list[str]:
    """Return those of some names that a folder has, itself or one level below.

    Raises:
        InputError: If it has none of them.
    """
    found = [name for name in names if _place(folder, name) is not None]
    if not found:
        raise InputError(
            f"{folder} has no folder named {', '.join(names[:4])}, ...; wanted one for each, "
            "such as defocus_blur/3/n01440764/IMAGE.JPEG, or blur/defocus_blur/3/..."
        )
    return found


def _place(folder: Path, name: str) -> Path | None:
    """Return where a perturbation is: ImageNet-C is published in groups, blur/defocus_blur."""
    for place in (folder / name, *sorted(folder.glob(f"*/{name}"))):
        if place.is_dir():
            return place
    return None


def _by_name(folder: Path) -> dict[str, Path]:
    """Return files by class folder and name, and by name alone where that is one file's."""
    found: dict[str, Path] = {}
    alone: Counter[str] = Counter()
    for path, _, names in os.walk(folder):
        for name in names:
            place = Path(path, name)
            stem = place.stem
            alone[stem] += 1
            found[stem] = found[f"{place.parent.name}/{stem}"] = place
    return {name: p for name, p in found.items() if "/" in name or alone[name] == 1}


def _file_of(key: str, files: Mapping[str, Path], stems: Mapping[str, int]) -> Path | None:
    """Return the file of an image: by its name alone where no other image has that name."""
    name = PurePosixPath(key)
    found = files.get(f"{name.parent.name}/{name.stem}")
    return files.get(name.stem) if found is None and stems[name.stem] == 1 else found


def _as_seen(image: Image.Image, size: int, channels: int) -> Frames:
    """Return pixels [size, size, channels]: the middle square, resized if it must be."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.convert("RGB" if channels == _RGB else "L")
    image = image.crop((left, top, left + side, top + side))
    if side != size:
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image, np.uint8).reshape(size, size, channels)


@dataclass(frozen=True, kw_only=True)
class _Files(ABC):
    """Files of perturbations, of images of a store.

    Attributes:
        folder: Where they are.
        names: Of the perturbations; those that are there unless given.
        keys: Of the images, by sample id; `asked_of` gives them.
        on_note: Told how many images are left out, and why.
    """

    folder: Path
    names: Sequence[str] = ()
    keys: Mapping[int, str] = field(default_factory=dict)
    on_note: Callable[[str], None] = lambda _: None

    def made(self, batches: Iterator[ImageBatch], names: Sequence[str]) -> Iterator[Made]:
        """Yield what the files show of each batch, by level; say what is left out, and why."""
        left_out = {name: Counter[str]() for name in names}
        for ids, pixels in batches:
            for name in names:
                yield from self._made(name, ids, pixels.shape[1:], left_out[name])
        for name, counts in left_out.items():
            self._say(name, counts)

    @abstractmethod
    def _made(
        self, name: str, ids: Ids, shape: tuple[int, ...], left_out: Counter[str]
    ) -> Iterator[Made]:
        """Yield what the files of one perturbation show of some images."""

    @cached_property
    def _stems(self) -> Counter[str]:
        return Counter(PurePosixPath(key).stem for key in self.keys.values())

    @cached_property
    def _hashes(self) -> dict[str, str]:
        return {}

    def _identity(self, name: str, files: Mapping[Any, Path]) -> dict[str, Any]:
        if name not in self._hashes:
            what = [[str(of), path.stat().st_size] for of, path in sorted(files.items())]
            self._hashes[name] = value_hash({"files": what})
        return {"files": self.folder.name, "found": self._hashes[name], "made": _MADE}

    def _check_some(self, files: Mapping[Any, Path], name: str, wanted: str) -> None:
        if not files:
            raise InputError(
                f"{self.folder} has no file of {name} for any of {len(self.keys)} images, such "
                f"as {next(iter(self.keys.values()), 'none')!r}; wanted {wanted}, with the "
                "names of the store's images"
            )

    def _say(self, what: str, left_out: Mapping[str, int]) -> None:
        for why, number in left_out.items():
            if number:
                self.on_note(f"{what}: {number} images are left out, {why}")


@dataclass(frozen=True, kw_only=True)
class CorruptedFiles(_Files):
    """ImageNet-C: folder/CORRUPTION/SEVERITY/CLASS/IMAGE.JPEG.

    Attributes:
        severities: 1 to 5.
    """

    kind: ClassVar[PerturbationKind] = "corruption"
    severities: Sequence[int] = SEVERITIES

    def __post_init__(self) -> None:
        """Look for the corruptions.

        Raises:
            InputError: If one is unknown or not there, or a severity is none.
        """
        if not self.names:
            object.__setattr__(self, "names", found_in(self.folder, CORRUPTIONS))
        check_known("corruption", self.names, KNOWN_CORRUPTIONS)
        check_severities(self.severities)
        for name in self.names:
            found_in(self.folder, [name])

    def num_levels(self, name: str, size: int) -> int:  # noqa: ARG002  as others have them
        """Return the number of severities.

        Raises:
            InputError: If no image has all files.
        """
        self._check_some(self._files[name], name, f"{name}/SEVERITY/CLASS/IMAGE.JPEG")
        return len(self.severities)

    @cached_property
    def _files(self) -> dict[str, dict[tuple[int, int], Path]]:
        """Files of images that have one of every corruption, so that all are of the same."""
        found = {name: self._of(name) for name in self.names}
        of_all = set.intersection(*({i for i, _ in files} for files in found.values()))
        return {
            name: {of: path for of, path in files.items() if of[0] in of_all}
            for name, files in found.items()
        }

    def _of(self, name: str) -> dict[tuple[int, int], Path]:
        """Return the files of images that have one of every severity."""
        place = _place(self.folder, name)
        if place is None or not self.keys:
            return {}
        levels = {severity: _by_name(place / str(severity)) for severity in self.severities}
        found = {
            sample_id: [_file_of(key, files, self._stems) for files in levels.values()]
            for sample_id, key in self.keys.items()
        }
        return {
            (sample_id, severity): path
            for sample_id, paths in found.items()
            if None not in paths
            for severity, path in zip(levels, paths, strict=True)
            if path is not None
        }

    def identity(self, name: str) -> Mapping[str, Any]:
        """Return severities, and which files there are, of which size."""
        return {"severities": list(self.severities), **self._identity(name, self._files[name])}

    def _made(
        self, name: str, ids: Ids, shape: tuple[int, ...], left_out: Counter[str]
    ) -> Iterator[Made]:
        files, (size, _, channels) = self._files[name], shape
        there = [int(i) for i in ids if (int(i), self.severities[0]) in files]
        left_out["which have no file of each corruption and severity"] += len(ids) - len(there)
        seen = {
            i: [_opened(files[i, s], size, channels) for s in self.severities] for i in there
        }
        whole = [i for i in there if all(image is not None for image in seen[i])]
        left_out["whose files cannot be read"] += len(there) - len(whole)
        for place, severity in enumerate(self.severities) if whole else ():
            stacked: Pixels = np.stack([np.asarray(seen[i][place]) for i in whole])
            yield Made(name, severity, np.array(whole, np.int64), stacked)


def _opened(path: Path, size: int, channels: int) -> Frames | None:
    """Return an image's pixels, None if it cannot be read."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > DEFAULT_MAX_PIXELS:
                return None
            return _as_seen(image, size, channels)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return None


@dataclass(frozen=True, kw_only=True)
class SequenceFiles(_Files):
    """ImageNet-P: folder/PERTURBATION/CLASS/IMAGE.mp4, as many frames for all of one.

    Attributes:
        num_frames: None, as published.
    """

    kind: ClassVar[PerturbationKind] = "sequence"
    num_frames: None = None

    def __post_init__(self) -> None:
        """Look for the perturbations.

        Raises:
            InputError: If one is unknown or not there.
        """
        if not self.names:
            object.__setattr__(self, "names", found_in(self.folder, PERTURBATIONS))
        check_known("perturbation", self.names, PERTURBATIONS)
        for name in self.names:
            found_in(self.folder, [name])

    @cached_property
    def _files(self) -> dict[str, dict[int, Path]]:
        """Files of images that have a video of every perturbation."""
        found: dict[str, dict[int, Path]] = {}
        for name in self.names:
            place = _place(self.folder, name)
            files = {} if place is None or not self.keys else _by_name(place)
            paths = {i: _file_of(key, files, self._stems) for i, key in self.keys.items()}
            found[name] = {i: path for i, path in paths.items() if path is not None}
        of_all = set.intersection(*map(set, found.values()))
        return {n: {i: p for i, p in of.items() if i in of_all} for n, of in found.items()}

    @cached_property
    def _lengths(self) -> dict[str, int]:
        """Frames of the first video of each perturbation that has two or more."""
        return {
            name: next((n for p in files.values() if (n := _num_frames(p)) > 1), 0)
            for name, files in self._files.items()
        }

    def num_levels(self, name: str, size: int) -> int:  # noqa: ARG002  as others have them
        """Return the number of frames of its videos.

        Raises:
            InputError: If there is no video of an image, or none has two frames.
        """
        self._check_some(self._files[name], name, f"{name}/CLASS/IMAGE.mp4")
        if not self._lengths[name]:
            raise InputError(
                f"{self.folder} has no video of two or more frames of {name}; wanted videos of "
                "as many frames each"
            )
        return self._lengths[name]

    def identity(self, name: str) -> Mapping[str, Any]:
        """Return which files there are, of which size, and the version of what reads them."""
        found = self._identity(name, self._files[name])
        return {"opencv": opencv().__version__, **found}

    def _made(
        self, name: str, ids: Ids, shape: tuple[int, ...], left_out: Counter[str]
    ) -> Iterator[Made]:
        files, (size, _, channels) = self._files[name], shape
        length = self.num_levels(name, size)
        there = [int(i) for i in ids if int(i) in files]
        left_out["which have no video of each perturbation"] += len(ids) - len(there)
        videos = {i: _frames(files[i], size, channels) for i in there}
        whole = [i for i in there if len(videos[i]) == length]
        single = sum(len(video) == 1 for video in videos.values())
        left_out["whose video has one frame"] += single
        left_out[f"whose video has not {length} frames"] += len(there) - len(whole) - single
        for frame in range(length) if whole else ():
            stacked: Pixels = np.stack([videos[i][frame] for i in whole])
            yield Made(name, frame, np.array(whole, np.int64), stacked)


def _num_frames(path: Path) -> int:
    return len(_frames(path, 8, 1))


def _frames(path: Path, size: int, channels: int) -> list[Frames]:
    """Return the frames of a video, none if it cannot be read."""
    cv2 = opencv()
    video = cv2.VideoCapture(str(path))
    frames: list[Frames] = []
    try:
        while True:
            is_there, pixels = video.read()
            if not is_there:
                return frames
            image = Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
            frames.append(_as_seen(image, size, channels))
    finally:
        video.release()
