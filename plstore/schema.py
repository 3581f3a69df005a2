"""The Arrow schema of each table: the only place where names, types and units are spelled.

Types stay inside what every engine reads (bigint, int, float, lists, binary, string,
timestamp): float16, unsigned integers and fixed-size lists fail or silently corrupt in some
engine. Partition columns live in the path of a file, not in the file.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

import pyarrow as pa

FORMAT_VERSION: Final = 1
"""Version of the on-disk format; a store of a newer one is refused."""

Profile = Literal["compact", "portable"]
"""How floats are encoded in Parquet: `compact` by BYTE_STREAM_SPLIT, a sixth smaller, which
Spark reads since 4.1; `portable` as every Parquet reader knows them."""

Split = Literal["labeled", "unlabeled", "validation", "test", "evaluation"]
"""What images are for. Those of `evaluation` are test sets by name of their dataset: no run
reads them, `plstore evaluate` does."""
SPLITS: Final[tuple[str, ...]] = get_args(Split)

EVALUATION: Final = "evaluation"
"""The split of test sets."""

HELD_OUT: Final = ("validation", "test", "evaluation")
"""Splits whose images nothing may be trained on."""

ACCEPTED: Final = "accepted"
"""The verdict of an image that training may read; any other verdict is a reason."""

REFUSALS: Final[dict[str, str]] = {
    "empty": "the file holds no bytes",
    "not_an_image": "no known image format",
    "unsupported_format": "an image of another format, by plstore 0.2, which named none",
    "unsupported_avif": "AVIF, which this installation of Pillow does not read",
    "unsupported_exr": "OpenEXR: values of light, with no stated black and white",
    "unsupported_heic": "HEIC: install plstore[heic], then import into a new store",
    "unsupported_ico": "an icon of several sizes",
    "unsupported_jp2": "JPEG 2000, in a colour space or installation that is not read",
    "unsupported_jxl": "JPEG XL: save it as PNG or JPEG",
    "unsupported_pdf": "a PDF: save its pages as images",
    "unsupported_ppm": "a PFM or PPM of floats, with no stated black and white",
    "unsupported_psd": "a Photoshop document: save it as PNG",
    "unsupported_raw": "a camera's raw file: develop it, then save it as TIFF, PNG or JPEG",
    "unsupported_svg": "SVG, which has no pixels: draw it as PNG",
    "unsupported_tiff": "a TIFF of floats, 32-bit values, Lab, or a layout that is not read",
    "unsupported_video": "a video or sound",
    "animated": "more than one frame",
    "over_byte_limit": "a larger file than the import reads",
    "over_pixel_limit": "more pixels than the import allows",
    "over_memory_limit": "decoding it takes more memory than its pixels account for",
    "too_slow": "decoding it takes longer than the import allows, or it has over 100 scans",
    "truncated": "the file ends before the image does",
    "damaged": "the image cannot be decoded",
    "file_gone": "imported in place, and the file is not there now; used again when it is back",
}
"""Why an image is not accepted. Such an image keeps its row; its bytes are not stored."""

FILE_GONE: Final = "file_gone"
"""The verdict on an image that was accepted and left in place, while its file is not there."""

LABEL_TYPE: Final = pa.struct(
    [
        pa.field("class_ids", pa.list_(pa.int32())),
        pa.field("probs", pa.list_(pa.float32())),
        pa.field("residual", pa.float32()),
        pa.field("tail", pa.binary()),
    ]
)
"""A coded class distribution: the top-k classes, most probable first, their probabilities
(0 to 1, mantissa rounded to 10 bits), the mass of all other classes, and for the `dense` codec
how it is spread over them. `plstore.codec` encodes and decodes it."""

IMAGE_TYPE: Final = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
"""The Image layout of the `datasets` library."""


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """A table of the store.

    Attributes:
        name: Folder name in the store and view name in SQL.
        columns: All columns, partition columns included.
        partition_by: Columns kept in the path of a file.
        raw_columns: Leaf columns written without compression or dictionary (compressed bytes).
        zstd_level: Of the other columns: 3 where files are read as soon as they are written, 19
            where millions of rows are waited for anyway.
    """

    name: str
    columns: pa.Schema
    partition_by: tuple[str, ...] = ()
    raw_columns: tuple[str, ...] = ()
    zstd_level: int = 3

    @property
    def file_schema(self) -> pa.Schema:
        """The columns inside a file: all but the partition columns."""
        return pa.schema([f for f in self.columns if f.name not in self.partition_by])


def _table(
    name: str,
    columns: list[tuple[str, pa.DataType]],
    *,
    partition_by: tuple[str, ...] = (),
    raw_columns: tuple[str, ...] = (),
    zstd_level: int = 3,
) -> TableSpec:
    return TableSpec(
        name=name,
        columns=pa.schema([pa.field(column, kind) for column, kind in columns]),
        partition_by=partition_by,
        raw_columns=raw_columns,
        zstd_level=zstd_level,
    )


_TIME = pa.timestamp("us", tz="UTC")

TABLES: Final[dict[str, TableSpec]] = {
    table.name: table
    for table in (
        _table("classes", [("class_id", pa.int32()), ("name", pa.string())]),
        _table(
            "images",
            [
                ("sample_id", pa.int64()),
                ("dataset", pa.string()),
                ("key", pa.string()),
                ("split", pa.string()),
                ("label", pa.int32()),
                ("image", IMAGE_TYPE),
                ("width", pa.int32()),
                ("height", pa.int32()),
                ("num_bytes", pa.int64()),
                ("content_hash", pa.string()),
                ("verdict", pa.string()),
                ("conversion", pa.string()),
            ],
            raw_columns=("image.bytes",),
        ),
        _table("truth", [("sample_id", pa.int64()), ("label", pa.int32())]),
        _table(
            "accepted_classes",
            [("source", pa.string()), ("sample_id", pa.int64()), ("label", pa.int32())],
        ),
        _table(
            "teachers",
            [
                ("teacher_id", pa.string()),
                ("iteration", pa.int32()),
                ("role", pa.string()),
                ("architecture", pa.string()),
                ("checkpoint", pa.string()),
                ("checkpoint_hash", pa.string()),
                ("preprocessing", pa.string()),
                ("metrics", pa.string()),
                ("members", pa.string()),
                ("view", pa.string()),
                ("view_version", pa.int64()),
                ("recipe", pa.string()),
                ("recipe_hash", pa.string()),
                ("seed", pa.int64()),
                ("code_version", pa.string()),
                ("created_at", _TIME),
            ],
        ),
        _table(
            "soft_labels",
            [
                ("iteration", pa.int32()),
                ("teacher_id", pa.string()),
                ("split", pa.string()),
                ("sample_id", pa.int64()),
                ("class_id", pa.int32()),
                ("confidence", pa.float32()),
                ("entropy", pa.float32()),
                ("label", LABEL_TYPE),
            ],
            partition_by=("iteration", "teacher_id", "split"),
        ),
        _table(
            "perturbed_labels",
            [
                ("teacher_id", pa.string()),
                ("split", pa.string()),
                ("kind", pa.string()),
                ("perturbation", pa.string()),
                ("level", pa.float32()),
                ("sample_id", pa.int64()),
                ("class_id", pa.int32()),
                ("confidence", pa.float32()),
                ("entropy", pa.float32()),
                ("label", LABEL_TYPE),
            ],
            partition_by=("teacher_id", "split", "kind", "perturbation"),
        ),
        _table(
            "embeddings",
            [
                ("model", pa.string()),
                ("split", pa.string()),
                ("sample_id", pa.int64()),
                ("vector", pa.list_(pa.float32())),
            ],
            partition_by=("model", "split"),
        ),
        _table(
            "exclusions",
            [
                ("sample_id", pa.int64()),
                ("reason", pa.string()),
                ("who", pa.string()),
                ("decided_at", _TIME),
            ],
        ),
        _table(
            "corrections",
            [
                ("sample_id", pa.int64()),
                ("label", pa.int32()),
                ("who", pa.string()),
                ("decided_at", _TIME),
            ],
        ),
        _table(
            "deletions",
            [
                ("sample_id", pa.int64()),
                ("dataset", pa.string()),
                ("key", pa.string()),
                ("content_hash", pa.string()),
                ("reason", pa.string()),
                ("who", pa.string()),
                ("decided_at", _TIME),
            ],
        ),
        _table(
            "views",
            [
                ("view", pa.string()),
                ("version", pa.int64()),
                ("identity", pa.string()),
                ("query", pa.string()),
                ("sql", pa.string()),
                ("parameters", pa.string()),
                ("pins", pa.string()),
                ("counts", pa.string()),
                ("mode", pa.string()),
                ("num_images", pa.int64()),
                ("num_draws", pa.int64()),
                ("rows_version", pa.int64()),
                ("recipe_hash", pa.string()),
                ("code_version", pa.string()),
                ("created_at", _TIME),
            ],
        ),
        _table(
            "view_rows",
            [
                ("view", pa.string()),
                ("version", pa.int64()),
                ("sample_id", pa.int64()),
                ("kind", pa.string()),
                ("class_id", pa.int32()),
                ("confidence", pa.float32()),
                ("copies", pa.int32()),
                ("weight", pa.float32()),
                ("label", LABEL_TYPE),
                ("width", pa.int32()),
                ("height", pa.int32()),
                ("content_hash", pa.string()),
                ("image_hash", pa.string()),
                ("image_file", pa.string()),
                ("image_row_group", pa.int32()),
                ("image_row", pa.int32()),
                ("image", pa.binary()),
            ],
            partition_by=("view", "version"),
            raw_columns=("image",),
        ),
        _table(
            "view_labels",
            [
                ("view", pa.string()),
                ("version", pa.int64()),
                ("identity", pa.string()),
                ("draw", pa.int64()),
                ("sample_id", pa.int64()),
                ("label", LABEL_TYPE),
            ],
            partition_by=("view", "version", "identity"),
            zstd_level=19,
        ),
        _table(
            "runs",
            [
                ("run", pa.string()),
                ("step", pa.int64()),
                ("name", pa.string()),
                ("value", pa.float64()),
            ],
        ),
    )
}
