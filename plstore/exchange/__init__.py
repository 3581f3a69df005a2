"""Import from and export to what people already have.

Modules that need a library of an extra are imported where they are used: `hub` (datasets),
`duplicates` (ImageHash).
"""

from plstore.exchange.annotations import Reviewed, import_review
from plstore.exchange.class_folders import class_folders
from plstore.exchange.decisions import (
    Corrections,
    images_in,
    read_corrections,
    sample_ids,
)
from plstore.exchange.exporting import export
from plstore.exchange.exports import Exported, export_labels, export_view
from plstore.exchange.folders import image_folders
from plstore.exchange.idx import IdxSplits, idx_files
from plstore.exchange.image_paths import ImagePaths, Named, Paths, image_paths, path_list
from plstore.exchange.imported_labels import import_predictions
from plstore.exchange.intake import Imported, import_source
from plstore.exchange.listing import ListingColumns, image_listing
from plstore.exchange.parquet import parquet_folder, write_parquet_folder
from plstore.exchange.prediction_tables import PREDICTIONS_KEY
from plstore.exchange.predictions import Matched, match_predictions
from plstore.exchange.review_tasks import Tasks, export_review
from plstore.exchange.source import Source
from plstore.exchange.tars import tar_files

__all__ = [
    "PREDICTIONS_KEY",
    "Corrections",
    "Exported",
    "IdxSplits",
    "ImagePaths",
    "Imported",
    "ListingColumns",
    "Matched",
    "Named",
    "Paths",
    "Reviewed",
    "Source",
    "Tasks",
    "class_folders",
    "export",
    "export_labels",
    "export_review",
    "export_view",
    "idx_files",
    "image_folders",
    "image_listing",
    "image_paths",
    "images_in",
    "import_predictions",
    "import_review",
    "import_source",
    "match_predictions",
    "parquet_folder",
    "path_list",
    "read_corrections",
    "sample_ids",
    "tar_files",
    "write_parquet_folder",
]
