"""Images of a packed view made smaller, so that an epoch decodes no more than it needs.

A shrunk image is a JPEG of its own, with the labels and the sample id of the one in `images`,
which stays as it is. The same image gives the same bytes by the same version of Pillow.
"""

import io
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import pyarrow as pa
from PIL import Image

from plstore.decoding import SCALES, can_scale, decode_scaled, format_of, open_image
from plstore.errors import InputError, StoreError
from plstore.fingerprint import content_hash
from plstore.machine import num_cores

if TYPE_CHECKING:
    from plstore.views.view import ViewRecord

DEFAULT_QUALITY: Final = 90
_LARGEST_SIDE: Final = 65_500  # of a JPEG
_BEST_QUALITY: Final = 100
_SPARE: Final = 1.5  # sides that an image is decoded to, by those that it is shrunk to
_AHEAD: Final = 4  # images on their way, for each core


@dataclass(frozen=True, kw_only=True)
class Shrink:
    """To what the images of a view are shrunk.

    Attributes:
        max_side: Pixels of the longer side, 1 to 65,500. Images of more are shrunk to it; all
            others stay as they are, byte for byte.
        quality: Of the JPEGs that they become, 1 to 100, on libjpeg's scale.
    """

    max_side: int
    quality: int = DEFAULT_QUALITY

    def __post_init__(self) -> None:
        """Check both numbers.

        Raises:
            InputError: If one is out of range.
        """
        for name, high in (("max_side", _LARGEST_SIDE), ("quality", _BEST_QUALITY)):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= high:
                raise InputError(
                    f"{name} is {value!r}; wanted a whole number from 1 to {high:,}"
                )

    @classmethod
    def of(cls, record: "ViewRecord") -> "Shrink | None":
        """Return how the images of a view were shrunk, None where they were not."""
        if "shrunk" not in record.counts:
            return None
        return cls(**{name: record.parameters[name] for name in ("max_side", "quality")})

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Return the sides of an image of more than `max_side` once it is shrunk."""
        longer = max(width, height)
        sides = [
            (2 * side * self.max_side + longer) // (2 * longer) for side in (width, height)
        ]
        return max(sides[0], 1), max(sides[1], 1)


class ShrunkImage(NamedTuple):
    """A JPEG, and its sides in pixels."""

    data: bytes
    width: int
    height: int


def shrink_image(data: bytes, width: int, height: int, shrink: Shrink) -> ShrunkImage:
    """Return an image as a JPEG whose longer side is `max_side`, by Lanczos's filter.

    A JPEG is decoded at a scale that leaves at least one and a half times the sides.

    Args:
        data: JPEG, PNG or WebP of 8-bit grayscale or RGB; a profile of colours is not kept, as
            no loader heeds it.
        width: Pixels.
        height: Pixels; one of both is more than `max_side`.
        shrink: To what.

    Raises:
        OSError: If it cannot be decoded.
    """
    size = shrink.size_of(width, height)
    most = min(max(width, height) / (_SPARE * shrink.max_side), width, height)
    image, scale = _decoded(data, most)
    box = (0, 0, width / scale, height / scale)  # the last scaled pixel may reach beyond it
    image = image.resize(size, Image.Resampling.LANCZOS, box=box)
    image.info = {}
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=shrink.quality)
    return ShrunkImage(stream.getvalue(), *size)


def _decoded(data: bytes, most: float) -> tuple[Image.Image, int]:
    """Return an image in grayscale or RGB, and its scale: the largest up to `most`."""
    scales = [scale for scale in SCALES if scale <= most]
    if scales and can_scale(data):
        return decode_scaled(data, scales[-1]), scales[-1]
    image = open_image(data, str(format_of(data)))
    return image.convert("L" if image.mode == "L" else "RGB"), 1


class Shrinking:
    """Shrinks the images of rows on their way into a view, and counts them."""

    def __init__(self, shrink: Shrink) -> None:
        """Begin to count."""
        self.shrink = shrink
        self.num_shrunk = 0

    def of(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield rows in their order, with bytes, sides and hash of images that were shrunk.

        Args:
            batches: With `sample_id`, `width`, `height`, `image_hash` and `image`.

        Raises:
            StoreError: If an image cannot be decoded.
        """
        pool = ThreadPoolExecutor(num_cores(), thread_name_prefix="plstore-shrink")
        waiting: deque[tuple[pa.RecordBatch, _Tasks]] = deque()
        try:
            for batch in batches:
                waiting.append((batch, self._begin(batch, pool)))
                while sum(len(tasks) for _, tasks in waiting) > _AHEAD * num_cores():
                    yield _finished(*waiting.popleft())
            while waiting:
                yield _finished(*waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _begin(self, rows: pa.RecordBatch, pool: ThreadPoolExecutor) -> "_Tasks":
        sides = zip(rows["width"].to_pylist(), rows["height"].to_pylist(), strict=True)
        tasks: _Tasks = {}
        for row, (width, height) in enumerate(sides):
            if max(width, height) > self.shrink.max_side:
                data = rows["image"][row].as_py()
                tasks[row] = pool.submit(shrink_image, data, width, height, self.shrink)
        self.num_shrunk += len(tasks)
        return tasks


_Tasks = dict[int, "Future[ShrunkImage]"]
"""By row, what makes its image."""


def _finished(rows: pa.RecordBatch, tasks: _Tasks) -> pa.RecordBatch:
    if not tasks:
        return rows
    names = ("width", "height", "image_hash", "image")
    columns = {name: rows[name].to_pylist() for name in names}
    for row, task in tasks.items():
        try:
            image = task.result()
        except (OSError, SyntaxError, ValueError) as error:
            raise StoreError(
                f"image {rows['sample_id'][row]}, which import accepted, cannot be shrunk: "
                f"{error}. Delete it, or select without max_side"
            ) from error
        columns["width"][row], columns["height"][row] = image.width, image.height
        columns["image_hash"][row] = content_hash(image.data)
        columns["image"][row] = image.data
    for name, values in columns.items():
        index = rows.schema.get_field_index(name)
        field = rows.schema.field(index)
        rows = rows.set_column(index, field, pa.array(values, field.type))
    return rows
