"""Contenders of `loaders`: each is an endless iterable of batches of 64, of large photos 8.

A batch is images [64, 3, 224, 224] after a random-resized crop and a flip (and RandAugment of
two operations at magnitude 27 on timm's scale without an end), with float32 [64, 1000] soft
labels. `plstore` gives uint8 for the device to normalise; peers are written as their
documentation and training scripts do, to normalised float32.
"""

import io
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from benchmarks.loader_data import NUM_CLASSES, NUM_TARS

Case = Literal["plain", "randaugment", "phone"]
Shuffle = Literal["global", "windowed"]
Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]

BATCH: Final = 64
_LARGE_BATCH: Final = 8  # of photos of 12 megapixels
SIZE: Final = 224
WORKERS: Final = 2
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PASSES: Final = 100  # over few photos, so that an epoch of them does not end all the time
_TIMM: Final = "rand-m27-n2-mmax27-p1.0"


def batch_of(case: Case) -> int:
    """Return the images of a batch."""
    return _LARGE_BATCH if case == "phone" else BATCH


def transform(case: Case, *, as_uint8: bool = False) -> Callable[[Image.Image], torch.Tensor]:
    """Return what people write today: PIL, torchvision and timm."""
    steps: list[Any] = [
        transforms.RandomResizedCrop(SIZE, interpolation=InterpolationMode.BILINEAR),
        transforms.RandomHorizontalFlip(),
    ]
    if case == "randaugment":
        from timm.data.auto_augment import rand_augment_transform

        mean = tuple(min(255, round(255 * value)) for value in _MEAN)
        hparams = {"img_mean": mean, "interpolation": Image.Resampling.BILINEAR}
        steps.append(rand_augment_transform(_TIMM, hparams))
    if as_uint8:
        steps.append(transforms.PILToTensor())
    else:
        steps += [transforms.ToTensor(), transforms.Normalize(_MEAN, _STD)]
    composed: Callable[[Image.Image], torch.Tensor] = transforms.Compose(steps)
    return composed


class _Files(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    def __init__(self, folder: Path, case: Case, *, as_uint8: bool = False) -> None:
        self._paths = sorted((folder / "files").iterdir())
        self._times = _PASSES if case == "phone" else 1
        self._labels = torch.from_numpy(np.load(folder / "labels.npy"))
        self._transform = transform(case, as_uint8=as_uint8)

    def __len__(self) -> int:
        return self._times * len(self._paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        index %= len(self._paths)
        with Image.open(self._paths[index]) as file:
            image = file.convert("RGB")
        return self._transform(image), self._labels[index]


def _endless(loader: Any) -> Iterator[Any]:  # noqa: ANN401  of several libraries
    while True:
        yield from loader


def _torch_loader(
    dataset: Any,  # noqa: ANN401  of several libraries
    batch: int = BATCH,
) -> Iterator[Any]:
    iterable = isinstance(dataset, IterableDataset)
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=batch,
        shuffle=None if iterable else True,
        num_workers=WORKERS,
        drop_last=True,
        persistent_workers=True,
    )
    return _endless(loader)


def _pil(folder: Path, case: Case) -> Batches:
    return _torch_loader(_Files(folder, case), batch_of(case))


def _pil_uint8(folder: Path, case: Case) -> Batches:
    return _torch_loader(_Files(folder, case, as_uint8=True), batch_of(case))


def _datasets(folder: Path, case: Case) -> Batches:
    import datasets

    change = transform(case)

    def convert(rows: dict[str, Any]) -> dict[str, Any]:
        images = [change(image.convert("RGB")) for image in rows["image"]]
        return {"image": images, "target": [torch.tensor(t) for t in rows["target"]]}

    found = datasets.load_from_disk(str(folder / "datasets")).with_transform(convert)

    for batch in _torch_loader(found):
        yield batch["image"], batch["target"]


def _webdataset(folder: Path, case: Case) -> Batches:
    import webdataset

    tars = [str(folder / f"images-{part}.tar") for part in range(NUM_TARS)]
    found = (
        webdataset.WebDataset(tars, shardshuffle=NUM_TARS, empty_check=False)
        .repeat()
        .shuffle(500)
        .decode("pil")
        .to_tuple("jpg", "npy")
        .map_tuple(transform(case), torch.from_numpy)
    )
    return _torch_loader(found)


def _litdata(folder: Path, case: Case) -> Batches:
    import litdata

    change = transform(case)

    class Rows(litdata.StreamingDataset):  # type: ignore[misc]  # untyped
        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            row = super().__getitem__(index)
            with Image.open(io.BytesIO(row["image"])) as file:
                return change(file.convert("RGB")), torch.as_tensor(row["target"])

    found = Rows(str(folder / "litdata"), shuffle=True, drop_last=True)
    return _endless(litdata.StreamingDataLoader(found, batch_size=BATCH, num_workers=WORKERS))


def _plstore(
    backend: str,
    *,
    ratio: int = 3,
    normalised: bool = False,
    shuffle: Shuffle = "global",
    view: str = "packed",
    scaled_decoding: bool = True,
) -> Callable[[Path, Case], Batches]:
    def batches(folder: Path, case: Case) -> Batches:
        import plstore
        from plstore.loaders import ImageFormat, Noise, RandAugment, load
        from plstore.views import open_view

        augment = RandAugment(
            n=2 if case == "randaugment" else 0,
            dialect="timm",
            max_magnitude=27,
            probability=1.0,
        )
        labeled = batch_of(case) // (1 + ratio)
        format_ = ImageFormat(size=SIZE, scaled_decoding=scaled_decoding)
        loader = load(
            open_view(plstore.open(folder / "store"), view),
            labeled_batch=labeled,
            pseudo_batch=labeled * ratio,
            image_format=format_,
            noise=Noise(augment=augment),
            seed=0,
            shuffle=shuffle,
            window=1024,
            backend=backend,  # type: ignore[arg-type]  # one of its names
            num_threads=WORKERS,
            cache_bytes=0,
        )
        for batch in loader:
            images = format_.normalise(batch.images) if normalised else batch.images
            yield images, batch.targets

    return batches


def _files_in_threads(folder: Path, case: Case) -> Batches:
    """Give the threads backend plain files instead of a view: what the view costs."""
    from plstore.loaders import image_table, sources
    from plstore.loaders.imageset import ImageSet

    paths = sorted((folder / "files").iterdir())
    labels = np.load(folder / "labels.npy")

    class Files(sources.TwinSource):
        def fetch(self, rows: sources.Rows) -> sources.Samples:
            samples = super().fetch(rows)
            files = [paths[number % len(paths)] for number in rows.tolist()]
            samples.encoded = [np.fromfile(file, np.uint8) for file in files]
            samples.targets = labels[rows % len(paths)]
            return samples

    sizes = []
    for path in paths:
        with Image.open(path) as file:
            sizes.append(file.size)
    nothing = ImageSet(image_table((b"", *size, "") for size in sizes), NUM_CLASSES)
    from plstore.loaders import ImageFormat, Noise, Plan, RandAugment
    from plstore.loaders.backends import run_backend, work_of
    from plstore.loaders.work import BackendSpec, Work

    augment = RandAugment(
        n=2 if case == "randaugment" else 0, dialect="timm", max_magnitude=27, probability=1.0
    )
    noise, format_ = Noise(augment=augment), ImageFormat(size=SIZE)
    plan = Plan(
        Files(nothing), labeled_batch=BATCH, pseudo_batch=0, noise=noise, size=SIZE, seed=0
    )

    def work(step: int) -> Work:
        samples = plan.source.fetch(plan.rows(step))
        drawn = plan.noise(step, samples)
        return work_of(samples, drawn.windows, format_, drawn)

    spec = BackendSpec(
        work=work,
        format=format_,
        noise=noise,
        max_batch=BATCH,
        device="cpu",
        num_threads=WORKERS,
    )
    for images, targets, _ in run_backend("threads", spec):
        yield images, targets


def _decode(folder: Path, case: Case) -> Batches:
    """Give nothing but decoded JPEGs, in as many threads: the ceiling.

    Large photos come at an eighth of their size: little more than reading their codes.
    """
    from concurrent.futures import ThreadPoolExecutor

    import simplejpeg

    files = [path.read_bytes() for path in sorted((folder / "files").iterdir())]
    buffers = [np.empty(1 << 22, np.uint8) for _ in range(WORKERS)]
    batch = batch_of(case)
    nothing = torch.empty(batch, 0)
    scale = {"min_factor": 8, "min_width": 1, "min_height": 1} if case == "phone" else {}

    def decode(part: int, start: int) -> None:
        for number in range(part, batch, WORKERS):
            data = files[(start + number) % len(files)]
            simplejpeg.decode_jpeg(data, buffer=buffers[part], **scale)

    with ThreadPoolExecutor(WORKERS) as pool:
        start = 0
        while True:
            list(pool.map(decode, range(WORKERS), [start] * WORKERS))
            start += batch
            yield nothing, nothing


CONTENDERS: Final[dict[str, Callable[[Path, Case], Batches]]] = {
    "decode-ceiling": _decode,
    "pil": _pil,
    "pil-uint8": _pil_uint8,
    "dali": _plstore("dali"),
    "threads": _plstore("threads"),
    "threads-whole": _plstore("threads", scaled_decoding=False),
    "threads-shrunk": _plstore("threads", view="shrunk"),
    "threads-float32": _plstore("threads", normalised=True),
    "threads-windowed": _plstore("threads", shuffle="windowed"),
    "threads-plain-files": _files_in_threads,
    "threads-ratio-1": _plstore("threads", ratio=1),
    "threads-ratio-14": _plstore("threads", ratio=14),
    "torch": _plstore("torch"),
    "datasets": _datasets,
    "webdataset": _webdataset,
    "litdata": _litdata,
}
"""Contenders by name."""

PHOTOS: Final = (
    "decode-ceiling",
    "pil",
    "threads",
    "threads-whole",
    "threads-shrunk",
    "dali",
    "torch",
)
"""Contenders of the case `phone`."""

PHOTOS_ALONE: Final = ("threads-whole", "threads-shrunk")
"""Contenders of no other case."""

_PACKAGES: Final = {"datasets", "webdataset", "litdata"}


def installed(name: str) -> bool:
    """Whether what a contender needs is there."""
    if name == "dali":
        return find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None
    return name not in _PACKAGES or find_spec(name) is not None
