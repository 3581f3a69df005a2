"""AlexNet's errors, by which ImageNet-C and ImageNet-P normalise: by name, never by position.

They are for ImageNet-1k at 224 px alone. On other data a model's own figures are what others
are compared with: every metric takes any mapping of the same names.

Sources: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions
and Perturbations, ICLR 2019, arXiv 1903.12261, and the authors' repository
github.com/hendrycks/robustness.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

SEVERITIES: Final = (1, 2, 3, 4, 5)
"""Of every corruption of ImageNet-C, from mild to strong; section 4.1."""

CORRUPTIONS: Final = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
"""The 15 that mCE is a mean over: noise, blur, weather, digital; section 4.1."""

EXTRA_CORRUPTIONS: Final = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""For choosing hyper-parameters, never part of mCE."""

PERTURBATIONS: Final = (
    *("gaussian_noise", "shot_noise", "motion_blur", "zoom_blur", "snow"),
    *("brightness", "translate", "rotate", "tilt", "scale"),
)
"""The 10 that mFR and mT5D are means over; section 4.1."""

NOISE_PERTURBATIONS: Final = ("gaussian_noise", "shot_noise")
"""Whose frames are not in an order of time: each is compared with the first; section 4.2."""

ALEXNET_CLEAN_ERROR: Final = 0.435
"""Top-1 error of AlexNet on the clean validation images, a share; table 1."""

ALEXNET_ERRORS_BY_SEVERITY: Final[Mapping[str, tuple[float, ...]]] = MappingProxyType(
    {
        "gaussian_noise": (0.69528, 0.82542, 0.93554, 0.98138, 0.99452),
        "shot_noise": (0.71224, 0.85108, 0.93574, 0.98182, 0.99146),
        "impulse_noise": (0.78374, 0.89808, 0.94870, 0.98720, 0.99548),
        "defocus_blur": (0.65624, 0.73202, 0.85036, 0.91364, 0.94714),
        "glass_blur": (0.64308, 0.75054, 0.88806, 0.91622, 0.93344),
        "motion_blur": (0.58430, 0.70048, 0.82108, 0.89750, 0.92638),
        "zoom_blur": (0.70008, 0.76992, 0.80784, 0.84198, 0.87198),
        "snow": (0.71726, 0.88392, 0.86468, 0.91870, 0.94952),
        "frost": (0.61390, 0.79734, 0.88790, 0.89942, 0.93430),
        "fog": (0.67474, 0.76050, 0.84378, 0.87260, 0.94500),
        "brightness": (0.45140, 0.48502, 0.54048, 0.62166, 0.72440),
        "contrast": (0.64548, 0.76150, 0.88874, 0.97760, 0.99270),
        "elastic_transform": (0.52596, 0.70116, 0.55686, 0.64076, 0.80554),
        "pixelate": (0.52218, 0.54620, 0.73728, 0.87092, 0.91262),
        "jpeg_compression": (0.51002, 0.54718, 0.57294, 0.65458, 0.74778),
    }
)
"""Top-1 error of AlexNet, a share, by corruption, severities 1 to 5.

From timm's evaluation of ImageNet-C (branch "bits" of huggingface/pytorch-image-models). Their
means are the authors' own, `ALEXNET_ERRORS`, to the last digit; of the extra four only means
are published.
"""

ALEXNET_ERRORS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "gaussian_noise": 0.886428,
        "shot_noise": 0.894468,
        "impulse_noise": 0.922640,
        "defocus_blur": 0.819880,
        "glass_blur": 0.826268,
        "motion_blur": 0.785948,
        "zoom_blur": 0.798360,
        "snow": 0.866816,
        "frost": 0.826572,
        "fog": 0.819324,
        "brightness": 0.564592,
        "contrast": 0.853204,
        "elastic_transform": 0.646056,
        "pixelate": 0.717840,
        "jpeg_compression": 0.606500,
        "speckle_noise": 0.845,
        "gaussian_blur": 0.787,
        "spatter": 0.718,
        "saturate": 0.658,
    }
)
"""Top-1 error of AlexNet, a share, by corruption: the mean of severities 1 to 5.

The 15 of mCE and the extra four. From the authors' spreadsheet "Calculating the mCE", linked
from the README of their repository; the extra four, to three digits, from the paper.
"""

ALEXNET_FLIP_PROBABILITIES: Final[Mapping[str, float]] = MappingProxyType(
    {
        "gaussian_noise": 0.2365,
        "shot_noise": 0.3006,
        "motion_blur": 0.0930,
        "zoom_blur": 0.0594,
        "snow": 0.1193,
        "brightness": 0.0489,
        "translate": 0.1101,
        "rotate": 0.1310,
        "tilt": 0.0705,
        "scale": 0.2353,
        "speckle_noise": 0.1865,
        "gaussian_blur": 0.0278,
        "spatter": 0.0505,
        "shear": 0.1066,
    }
)
"""Flip probability of AlexNet on ImageNet-P, a share, by perturbation.

The 10 of mFR and the extra four, which are not part of it. From the draft of September 2018 in
the authors' repository (new_draft.pdf).
"""

ALEXNET_TOP5_DISTANCES: Final[Mapping[str, float]] = MappingProxyType(
    {
        "gaussian_noise": 4.77,
        "shot_noise": 5.76,
        "motion_blur": 1.93,
        "zoom_blur": 1.34,
        "snow": 2.42,
        "brightness": 1.19,
        "translate": 2.63,
        "rotate": 2.95,
        "tilt": 1.75,
        "scale": 4.48,
    }
)
"""Unnormalised top-5 distance (uT5D) of AlexNet on ImageNet-P, in ranks, by perturbation.

From the draft of September 2018 in the authors' repository (new_draft.pdf).
"""
