"""Teachers and their labels: label sets, writing, fusion, counts."""

from plstore.labels.ensemble import Ensemble, make_ensemble, member_of
from plstore.labels.fusion import Member, Method, at_temperature
from plstore.labels.histograms import (
    HISTOGRAM,
    NUM_BUCKETS,
    find_counts,
    merge_counts,
    stale_counts,
    write_histograms,
)
from plstore.labels.label_sets import (
    SHARD_IDS,
    LabelBatch,
    LabelSet,
    check_teacher_id,
    find_label_sets,
    label_sets,
    labels_in_order,
)
from plstore.labels.perturbed import (
    PerturbationKind,
    PerturbedSet,
    commit_perturbed,
    has_perturbed,
    perturbed_rows,
)
from plstore.labels.teachers import (
    Role,
    TeacherRecord,
    add_teacher,
    find_teacher,
    list_teachers,
)
from plstore.labels.truth import Validation, corrected_labels, read_validation
from plstore.labels.view_labels import (
    DRAWS_OF_A_FILE,
    Span,
    ViewLabels,
    ViewLabelSet,
    commit_view_labels,
    missing_spans,
    open_view_labels,
    span_of,
    view_label_rows,
)
from plstore.labels.weighting import Weighting
from plstore.labels.writing import (
    COUNTED_AT_ONCE,
    LabelWriter,
    coded_rows,
    commit_labels,
    write_labels,
)

__all__ = [
    "COUNTED_AT_ONCE",
    "DRAWS_OF_A_FILE",
    "HISTOGRAM",
    "NUM_BUCKETS",
    "SHARD_IDS",
    "Ensemble",
    "LabelBatch",
    "LabelSet",
    "LabelWriter",
    "Member",
    "Method",
    "PerturbationKind",
    "PerturbedSet",
    "Role",
    "Span",
    "TeacherRecord",
    "Validation",
    "ViewLabelSet",
    "ViewLabels",
    "Weighting",
    "add_teacher",
    "at_temperature",
    "check_teacher_id",
    "coded_rows",
    "commit_labels",
    "commit_perturbed",
    "commit_view_labels",
    "corrected_labels",
    "find_counts",
    "find_label_sets",
    "find_teacher",
    "has_perturbed",
    "label_sets",
    "labels_in_order",
    "list_teachers",
    "make_ensemble",
    "member_of",
    "merge_counts",
    "missing_spans",
    "open_view_labels",
    "perturbed_rows",
    "read_validation",
    "span_of",
    "stale_counts",
    "view_label_rows",
    "write_histograms",
    "write_labels",
]
