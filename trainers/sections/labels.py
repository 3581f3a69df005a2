"""How teachers label, how several become one, and what a student gets of it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from plstore.views import DEFAULT_QUALITY, Shrink
from trainers.sections.section import Section


class Label(Section):
    """How a teacher labels."""

    codec: Literal["topk", "dense", "hard"] = "topk"
    """How soft labels are kept; `dense` for a student that learns at a temperature above 1."""
    topk: Annotated[int, Field(ge=1)] = 20
    """Classes kept of a soft label."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Of the teacher's softmax."""
    best: bool = False
    """In the end the model that is best by validation labels the pool as well."""
    views: bool = False
    """The teacher also labels the very images that a student sees, noise included. Noisy
    Student's labels are of clean images (algorithm 1, step 2): they follow `view_epochs`."""
    view_epochs: Annotated[float, Field(gt=0)] = 1.0
    """For so many epochs of a student: passes over the labeled images, as train.epochs are. A
    draw takes some 60 bytes of the store, at 20 classes."""


class Fusion(Section):
    """How several first teachers become one; see `plstore fuse --help`."""

    method: Literal["arithmetic", "geometric", "votes"] = "votes"
    """Mean of probabilities, of their logarithms, or of hard labels."""
    weights: Literal["given", "fitted"] = "given"
    """The same for all, or those that fit the validation images."""


class Select(Section):
    """What a student trains on."""

    policy: Literal["exact", "reference", "cap", "none"] = "exact"
    """How classes are balanced; see `plstore select --help`."""
    min_confidence: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Pseudo-labels above this are kept (Noisy Student, 3.1)."""
    images_per_class: Annotated[int, Field(ge=1)] | None = None
    """K: the most confident kept, fewer duplicated up to it. Unlabeled images divided by
    classes unless given."""
    relabel: bool = False
    """From the second student on, keep the first selection and replace its labels alone, as the
    official code does."""
    where: str | None = None
    """SQL of a candidate, over columns of `teacher`, its labels: ``teacher.sample_id % 16 = 0``
    for a part of the pool, ``teacher.confidence < 0.6`` for a bin. All unless given."""
    query: str | None = None
    """Saved query that decides in place of all that, or the path of a .sql file of your own.
    Of the saved ones: selection/adaptive_floor, class_balanced, diverse, in_distribution,
    near_labeled, soft_weight."""
    parameters: dict[str, float | int | str] = Field(default_factory=dict)
    """Further parameters of that query."""
    held_out: bool = False
    """Also train on images whose very bytes are in validation or test."""
    max_side: Annotated[int, Field(ge=1, le=65_500)] | None = None
    """Views hold images of a longer side as JPEGs shrunk to so many pixels."""
    quality: Annotated[int, Field(ge=1, le=100)] | None = None
    """Of those JPEGs, on libjpeg's scale; 90 unless given."""

    @model_validator(mode="after")
    def _who_decides(self) -> "Select":
        if self.query is not None and (self.relabel or self.policy != "exact" or self.where):
            raise ValueError(
                "query decides in place of policy, where and relabel: leave them out"
            )
        if self.policy == "none" and self.images_per_class is not None:
            raise ValueError(
                "images_per_class is a quota, and policy 'none' balances nothing: take one out"
            )
        if self.parameters and self.query is None:
            raise ValueError("parameters are of a query of your own, and there is none")
        if self.quality is not None and self.max_side is None:
            raise ValueError("quality is of images that are shrunk: set max_side")
        return self

    @property
    def shrink(self) -> Shrink | None:
        """To what images are shrunk, None where they stay as they are."""
        if self.max_side is None:
            return None
        return Shrink(max_side=self.max_side, quality=self.quality or DEFAULT_QUALITY)
