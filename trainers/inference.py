"""A trained model looks at clean images: to label them, to be evaluated, to predict."""

from collections.abc import Callable, Iterator

import torch

from plstore.loaders import Batch, ImageSet, clean_batches
from plstore.loaders.work import Backend
from trainers.model import Bundle


def probabilities(
    bundle: Bundle,
    images: ImageSet,
    *,
    device: str,
    backend: Backend = "auto",
    temperature: float = 1.0,
    on_images: Callable[[int], None] = lambda _: None,
) -> Iterator[tuple[Batch, torch.Tensor]]:
    """Yield each clean batch with float32 [batch, classes] probabilities, on the CPU.

    Args:
        bundle: The model, in evaluation mode.
        images: What to look at, in order.
        device: "cpu" or a CUDA device.
        backend: Of the loader.
        temperature: Logits are divided by it.
        on_images: Called with the number of images just finished.
    """
    for batch in clean_batches(images, bundle.format, device=device, backend=backend):
        with torch.inference_mode():
            logits = bundle.logits(batch.images)
            yield batch, torch.softmax(logits / temperature, dim=1).cpu()
        on_images(len(batch.images))
