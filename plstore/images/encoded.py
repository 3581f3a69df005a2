"""The bytes of images: from the store, or from where they were left at import."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from plstore import storage
from plstore.errors import StoreError
from plstore.fingerprint import content_hash
from plstore.images.verdict import judge, large_images_are_verdicts
from plstore.schema import ACCEPTED, REFUSALS

IMAGE_COLUMNS = ("sample_id", "image", "content_hash", "verdict", "conversion")
"""Columns of `images` that `image_bytes` needs."""


def image_bytes(rows: pa.RecordBatch, *, tolerant: bool = False) -> pa.BinaryArray:
    """Return the encoded images of rows of `images`, null where one was refused.

    Images that were imported in place are read from their files, checked against the hash of
    import and converted as they were judged.

    Args:
        rows: With `IMAGE_COLUMNS`.
        tolerant: Whether a file that is gone or was changed is null, not an error.

    Raises:
        StoreError: If such a file is gone or was changed, or cannot be converted here as it was
            at import.
    """
    stored = pc.struct_field(rows["image"], "bytes")
    absent = pc.and_(pc.is_null(stored), pc.equal(rows["verdict"], ACCEPTED))
    if not pc.any(absent).as_py():
        return stored
    columns = rows.select(list(IMAGE_COLUMNS)).filter(absent).to_pylist()
    with ThreadPoolExecutor() as pool, large_images_are_verdicts():
        found = list(pool.map(partial(_read, tolerant=tolerant), columns))
    return pc.replace_with_mask(stored, absent, pa.array(found, pa.binary()))


def _read(row: dict[str, Any], *, tolerant: bool) -> bytes | None:
    """Return an image; None where its file is gone or was changed, if that is tolerated."""
    try:
        data = _file(row)
    except StoreError as error:
        gone = error.__cause__ is None or isinstance(error.__cause__, FileNotFoundError)
        if tolerant and gone:
            return None
        raise
    return data if row["conversion"] is None else _converted(row, data)


def _file(row: dict[str, Any]) -> bytes:
    path = row["image"]["path"]
    try:
        data = storage.location(path).read_bytes()
    except OSError as error:
        raise StoreError(
            f"image {row['sample_id']} was imported in place from {path}, which cannot be read "
            f"now ({error}). Restore the file, or delete the image (plstore delete --ids "
            f"{row['sample_id']}); plstore run, label, embed and evaluate leave out what is "
            "gone when they begin"
        ) from error
    if content_hash(data) != row["content_hash"]:
        raise StoreError(
            f"image {row['sample_id']} was imported in place from {path}, which holds other "
            "bytes now. Restore the file; or delete the image (plstore delete --ids "
            f"{row['sample_id']}) and import the new one under another name"
        )
    return data


def _converted(row: dict[str, Any], data: bytes) -> bytes:
    """Convert an image as at import. Its size and time were judged then, and are not again."""
    found = judge(data, max_pixels=1 << 62, max_seconds=None)
    if found.data is None:
        raise StoreError(
            f"image {row['sample_id']} was imported in place from {row['image']['path']} and "
            f"converted ({row['conversion']}), which fails here: {found.verdict}, "
            f"{REFUSALS[found.verdict]}. Use an installation like the one that imported it, or "
            "delete the image"
        )
    return found.data
