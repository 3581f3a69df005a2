"""What is exported: one network from pixels to probabilities."""

import copy
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from plstore.seeds import Purpose, generator
from trainers.models.model import Bundle

INPUT: Final = "images"
OUTPUT: Final = "probabilities"
CHECKED: Final = (1, 2, 7)
"""Batch sizes that an export is checked with."""


class Deployed(nn.Module):
    """Pixels in, probabilities out: normalisation, network and softmax as one.

    It takes uint8, which is what decoders and resizers give: a quarter of the bytes of floats
    to move, and no caller can forget the normalisation, or do it twice.
    """

    mean: torch.Tensor
    std: torch.Tensor
    order: torch.Tensor | None

    def __init__(self, bundle: Bundle) -> None:
        """Take the network of a model, with its preprocessing and the order of its classes."""
        super().__init__()
        shape = (1, bundle.format.channels, 1, 1)
        network = copy.deepcopy(bundle.network).cpu()
        self.network = network.to(memory_format=torch.contiguous_format)
        self.register_buffer("mean", torch.tensor(bundle.format.mean).mul(255).view(shape))
        self.register_buffer("std", torch.tensor(bundle.format.std).mul(255).view(shape))
        order = None if bundle.order is None else bundle.order.cpu()
        self.register_buffer("order", order)
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 [batch, classes], 0 to 1, of uint8 [batch, channels, size, size]."""
        pixels = (images.to(torch.float32) - self.mean) / self.std
        logits = self.network(pixels).float()
        if self.order is not None:
            logits = logits.index_select(1, self.order)
        return torch.softmax(logits, dim=1)


def sample_pixels(bundle: Bundle, num_images: int) -> torch.Tensor:
    """Return random images, uint8 [images, channels, size, size], of all contrasts.

    Each has its own darkest and brightest value: were all from 0 to 255, a network would see
    the same mean everywhere, and its probabilities would hardly differ.
    """
    size, channels = bundle.format.size, bundle.format.channels
    random = generator(0, Purpose.EXPORT_CHECK, num_images)
    ends = np.sort(random.integers(0, 256, (2, num_images, channels, 1, 1)), axis=0)
    shares = random.random((num_images, channels, size, size))
    pixels = np.rint(ends[0] + shares * (ends[1] - ends[0])).astype(np.uint8)
    return torch.from_numpy(pixels)


def expected(bundle: Bundle, images: torch.Tensor) -> npt.NDArray[np.float32]:
    """Return the probabilities of images as plstore itself sees them, float32."""
    with torch.inference_mode():
        found: npt.NDArray[np.float32] = torch.softmax(bundle.logits(images), dim=1).numpy()
    return found
