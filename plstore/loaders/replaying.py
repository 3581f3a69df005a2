"""Whether labels of views are those of the draws that a loader makes."""

from collections.abc import Mapping
from typing import Any

from plstore.errors import InputError
from plstore.labels import ViewLabels
from plstore.loaders.settings import check_kind
from plstore.views import View


def check_labels(
    labels: ViewLabels, view: View, identity: Mapping[str, Any], backend: str
) -> None:
    """Stop unless labels were made of the draws of a loader, by its own backend.

    Those of a view before images were deleted from it are taken: what a draw shows is compared
    with what was labeled, draw by draw.

    Raises:
        InputError: If they are of other draws.
    """
    check_kind("labels", labels, ViewLabels)
    made = labels.label_set
    pairs = {
        "view": (f"{made.view}@{made.version}", view.key),
        "plan": (made.plan, identity["plan"]),
        "seed": (made.seed, identity["seed"]),
        "backend": (made.backend, backend),
    }
    for name, (theirs, ours) in pairs.items():
        if theirs != ours:
            raise InputError(
                f"the labels are of {name} {theirs!r}, this loader of {ours!r}: its noised "
                "images are others. Make the loader as it was when plstore.label_views made "
                "them, or make them for this one"
            )
