"""Images in, labels in, snapshots out: writing, reading, commits and versions."""

from plstore.store.images import ImageRecord, ImportCounts, import_images
from plstore.store.labels import (
    LabelBatch,
    LabelSet,
    check_teacher_id,
    commit_labels,
    write_labels,
)
from plstore.store.store import Store, create, open  # noqa: A004  plstore.open is the door
from plstore.store.table import Commit, Shard, Table
from plstore.store.verdict import (
    DEFAULT_MAX_PIXELS,
    Verdict,
    judge,
    large_images_are_verdicts,
)
from plstore.store.views import (
    View,
    ViewRecord,
    attach_images,
    check_view_name,
    find_view,
    next_version,
    open_view,
    write_view,
)

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "Commit",
    "ImageRecord",
    "ImportCounts",
    "LabelBatch",
    "LabelSet",
    "Shard",
    "Store",
    "Table",
    "Verdict",
    "View",
    "ViewRecord",
    "attach_images",
    "check_teacher_id",
    "check_view_name",
    "commit_labels",
    "create",
    "find_view",
    "import_images",
    "judge",
    "large_images_are_verdicts",
    "next_version",
    "open",
    "open_view",
    "write_labels",
    "write_view",
]
