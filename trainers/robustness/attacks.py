"""Adversarial images: FGSM and PGD within an L-inf or an L2 ball, by foolbox.

FGSM: Goodfellow, Shlens and Szegedy, Explaining and Harnessing Adversarial Examples, ICLR 2015,
arXiv 1412.6572, section 4. PGD: Madry et al., Towards Deep Learning Models Resistant to
Adversarial Attacks, ICLR 2018, arXiv 1706.06083, section 2.1. Both raise the cross-entropy of
the true class. foolbox: Rauber et al., Journal of Open Source Software, 2020.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from plstore.errors import InputError, MissingExtraError
from plstore.loaders.settings import check_choice, check_number, check_whole
from plstore.seeds import Purpose, torch_seed

Kind = Literal["fgsm", "pgd"]
Norm = Literal["linf", "l2"]

_FOOLBOX: Final = {
    ("fgsm", "linf"): "LinfFastGradientAttack",
    ("fgsm", "l2"): "L2FastGradientAttack",
    ("pgd", "linf"): "LinfProjectedGradientDescentAttack",
    ("pgd", "l2"): "L2ProjectedGradientDescentAttack",
}
_NO_GRADIENT: Final = (
    *("does not require grad", "not have been used in the graph"),
    *("Inference tensors", "derivative for"),
)
"""What torch says where there is no gradient."""
_NUM_AXES: Final = 4
_SUM_ERROR: Final = 1e-4


@dataclass(frozen=True)
class Attack:
    """How images are attacked.

    Attributes:
        kind: "fgsm", one step as long as the ball is wide, or "pgd".
        norm: Of the ball that the change stays in, "linf" or "l2".
        epsilons: Radii, 0 or more, in pixels from 0 to 1: such as 16 / 255 by "linf". By "l2"
            the length of the change of a whole image, all channels.
        steps: Of PGD.
        step: Its length, as a share of epsilon: 0.25 crosses the ball and a quarter in ten.
        random_start: Whether PGD begins at a random place of the ball, not at the image.
        seed: Of that place; batches of one seed begin with the same numbers.
    """

    kind: Kind = "pgd"
    norm: Norm = "linf"
    epsilons: tuple[float, ...] = (2 / 255, 4 / 255, 8 / 255, 16 / 255)
    steps: int = 10
    step: float = 0.25
    random_start: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every setting.

        Raises:
            InputError: If one is unknown or out of range, or no epsilon is given, or one twice.
        """
        check_choice("attack kind", self.kind, get_args(Kind))
        check_choice("attack norm", self.norm, get_args(Norm))
        for epsilon in self.epsilons:
            check_number("attack epsilon", epsilon, low=0)
        if not self.epsilons or len(set(self.epsilons)) != len(self.epsilons):
            raise InputError(
                f"attack epsilons are {self.epsilons}; wanted one or more, each once"
            )
        check_whole("attack steps", self.steps, low=1)
        check_number("attack step", self.step, low=0, above=True)
        check_whole("attack seed", self.seed, low=0)


@dataclass(frozen=True, eq=False)
class Attacked:
    """A batch under an attack.

    Attributes:
        logits: By epsilon, in the attack's order: float32 [images, classes], what the network
            says of the changed images.
        pixels: By epsilon: float32 [images, channels, height, width], 0 to 1.
        has_gradient: Bool [images]: whether the true class's cross-entropy changes with the
            image at all. Where it does not, as where a network is certain to the last bit, an
            attack does nothing, which is no robustness (Athalye et al., arXiv 1802.00420).
    """

    logits: dict[float, Tensor]
    pixels: dict[float, Tensor]
    has_gradient: Tensor


class Normalised(nn.Module):
    """A network that takes pixels from 0 to 1 and normalises them itself.

    So that an attack's ball and bounds are those of images, whatever a network wants.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        """Wrap a network.

        Args:
            network: Takes float32 [images, channels, height, width], normalised.
            mean: By channel, 0 to 1, as `ImageFormat.mean`.
            std: By channel, above 0, as `ImageFormat.std`.
        """
        super().__init__()
        self.network = network
        weight = next(network.parameters(), torch.zeros(()))
        for name, values in (("mean", mean), ("std", std)):
            by_channel = torch.tensor(values, device=weight.device).view(1, -1, 1, 1)
            self.register_buffer(name, by_channel, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits of pixels, float32 [images, channels, height, width], 0 to 1."""
        logits: Tensor = self.network((pixels - self.mean) / self.std)
        return logits


def attacked(network: nn.Module, images: Tensor, classes: Tensor, attack: Attack) -> Attacked:
    """Return what a network says of images that an attack on it has changed, by epsilon.

    The network is in evaluation mode for it, and as it was afterwards, its weights' gradients
    included. It is attacked in its own precision, on its own device. One epsilon of PGD-10
    costs 10 passes forward and back and 2 forward, the check of gradients one more of each.

    Args:
        network: From pixels of 0 to 1 to logits, float [images, classes]; see `Normalised`.
        images: Floating [images, channels, height, width], 0 to 1.
        classes: int64 [images], the true class of each, from 0.
        attack: What to do.

    Returns:
        Tensors on the network's device.

    Raises:
        InputError: If images or classes are not as they must be, or the network gives
            probabilities or no gradients.
        MissingExtraError: If foolbox is not installed.
    """
    foolbox = _foolbox()
    _check_images(images, classes)
    device = next((p.device for p in network.parameters()), images.device)
    with torch.inference_mode(mode=False), torch.enable_grad(), _as_attacked(network):
        pixels = images.detach().to(device, torch.float32, copy=True)
        truth = classes.detach().to(device, copy=True)
        gradients = _gradients(network, pixels, truth)
        model = foolbox.PyTorchModel(network, bounds=(0, 1), device=device)
        with _random_numbers(attack, device):
            _, changed, _ = _made(attack, foolbox)(
                model, pixels, truth, epsilons=list(attack.epsilons)
            )
        by_epsilon = dict(zip(attack.epsilons, changed, strict=True))
        with torch.no_grad():
            logits = {epsilon: network(new).float() for epsilon, new in by_epsilon.items()}
    return Attacked(logits, by_epsilon, gradients.flatten(1).ne(0).any(1))


def _foolbox() -> Any:  # noqa: ANN401  a module
    """Return foolbox, which imports GitPython, which wants a git program or to be quiet."""
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a name in SciPy
            import foolbox
    except ModuleNotFoundError as error:
        raise MissingExtraError("foolbox", "robustness", "attacking a model") from error
    return foolbox


def _made(attack: Attack, foolbox: Any) -> Any:  # noqa: ANN401
    make = getattr(foolbox.attacks, _FOOLBOX[attack.kind, attack.norm])
    if attack.kind == "fgsm":
        return make(random_start=attack.random_start)
    return make(rel_stepsize=attack.step, steps=attack.steps, random_start=attack.random_start)


@contextmanager
def _as_attacked(network: nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode, without gradients of its weights; then all back."""
    training = [layer for layer in network.modules() if layer.training]
    weights = [w for w in network.parameters() if w.requires_grad and not w.is_inference()]
    network.eval()
    for weight in weights:
        weight.requires_grad = False
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad = True
        for layer in training:
            layer.training = True


@contextmanager
def _random_numbers(attack: Attack, device: torch.device) -> Iterator[None]:
    """Seed torch's generators where an attack draws from them, and put them back."""
    if not attack.random_start:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(torch_seed(attack.seed, Purpose.ATTACK))
        yield


def _gradients(network: nn.Module, pixels: Tensor, classes: Tensor) -> Tensor:
    """Return the gradient of the loss by the pixels, or say why there is none."""
    inputs = pixels.clone().requires_grad_()
    name = type(network).__name__
    try:
        logits = network(inputs)
        _check_logits(name, logits, classes)
        loss = functional.cross_entropy(logits.float(), classes, reduction="sum")
        [gradients] = torch.autograd.grad(loss, inputs)
    except RuntimeError as error:
        if not any(words in str(error) for words in _NO_GRADIENT):
            raise
        raise InputError(
            f"{name} cannot be attacked, its logits have no gradient by its images: "
            f"{str(error).splitlines()[0]}. Wanted weights made outside "
            "torch.inference_mode(), and no argmax or detach() on the way"
        ) from error
    if not gradients.isfinite().all():
        raise InputError(
            f"{name} cannot be attacked: gradients by its images are not finite; wanted finite "
            "weights and logits"
        )
    return gradients


def _check_images(images: Tensor, classes: Tensor) -> None:
    if images.ndim != _NUM_AXES or not images.is_floating_point() or not len(images):
        raise InputError(
            f"images are {images.dtype} {list(images.shape)}; wanted floating "
            "[images, channels, height, width], at least one"
        )
    low, high = float(images.min()), float(images.max())
    if not (isfinite(low) and isfinite(high) and 0 <= low <= high <= 1):
        raise InputError(
            f"images are from {low:g} to {high:g}; wanted pixels from 0 to 1, not normalised: "
            "the network does that, see Normalised"
        )
    if classes.dtype != torch.int64 or classes.shape != images.shape[:1]:
        raise InputError(
            f"classes are {classes.dtype} {list(classes.shape)}; wanted int64 [{len(images)}], "
            "one an image"
        )


def _check_logits(name: str, logits: Tensor, classes: Tensor) -> None:
    if logits.ndim != 2 or len(logits) != len(classes):  # noqa: PLR2004
        raise InputError(
            f"{name} gives {list(logits.shape)} for {len(classes)} images; wanted logits, "
            "[images, classes]"
        )
    if int(classes.min()) < 0 or int(classes.max()) >= logits.shape[1]:
        raise InputError(
            f"classes are from {int(classes.min())} to {int(classes.max())}, and {name} has "
            f"{logits.shape[1]}; wanted classes from 0 to {logits.shape[1] - 1}"
        )
    sums = logits.detach().float().sum(1)
    if logits.detach().min() >= 0 and (sums - 1).abs().max() < _SUM_ERROR:
        raise InputError(
            f"{name} gives probabilities; wanted logits: the cross-entropy of a softmax of "
            "probabilities has hardly a gradient, and the attack would look weak"
        )
