"""Images in, labels in, snapshots out: writing, reading, commits, versions, verification."""

from plstore.store.collect import DEFAULT_GRACE, Collectable, collect, collectable
from plstore.store.compact import Compaction, compact
from plstore.store.decisions import check_images, correct, corrected_labels, exclude
from plstore.store.diff import CHANGES, diff_labels, diff_views
from plstore.store.ensemble import Ensemble, make_ensemble, member_of
from plstore.store.erase import Erasure, erase
from plstore.store.fusion import (
    Fused,
    Member,
    Method,
    at_temperature,
    fuse,
    fusion_lineage,
    write_fused,
)
from plstore.store.histograms import (
    BUCKET_SQL,
    HISTOGRAM,
    NUM_BUCKETS,
    KeptCounts,
    count_labels,
    find_counts,
    register_labels,
    write_histograms,
)
from plstore.store.images import ImageRecord, ImportCounts, import_images
from plstore.store.labels import (
    SHARD_IDS,
    LabelBatch,
    LabelSet,
    check_teacher_id,
    commit_labels,
    find_label_sets,
    label_sets,
    write_labels,
)
from plstore.store.layout import ViewMode, attach_images, shuffled
from plstore.store.pixels import IMAGE_COLUMNS, image_bytes
from plstore.store.shard import Claim, Commit, Shard
from plstore.store.store import Store, create, open  # noqa: A004  plstore.open is the door
from plstore.store.table import Table
from plstore.store.verdict import (
    DEFAULT_MAX_PIXELS,
    Verdict,
    judge,
    large_images_are_verdicts,
)
from plstore.store.verify import Problem, count_files, verify
from plstore.store.versions import (
    AsOf,
    Tag,
    add_tag,
    delete_tag,
    numbered,
    pin,
    resolve,
    tags,
    unpin,
)
from plstore.store.views import (
    View,
    ViewRecord,
    check_view_name,
    find_view,
    next_version,
    open_view,
    split_by_size,
    write_view,
)

__all__ = [
    "BUCKET_SQL",
    "CHANGES",
    "DEFAULT_GRACE",
    "DEFAULT_MAX_PIXELS",
    "HISTOGRAM",
    "IMAGE_COLUMNS",
    "NUM_BUCKETS",
    "SHARD_IDS",
    "AsOf",
    "Claim",
    "Collectable",
    "Commit",
    "Compaction",
    "Ensemble",
    "Erasure",
    "Fused",
    "ImageRecord",
    "ImportCounts",
    "KeptCounts",
    "LabelBatch",
    "LabelSet",
    "Member",
    "Method",
    "Problem",
    "Shard",
    "Store",
    "Table",
    "Tag",
    "Verdict",
    "View",
    "ViewMode",
    "ViewRecord",
    "add_tag",
    "at_temperature",
    "attach_images",
    "check_images",
    "check_teacher_id",
    "check_view_name",
    "collect",
    "collectable",
    "commit_labels",
    "compact",
    "correct",
    "corrected_labels",
    "count_files",
    "count_labels",
    "create",
    "delete_tag",
    "diff_labels",
    "diff_views",
    "erase",
    "exclude",
    "find_counts",
    "find_label_sets",
    "find_view",
    "fuse",
    "fusion_lineage",
    "image_bytes",
    "import_images",
    "judge",
    "label_sets",
    "large_images_are_verdicts",
    "make_ensemble",
    "member_of",
    "next_version",
    "numbered",
    "open",
    "open_view",
    "pin",
    "register_labels",
    "resolve",
    "shuffled",
    "split_by_size",
    "tags",
    "unpin",
    "verify",
    "write_fused",
    "write_histograms",
    "write_labels",
    "write_view",
]
