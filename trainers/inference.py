"""A trained model looks at clean images: to label them, to be evaluated, to predict."""

from collections.abc import Callable, Iterator

import torch

from plstore.loaders import Batch, ImageSet, clean_batches
from plstore.loaders.work import Backend
from plstore.store import LabelBatch
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


def label_batches(
    bundle: Bundle,
    images: ImageSet,
    *,
    device: str,
    backend: Backend,
    temperature: float,
    on_images: Callable[[int], None],
) -> Iterator[LabelBatch]:
    """Yield a teacher's distributions of images, as the store takes them."""
    for batch, probs in probabilities(
        bundle,
        images,
        device=device,
        backend=backend,
        temperature=temperature,
        on_images=on_images,
    ):
        yield LabelBatch(sample_ids=batch.sample_ids.numpy(), probabilities=probs.numpy())


def accuracy(
    bundle: Bundle,
    images: ImageSet,
    *,
    device: str,
    backend: Backend,
    on_images: Callable[[int], None],
) -> float:
    """Return the top-1 accuracy on labeled images, in percent."""
    right = 0
    for batch, probs in probabilities(
        bundle, images, device=device, backend=backend, on_images=on_images
    ):
        right += int((probs.argmax(dim=1) == batch.targets.cpu().argmax(dim=1)).sum())
    return 100 * right / len(images)
