"""Import from and export to what people already have."""

from plstore.exchange.folders import image_folders
from plstore.exchange.idx import IdxSplits, idx_files
from plstore.exchange.parquet import parquet_folder, write_parquet_folder
from plstore.exchange.source import Source

__all__ = [
    "IdxSplits",
    "Source",
    "idx_files",
    "image_folders",
    "parquet_folder",
    "write_parquet_folder",
]
