"""The bundled sample of Fashion-MNIST and the program that rebuilds it."""

from pathlib import Path

FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""By class id, as the data set's own README names them."""


def sample_folder() -> Path:
    """Return the folder of the bundled sample."""
    return Path(__file__).parent / "fashion_mnist"
