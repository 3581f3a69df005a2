"""IDX files, the format of MNIST and its kin: four gzipped files, pixels and labels."""

import gzip
import io
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from plstore.errors import InputError
from plstore.exchange.label_space import declared_names
from plstore.exchange.source import Source
from plstore.fingerprint import content_hash, value_hash
from plstore.images import ImageRecord
from plstore.seeds import Purpose, generator

_BYTES = npt.NDArray[np.uint8]
_UNSIGNED_BYTE = 0x08
_MOST_DIMS = 3  # images, rows, columns
_PNG_BYTES = 520  # a 28 x 28 PNG, for estimates


@dataclass(frozen=True, kw_only=True)
class IdxSplits:
    """How the training images are dealt out; what a number leaves over is not imported.

    Attributes:
        num_labeled: Labeled images, the same number of every class.
        num_validation: Validation images.
        num_unlabeled: Unlabeled images, None for all the rest.
        num_test: Test images of the test file, None for all.
        seed: Draws who goes where.
    """

    num_labeled: int
    num_validation: int = 1000
    num_unlabeled: int | None = None
    num_test: int | None = None
    seed: int = 0


def _contents(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; wanted an IDX file") from error
    return _unpacked(path, data) if data[:2] == b"\x1f\x8b" else data


def read_idx(path: Path) -> _BYTES:
    """Read an IDX file of bytes, gzipped or not, as uint8 of its own shape.

    Raises:
        InputError: If the file is not there, or is no IDX file of unsigned bytes.
    """
    data = _contents(path)
    if len(data) < 4 or data[:3] != bytes([0, 0, _UNSIGNED_BYTE]):  # noqa: PLR2004  the magic number
        raise InputError(
            f"{path} is no IDX file of unsigned bytes: it starts with {data[:4]!r}"
        )
    num_dims, start = data[3], 4 + 4 * data[3]
    if not 1 <= num_dims <= _MOST_DIMS or len(data) < start:
        raise InputError(
            f"{path} has no whole header of an IDX file: it is cut off, or damaged"
        )
    shape = struct.unpack(f">{num_dims}i", data[4:start])
    values = np.frombuffer(data, dtype=np.uint8, offset=start)
    if min(shape) < 0 or values.size != math.prod(shape):
        raise InputError(
            f"{path} holds {values.size} values; its header promises {shape}: it is cut off, "
            "or damaged"
        )
    return values.reshape(shape)


def _unpacked(path: Path, data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be unpacked: {error}; copy it again") from error


def idx_files(
    folder: Path, *, class_names: Sequence[str], splits: IdxSplits, dataset: str
) -> Source:
    """Read the four files ``{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]`` of a folder.

    Labels of unlabeled images become truth, which only evaluation reads.

    Raises:
        InputError: If a file is missing or broken, or there are fewer images than asked for.
    """
    class_names = declared_names(list(class_names), "the list of classes")
    train, test = (
        _pair(folder, "train", len(class_names)),
        _pair(folder, "t10k", len(class_names)),
    )
    dealt = _deal(train[1], len(class_names), splits)
    order = generator(splits.seed, Purpose.SAMPLE, 1).permutation(len(test[1]))
    dealt["test"] = np.sort(order[: splits.num_test])
    counts = {split: len(rows) for split, rows in dealt.items()}

    identity = value_hash(
        {
            "splits": vars(splits),
            "classes": list(class_names),
            "files": [content_hash(values.tobytes()) for values in (*train, *test)],
        }
    )

    def records() -> Iterator[ImageRecord]:
        for split, rows in dealt.items():
            images, labels = test if split == "test" else train
            for row in rows.tolist():
                name = class_names[labels[row]]
                yield ImageRecord(
                    key=_key(split, row),
                    split=split,
                    data=_png(images[row]),
                    label=None if split == "unlabeled" else name,
                    truth=name if split == "unlabeled" else None,
                )

    return Source(
        dataset=dataset,
        identity=identity,
        freshness=identity,
        class_names=class_names,
        num_images=sum(counts.values()),
        num_bytes=sum(counts.values()) * _PNG_BYTES,
        splits=counts,
        keys=lambda: [
            _key(split, row) for split, rows in dealt.items() for row in rows.tolist()
        ],
        records=records,
    )


def _key(split: str, row: int) -> str:
    return f"{'test' if split == 'test' else 'train'}/{row:05d}.png"


def _pair(folder: Path, prefix: str, num_classes: int) -> tuple[_BYTES, _BYTES]:
    images = read_idx(_find(folder, f"{prefix}-images-idx3-ubyte"))
    labels = read_idx(_find(folder, f"{prefix}-labels-idx1-ubyte"))
    if (images.ndim, labels.ndim) != (3, 1):
        raise InputError(
            f"{folder}: {prefix} images of shape {images.shape} and labels of shape "
            f"{labels.shape}; wanted [images, rows, columns] and [images]"
        )
    highest = int(labels.max(initial=0))
    if len(images) != len(labels) or highest >= num_classes:
        raise InputError(
            f"{folder}: {len(images)} {prefix} images and {len(labels)} labels up to "
            f"{highest}; wanted as many labels as images, below {num_classes}, the number of "
            "classes"
        )
    return images, labels


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise InputError(f"{folder} has no {name}.gz; wanted the four IDX files of the data set")


def _deal(
    labels: _BYTES, num_classes: int, splits: IdxSplits
) -> dict[str, npt.NDArray[np.intp]]:
    order = generator(splits.seed, Purpose.SAMPLE, 0).permutation(len(labels))
    per_class = splits.num_labeled // num_classes
    if splits.num_labeled % num_classes:
        raise InputError(
            f"{splits.num_labeled} labeled images cannot be dealt evenly to {num_classes} "
            f"classes; wanted a multiple of {num_classes}"
        )
    labeled = np.concatenate(
        [order[labels[order] == c][:per_class] for c in range(num_classes)]
    )
    rest = order[~np.isin(order, labeled)]
    num_unlabeled = splits.num_unlabeled
    end = len(rest) if num_unlabeled is None else splits.num_validation + num_unlabeled
    if len(labeled) != splits.num_labeled or end > len(rest) or end < splits.num_validation:
        raise InputError(
            f"{len(labels)} training images do not suffice for {splits.num_labeled} labeled, "
            f"{splits.num_validation} validation and {splits.num_unlabeled} unlabeled ones"
        )
    return {
        "labeled": np.sort(labeled),
        "unlabeled": np.sort(rest[splits.num_validation : end]),
        "validation": np.sort(rest[: splits.num_validation]),
    }


def _png(pixels: _BYTES) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", optimize=True)
    return stream.getvalue()
