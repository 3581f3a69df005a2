"""Where images come from."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainers.sections.section import Section


class Counts(Section):
    """How many images there are: for the dry run of a recipe whose images are elsewhere."""

    classes: Annotated[int, Field(ge=2)]
    labeled: Annotated[int, Field(ge=1)]
    unlabeled: Annotated[int, Field(ge=1)]
    validation: Annotated[int, Field(ge=0)] = 0
    test: Annotated[int, Field(ge=0)] = 0
    image_bytes: Annotated[int, Field(ge=1)] = 100_000
    """Of a file, on average."""


class Data(Section):
    """Where images come from."""

    source: Literal["sample", "parquet", "idx", "folders", "store"] = "sample"
    """The bundled sample, a folder of Parquet files, of IDX files, folders of images, or those
    that the store has already."""
    dataset: str = "fashion_mnist"
    """Name of the collection in the store."""
    path: str | None = None
    """Folder of the Parquet or IDX files."""
    num_labeled: Annotated[int, Field(ge=1)] = 300
    """IDX: labeled images, as many of every class."""
    num_validation: Annotated[int, Field(ge=0)] = 1000
    """IDX: validation images."""
    num_unlabeled: Annotated[int, Field(ge=1)] | None = None
    """IDX: unlabeled images; all the rest unless given."""
    num_test: Annotated[int, Field(ge=1)] | None = None
    """IDX: test images; all unless given."""
    class_names: Annotated[list[str], Field(min_length=2)] | None = None
    """IDX: by label; those of Fashion-MNIST unless given."""
    labeled: str | None = None
    """Folders: a folder for each class below this one."""
    unlabeled: str | None = None
    """Folders: images anywhere below this one."""
    validation: str | None = None
    """Folders: as labeled; split off from it by a seeded hash unless given."""
    test: str | None = None
    """Folders: as labeled; never trained on."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Folders: share of the labeled images that is split off."""
    max_pixels: Annotated[int, Field(ge=1)] = 64_000_000
    """Images of more pixels are refused."""
    counts: Counts | None = None
    """How many there are, for a dry run where they are not."""
    limit_unlabeled: Annotated[int, Field(ge=1)] | None = None
    """Import only this many unlabeled images."""
    imbalance: Annotated[float, Field(gt=1)] | None = None
    """For experiments: the pool becomes long-tailed by its true classes, whose first has so
    many times the images of the last. Of images whose truth is known, or is their folder's
    name."""
    classes_out: Annotated[int, Field(ge=1)] | None = None
    """For experiments: so many of the last classes leave the label space, with their labeled
    images; those of the pool are then out of domain."""
    pool: Literal["all", "in", "out"] = "all"
    """With classes_out: all unlabeled images, those in the domain, those out of it."""

    @model_validator(mode="after")
    def _has_its_paths(self) -> "Data":
        if self.source in {"parquet", "idx"} and self.path is None:
            raise ValueError(f"source {self.source!r} needs path, the folder of its files")
        if self.source == "folders" and (self.labeled is None or self.unlabeled is None):
            raise ValueError("source 'folders' needs labeled and unlabeled, two folders")
        if self.pool != "all" and self.classes_out is None:
            raise ValueError(f"pool {self.pool!r} is of domains: set classes_out")
        if self.source == "store" and (self.imbalance or self.classes_out):
            raise ValueError("imbalance and classes_out are of an import; 'store' has none")
        if self.source == "store" and self.limit_unlabeled is not None:
            raise ValueError("limit_unlabeled is of an import, and source 'store' has none")
        return self
