"""How strongly images of a side are perturbed: the authors' parameters, by side.

Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261; read from make_cifar_p.py (32 px),
make_tinyimagenet_p.py (64 px) and make_imagenet_p.py (224 px), ImageNet-P/create_p of
github.com/hendrycks/robustness.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import log
from types import MappingProxyType
from typing import Final

from plstore.errors import InputError

NUM_FRAMES: Final = 31
"""Of most sequences, see `Strengths.num_frames`."""


@dataclass(frozen=True)
class Strengths:
    """How strongly images of one side are perturbed.

    Attributes:
        side: Pixels.
        noise_std: Standard deviation of Gaussian noise, of pixels from 0 to 1.
        photons: That a white pixel counts under shot noise.
        blur: Radius and standard deviation of motion blur, in pixels.
        blur_degrees: By which it turns from frame to frame, up to 0.
        zoom: By how much a frame of zoom blur is larger than the one before, a share.
        snow_std: Standard deviation of the layer that flakes are cut from; its mean is 0.05.
        flake: Size of a flake, in pixels.
        snow_blur: Radius and standard deviation of its motion, in pixels.
        snow_degrees: By which that turns from frame to frame, from -150.
        brightness: Added to the value of HSV from frame to frame, 0 in the middle.
        pixels: By which an image moves from frame to frame, to the right; 0 in the middle.
        degrees: By which it turns, 0 in the middle.
        tilt: Degrees by which it tilts about both axes, 0 in the middle.
        scale: Share of its size in the first frame, and what each frame adds.
        num_frames: By name, where it is not 31.
    """

    side: int
    noise_std: float
    photons: float
    blur: tuple[float, float]
    blur_degrees: float
    snow_std: float
    flake: float
    snow_blur: tuple[float, float]
    brightness: float = 0.02
    tilt: float = 1.0
    scale: tuple[float, float] = (0.4, 0.025)
    zoom: float = 0.004
    snow_degrees: float = 4.0
    pixels: int = 1
    degrees: float = 1.0
    num_frames: Mapping[str, int] = field(default_factory=dict)


PUBLISHED: Final[Mapping[int, Strengths]] = MappingProxyType(
    {
        32: Strengths(
            side=32,
            noise_std=0.02,
            photons=700,
            blur=(6, 1.8),
            blur_degrees=9,
            snow_std=0.3,
            flake=2,
            snow_blur=(10, 2),
            brightness=0.015,
            tilt=0.75,
            scale=(0.7, 0.02),
            num_frames={"motion_blur": 21, "translate": 16},
        ),
        64: Strengths(
            side=64,
            noise_std=0.025,
            photons=500,
            blur=(14, 3),
            blur_degrees=5,
            snow_std=0.28,
            flake=2,
            snow_blur=(10, 2.5),
        ),
        224: Strengths(
            side=224,
            noise_std=0.03,
            photons=300,
            blur=(10, 3),
            blur_degrees=4,
            snow_std=0.3,
            flake=3,
            snow_blur=(14, 4),
            num_frames={"translate": 41},
        ),
    }
)
"""The authors', by side in pixels: CIFAR-10-P, Tiny ImageNet-P, ImageNet-P.

The motion blur of 64 px is theirs of the whole photo, before it was made 64 px.
"""


def strengths_of(size: int) -> Strengths:
    """Return how images of a size, in pixels a side, are perturbed.

    The published parameters of the side that is nearest by ratio; lengths grow with the side,
    movement in whole pixels, at least one, so that no frame is blurred by lying between them.

    Raises:
        InputError: If the size is less than 1.
    """
    if size < 1:
        raise InputError(f"size is {size} pixels; wanted 1 or more")
    near = PUBLISHED[min(PUBLISHED, key=lambda side: abs(log(side / size)))]
    ratio = size / near.side
    return replace(
        near,
        side=size,
        blur=(near.blur[0] * ratio, near.blur[1] * ratio),
        flake=near.flake * ratio,
        snow_blur=(near.snow_blur[0] * ratio, near.snow_blur[1] * ratio),
        pixels=max(round(near.pixels * ratio), 1),
    )
