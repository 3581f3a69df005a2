"""A collection of images that can be imported: what every reader here returns."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from plstore.images import ImageRecord, Intake


@dataclass(frozen=True, kw_only=True)
class Source:
    """Images with names, splits and classes, read again each time they are asked for.

    Attributes:
        dataset: Name of the collection in the store.
        identity: Changes when names, splits, classes or contents do.
        freshness: Changes also when files were only touched, so that they are looked at again.
        class_names: The label space, by class id.
        num_images: How many images `records` yields.
        num_bytes: Their size, or an estimate.
        splits: Images by split.
        keys: Returns the images' names, without reading the images.
        records: Yields the images, in the same order every time.
        noticed: What was left out or read in another way than it is written, with how often.
        ignored: Files and folders that can be no images, by kind: none of the images.
        named: Returns the names of all images that are there now, also those beyond a limit;
            None for a source that loses no image.
        settle: Returns the source as a store takes it, where that depends on what the store
            has: images there keep their split, and validation is drawn among the others.
    """

    dataset: str
    identity: str
    freshness: str
    class_names: Sequence[str]
    num_images: int
    num_bytes: int
    splits: dict[str, int]
    keys: Callable[[], Sequence[str]]
    records: Callable[[], Iterator[ImageRecord]]
    noticed: Mapping[str, int] = field(default_factory=dict)
    ignored: Mapping[str, int] = field(default_factory=dict)
    named: Callable[[], Sequence[str]] | None = None
    settle: Callable[[Intake], "Source"] | None = None
