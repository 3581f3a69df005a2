"""Images in: importing, verdicts, encoded bytes."""

from plstore.images.encoded import IMAGE_COLUMNS, image_bytes
from plstore.images.gone import GoneFiles, find_gone, mark_gone
from plstore.images.importing import Intake, import_images, prepare_import
from plstore.images.records import (
    DEFAULT_MAX_BYTES,
    UNSTORED,
    ImageFile,
    ImageRecord,
    ImportCounts,
    file_size,
    read_file,
)
from plstore.images.verdict import DEFAULT_MAX_PIXELS, Verdict, judge, large_images_are_verdicts

__all__ = [
    "DEFAULT_MAX_BYTES",
    "DEFAULT_MAX_PIXELS",
    "IMAGE_COLUMNS",
    "UNSTORED",
    "GoneFiles",
    "ImageFile",
    "ImageRecord",
    "ImportCounts",
    "Intake",
    "Verdict",
    "file_size",
    "find_gone",
    "image_bytes",
    "import_images",
    "judge",
    "large_images_are_verdicts",
    "mark_gone",
    "prepare_import",
    "read_file",
]
