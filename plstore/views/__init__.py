"""Materialised selections: rows, order, images by reference."""

from plstore.views.attaching import ViewMode, attach_images
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
from plstore.views.writing import next_version, write_view

__all__ = [
    "DEFAULT_QUALITY",
    "ReferencedImages",
    "Shrink",
    "Shrinking",
    "View",
    "ViewMode",
    "ViewRecord",
    "attach_images",
    "check_view_name",
    "find_view",
    "next_version",
    "open_view",
    "shrink_image",
    "shuffled",
    "split_by_size",
    "with_weights",
    "write_view",
]
