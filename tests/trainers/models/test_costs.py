from dataclasses import replace

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from plstore.errors import InputError
from trainers.models.architectures import PUBLISHED, Published, num_parameters, on_meta
from trainers.models.costs import (
    CARDS,
    PAPER_UTILISATION,
    Precision,
    _saved_bytes,
    card_hours,
    forward_flops,
    memory_bytes,
    training_flops,
)

COUNTED = [entry for entry in PUBLISHED if entry.multiply_adds is not None][::2]


@pytest.mark.parametrize("entry", COUNTED, ids=lambda entry: entry.name)
def test_operations_are_twice_the_published_multiply_adds(entry: Published) -> None:
    assert entry.multiply_adds is not None
    found = forward_flops(entry.timm_names[0], size=entry.resolution)

    assert found == pytest.approx(2e9 * entry.multiply_adds, rel=0.05)


def test_operations_of_a_layer_are_counted_by_hand() -> None:
    usual = forward_flops("resnet18", size=32, num_classes=10)
    gray = forward_flops("resnet18", size=32, num_classes=10, channels=1)
    more = forward_flops("resnet18", size=32, num_classes=110)

    assert more - usual == 2 * 512 * 100
    assert usual - gray == 2 * 16 * 16 * 64 * 7 * 7 * 2


def test_the_variant_for_small_images_takes_up_to_sixteen_times_the_work() -> None:
    network = on_meta("resnet18", num_classes=10).train()
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(4, 3, 64, 64, device="meta")).sum().backward()
    found = training_flops("resnet18", size=64, num_classes=10)
    stem = 2 * 32 * 32 * 64 * 7 * 7 * 3

    assert 4 * (found - stem) == counter.get_total_flops()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_activations_grow_by_the_image(precision: Precision) -> None:
    size, batch = 64, 16
    network = on_meta("efficientnet_b0", num_classes=10).train().to(getattr(torch, precision))
    images = torch.empty(batch, 3, size, size, device="meta", dtype=getattr(torch, precision))
    found = memory_bytes(
        "efficientnet_b0", size=size, batch=batch, num_classes=10, precision=precision
    )

    assert found.activations == _saved_bytes(network, "efficientnet_b0", images)


@pytest.mark.parametrize("architecture", ["test_efficientnet", "test_resnet"])
def test_activations_on_meta_are_those_of_a_real_pass(architecture: str) -> None:
    real = timm.create_model(architecture, num_classes=10).train()
    shown = on_meta(architecture, num_classes=10).train()
    images = torch.zeros(4, 3, 160, 160)
    found = _saved_bytes(real, architecture, images)

    assert _saved_bytes(shown, architecture, images.to("meta")) == pytest.approx(
        found, rel=0.02
    )


def test_attention_counts_with_the_matrices_that_a_fused_kernel_does_not_keep() -> None:
    real = timm.create_model("test_vit", num_classes=10).train()
    shown = on_meta("test_vit", num_classes=10).train()
    images = torch.zeros(4, 3, 160, 160)
    places, blocks, heads = 101, len(real.blocks), real.blocks[0].attn.num_heads
    matrices = 4 * blocks * heads * places**2 * 4
    more = _saved_bytes(shown, "test_vit", images.to("meta")) - _saved_bytes(
        real, "test_vit", images
    )

    assert matrices / 2 < more < 2 * matrices


def test_memory_is_the_sum_of_its_parts() -> None:
    numbers = num_parameters("resnet18", num_classes=10)
    found = memory_bytes("resnet18", size=64, batch=8, num_classes=10)
    plain = memory_bytes("resnet18", size=64, batch=8, num_classes=10, precision="float32")
    momentum = memory_bytes("resnet18", size=64, batch=8, num_classes=10, optimizer="momentum")

    assert found.gradients == 4 * numbers
    assert found.copies == 2 * numbers
    assert found.weights == found.average == pytest.approx(4 * numbers, rel=0.01)
    assert found.optimizer == pytest.approx(8 * numbers, rel=0.001)
    assert momentum.optimizer == 4 * numbers
    assert plain.copies == 0
    assert plain.activations / 2 < found.activations < plain.activations
    assert found.total == sum(vars(found).values())
    assert replace(found, activations=0).total == found.total - found.activations


def test_neither_random_numbers_nor_memory_are_taken() -> None:
    state = torch.random.get_rng_state()
    forward_flops("test_resnet", size=64)
    memory_bytes("test_resnet", size=64, batch=4)

    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_papers_figure_is_a_tenth_of_the_peak() -> None:
    """Noisy Student, 3.1: L2 takes 6 days on 2,048 cores, five times as long as B7."""
    by_image = training_flops("tf_efficientnet_l2", size=475)
    images = 350 * 1_281_167 * (1 + 14)
    peak_hours = card_hours(by_image * images, "TPU v3 core", utilisation=1.0)

    assert peak_hours / (2048 * 6 * 24) == pytest.approx(PAPER_UTILISATION, abs=0.001)
    assert 4 < by_image / training_flops("tf_efficientnet_b7", size=600) < 6


def test_hours_are_operations_by_speed() -> None:
    assert card_hours(312e12 * 3600, "A100 80GB", 1.0) == pytest.approx(1.0)
    assert card_hours(989e12 * 3600, "H100 SXM", 0.4) == pytest.approx(2.5)
    assert CARDS["TPU v3 core"].memory_bytes == 16 * 2**30


@pytest.mark.parametrize(
    ("card", "utilisation", "words"),
    [
        ("A1000", 0.4, "no card 'A1000' is known; wanted one of A100 40GB"),
        ("L4", 0.0, "utilisation is 0.0; wanted above 0 and at most 1"),
        ("L4", 40.0, "utilisation is 40.0"),
    ],
)
def test_unknown_cards_and_shares_are_refused(
    card: str, utilisation: float, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        card_hours(1e18, card, utilisation)


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(InputError, match="'test_maxvit' cannot take images of 28 pixels"):
        forward_flops("test_maxvit", size=28)
    with pytest.raises(InputError, match="memory of optimizer 'adamm' cannot be counted"):
        memory_bytes("test_resnet", size=32, batch=4, optimizer="adamm")
    with pytest.raises(
        InputError, match="batch is 0 and precision 'bfloat16'; wanted at least"
    ):
        memory_bytes("test_resnet", size=32, batch=0)
