"""Batches for training from a view, and clean batches for labeling and evaluation.

A plan decides, as a function of (seed, step) alone, which images a batch holds and every
random number of their noise; a backend only executes it. So a batch is the same after any
resume, and the loader has no state but the step.
"""

from plstore.loaders.batches import Batch, ImageFormat, clean_batches, load, pick_backend
from plstore.loaders.imageset import ImageSet, open_split, open_view_images
from plstore.loaders.noise import Crop, Noise, RandAugment
from plstore.loaders.plan import Plan

__all__ = [
    "Batch",
    "Crop",
    "ImageFormat",
    "ImageSet",
    "Noise",
    "Plan",
    "RandAugment",
    "clean_batches",
    "load",
    "open_split",
    "open_view_images",
    "pick_backend",
]
