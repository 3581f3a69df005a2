"""Batches for training from a view, and clean batches for labeling and evaluation.

A plan decides, as a function of (seed, step) alone, which images a batch holds and every
random number of their noise; a backend only executes it. So a batch is the same after any
resume and for any number of ranks, and the loader has no state but the step.
"""

from plstore.loaders.backends import import_backend, pick_backend
from plstore.loaders.clean import clean_batches
from plstore.loaders.imageset import ImageSet, image_table, open_split, open_view_images
from plstore.loaders.loader import Loader, load
from plstore.loaders.noise import ComposedAugment, Crop, Noise
from plstore.loaders.plan import Plan, Share
from plstore.loaders.randaugment import RandAugment
from plstore.loaders.verification import Verification
from plstore.loaders.work import Batch, ImageFormat

__all__ = [
    "Batch",
    "ComposedAugment",
    "Crop",
    "ImageFormat",
    "ImageSet",
    "Loader",
    "Noise",
    "Plan",
    "RandAugment",
    "Share",
    "Verification",
    "clean_batches",
    "image_table",
    "import_backend",
    "load",
    "open_split",
    "open_view_images",
    "pick_backend",
]
