"""FGSM and PGD are those of a few lines; what cannot be attacked is refused."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from plstore.errors import InputError, MissingExtraError
from plstore.loaders import ImageFormat
from tests.trainers.robustness.given import make_images
from trainers.robustness.attacks import Attack, Kind, Norm, Normalised, attacked

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
EPSILONS = (1 / 255, 8 / 255)
NETWORKS: dict[str, dict[str, int]] = {"test_resnet": {}, "test_vit": {"img_size": 32}}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower with more threads, far slower where cores are taken."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_network(name: str = "test_resnet") -> Normalised:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=5, **NETWORKS[name])
    return Normalised(network, MEAN, STD).eval()


def make_batch(count: int = 4) -> tuple[Tensor, Tensor]:
    pixels = torch.from_numpy(make_images(count, 32, 3)).permute(0, 3, 1, 2)
    return pixels.float() / 255, torch.arange(count) % 5


def climb(network: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    inputs = images.clone().requires_grad_()
    loss = functional.cross_entropy(network(inputs), classes, reduction="sum")
    gradient: Tensor = torch.autograd.grad(loss, inputs)[0]
    return gradient


def length(changes: Tensor) -> Tensor:
    return changes.flatten(1).square().sum(1).sqrt().view(-1, 1, 1, 1)


def pgd(
    network: nn.Module, images: Tensor, classes: Tensor, attack: Attack, epsilon: float
) -> Tensor:
    """Return images after ascent by the gradient, kept in the ball and among images."""
    steps, step = (1, 1.0) if attack.kind == "fgsm" else (attack.steps, attack.step)
    now = images
    for _ in range(steps):
        gradient = climb(network, now, classes)
        if attack.norm == "linf":
            change = now + step * epsilon * gradient.sign() - images
            change = change.clamp(-epsilon, epsilon)
        else:
            change = now + step * epsilon * gradient / length(gradient) - images
            change = change * (epsilon / length(change)).clamp(max=1)
        now = (images + change).clamp(0, 1)
    return now


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
@pytest.mark.parametrize("kind", ["fgsm", "pgd"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_attacks_are_those_of_a_few_lines(name: str, kind: Kind, norm: Norm) -> None:
    network, (images, classes) = make_network(name), make_batch()
    epsilons = EPSILONS if norm == "linf" else (0.1, 0.5)
    attack = Attack(kind=kind, norm=norm, epsilons=epsilons)

    found = attacked(network, images, classes, attack)
    assert tuple(found.logits) == tuple(found.pixels) == epsilons
    for epsilon in epsilons:
        expected = pgd(network, images, classes, attack, epsilon)
        assert torch.allclose(found.pixels[epsilon], expected, atol=1e-6, rtol=0)
        with torch.no_grad():
            assert torch.allclose(found.logits[epsilon], network(expected), atol=1e-4)
        assert found.logits[epsilon].dtype == torch.float32
        change = found.pixels[epsilon] - images
        size = change.abs().max() if norm == "linf" else length(change).max()
        assert size <= epsilon + 1e-6
    assert found.has_gradient.tolist() == [True] * 4


def test_a_stronger_attack_has_a_higher_loss() -> None:
    network, (images, classes) = make_network(), make_batch()

    def loss(kind: Kind, epsilon: float) -> float:
        attack = Attack(kind=kind, epsilons=(epsilon,))
        logits = attacked(network, images, classes, attack).logits[epsilon]
        return float(functional.cross_entropy(logits, classes))

    clean = loss("pgd", 0)
    with torch.no_grad():
        assert clean == pytest.approx(float(functional.cross_entropy(network(images), classes)))
    assert clean < loss("fgsm", 2 / 255) < loss("fgsm", 8 / 255)
    assert loss("fgsm", 8 / 255) <= loss("pgd", 8 / 255)


def test_a_network_is_as_it_was_afterwards() -> None:
    network, (images, classes) = make_network(), make_batch()
    network.train()
    network.network.get_submodule("layer1").eval()
    first = next(network.parameters())
    first.requires_grad = False
    training = [layer.training for layer in network.modules()]
    state = {key: value.clone() for key, value in network.state_dict().items()}

    attacked(network, images, classes, Attack(epsilons=(1 / 255,), steps=1))
    assert [layer.training for layer in network.modules()] == training
    assert not first.requires_grad
    assert all(weight.requires_grad for weight in list(network.parameters())[1:])
    assert all(weight.grad is None for weight in network.parameters())
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_it_is_attacked_in_evaluation_mode_wherever_the_call_stands() -> None:
    network, (images, classes) = make_network(), make_batch()
    attack = Attack(epsilons=(4 / 255,), steps=2)
    expected = attacked(network, images, classes, attack).logits[4 / 255]

    network.train()
    with torch.no_grad():
        assert torch.equal(attacked(network, images, classes, attack).logits[4 / 255], expected)
    with torch.inference_mode():
        again = attacked(network, images + 0, classes + 0, attack).logits[4 / 255]
    assert torch.equal(again, expected)


def test_a_random_start_is_that_of_its_seed_and_leaves_the_generator() -> None:
    network, (images, classes) = make_network(), make_batch()

    def changed(seed: int, *, random_start: bool = True) -> Tensor:
        attack = Attack(epsilons=(8 / 255,), steps=1, random_start=random_start, seed=seed)
        return attacked(network, images, classes, attack).pixels[8 / 255]

    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert torch.equal(changed(1), changed(1))
    assert not torch.equal(changed(1), changed(2))
    assert not torch.equal(changed(1), changed(1, random_start=False))
    assert torch.equal(torch.get_rng_state(), before)


def test_normalising_inside_is_that_of_the_images_format() -> None:
    format_ = ImageFormat(size=32, mean=MEAN, std=STD)
    pixels = torch.from_numpy(make_images(2, 32, 3)).permute(0, 3, 1, 2)
    normal = Normalised(nn.Identity(), MEAN, STD)

    assert torch.allclose(normal(pixels.float() / 255), format_.normalise(pixels), atol=1e-5)


class Layer(nn.Module):
    """A network of one function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


def test_networks_without_gradients_are_refused() -> None:
    network, (images, classes) = make_network(), make_batch()
    attack = Attack(epsilons=(1 / 255,))

    def fails(network: nn.Module, message: str) -> None:
        with pytest.raises(InputError, match=message):
            attacked(network, images, classes, attack)

    hard = nn.Sequential(network, Layer(lambda x: functional.one_hot(x.argmax(1), 5) * 9.0))
    fails(hard, "Sequential cannot be attacked, its logits have no gradient by its images: ")
    fails(Layer(lambda x: network(x).detach()), "Layer cannot be attacked")
    fails(Layer(lambda x: (network(x) / 0).log()), "gradients by its images are not finite")
    fails(nn.Sequential(network, nn.Softmax(1)), "Sequential gives probabilities; wanted")
    fails(Layer(lambda _: torch.zeros(4, 5)), "Layer cannot be attacked")
    fails(Layer(lambda x: x), r"Layer gives \[4, 3, 32, 32\] for 4 images; wanted logits")
    with torch.inference_mode():
        frozen = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
    fails(frozen, r"Sequential cannot be attacked.* made outside torch\.inference_mode\(\)")


def test_other_errors_of_a_network_are_its_own() -> None:
    network, (images, classes) = make_network(), make_batch()

    with pytest.raises(RuntimeError, match="to have 3 channels, but got 1 channels"):
        attacked(network.network, images[:, :1], classes, Attack())


def test_images_at_which_nothing_changes_are_told() -> None:
    """Beyond 20 the loss of this network is flat."""
    flat = Layer(lambda x: torch.stack([x.flatten(1).sum(1) - 9, -x.flatten(1).sum(1)], 1) * 9)
    images = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.9)])
    found = attacked(flat, images, torch.zeros(2, dtype=torch.int64), Attack())

    assert found.has_gradient.tolist() == [True, False]
    assert torch.equal(found.pixels[2 / 255][1], images[1])


def test_settings_images_and_classes_out_of_range_are_refused() -> None:
    network, (images, classes) = make_network(), make_batch()

    def fails(images: Tensor, classes: Tensor, message: str) -> None:
        with pytest.raises(InputError, match=message):
            attacked(network, images, classes, Attack())

    fails(images * 255, classes, r"images are from 0 to 255; wanted pixels from 0 to 1, not")
    fails(images - 0.1, classes, r"images are from -0.1 to 0.9; wanted pixels")
    fails(images * torch.nan, classes, r"images are from nan to nan")
    fails(images[0], classes, r"images are torch.float32 \[3, 32, 32\]; wanted floating")
    fails(images[:0], classes[:0], r"torch.float32 \[0, 3, 32, 32\]; wanted .* at least one")
    fails(images, classes[:3], r"classes are torch.int64 \[3\]; wanted int64 \[4\]")
    fails(images, classes.int(), r"classes are torch.int32 \[4\]")
    fails(images, classes + 5, r"classes are from 5 to 8, and Normalised has 5; wanted")
    with pytest.raises(InputError, match=r"attack epsilon is -1; wanted a number of 0 or more"):
        Attack(epsilons=(0.1, -1))
    with pytest.raises(InputError, match=r"attack epsilons are \(\); wanted one or more"):
        Attack(epsilons=())
    with pytest.raises(InputError, match=r"attack kind is 'cw'; wanted 'fgsm', 'pgd'"):
        Attack(kind="cw")  # type: ignore[arg-type]  # an unknown one
    with pytest.raises(InputError, match=r"attack norm is 'l1'; wanted 'linf', 'l2'"):
        Attack(norm="l1")  # type: ignore[arg-type]  # an unknown one
    with pytest.raises(InputError, match=r"attack steps is 0"):
        Attack(steps=0)


def test_foolbox_loads_without_a_git_program() -> None:
    program = "from trainers.robustness.attacks import _foolbox; print(_foolbox().__name__)"
    environment = {key: value for key, value in os.environ.items() if "GIT" not in key}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "PATH": "/nowhere", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.strip() == "foolbox", done.stderr


def test_without_foolbox_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "foolbox", None)
    network, (images, classes) = make_network(), make_batch()

    with pytest.raises(MissingExtraError, match=r"pip install 'plstore\[robustness\]'"):
        attacked(network, images, classes, Attack())
