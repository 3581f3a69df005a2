"""Materialised selections: rows, order, images by reference."""

from plstore.views.attaching import ViewMode, attach_images
from plstore.views.packing import HERE, Engine, Packing
from plstore.views.references import ReferencedImages
from plstore.views.shrinking import DEFAULT_QUALITY, Shrink, Shrinking, shrink_image
from plstore.views.shuffle import shuffled
from plstore.views.view import (
    View,
    ViewRecord,
    check_view_name,
    find_view,
    open_view,
    split_by_size,
    with_weights,
)
from plstore.views.writing import commit_view, next_version, write_rows

__all__ = [
    "DEFAULT_QUALITY",
    "HERE",
    "Engine",
    "Packing",
    "ReferencedImages",
    "Shrink",
    "Shrinking",
    "View",
    "ViewMode",
    "ViewRecord",
    "attach_images",
    "check_view_name",
    "commit_view",
    "find_view",
    "next_version",
    "open_view",
    "shrink_image",
    "shuffled",
    "split_by_size",
    "with_weights",
    "write_rows",
]
