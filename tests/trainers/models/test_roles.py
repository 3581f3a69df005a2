"""Dropout and stochastic depth for some images of a batch, and blocks that stay."""

import pytest
import timm
import torch
from torch import nn

from plstore.errors import InputError
from trainers.models.freezing import freeze_blocks
from trainers.models.model import build_model
from trainers.models.roles import split_model_noise
from trainers.sections import NOISE_PARTS, Model

IMAGES = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
NORM = nn.BatchNorm2d


def network(architecture: str) -> nn.Module:
    torch.manual_seed(0)
    settings = Model(
        architecture=architecture, resolution=32, dropout=0.5, stochastic_depth=0.5
    )
    made = build_model(settings, architecture, 5).train()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # so that images do not touch each other
    return made


def logits(made: nn.Module) -> torch.Tensor:
    torch.manual_seed(1)
    with torch.no_grad():
        found: torch.Tensor = made(IMAGES)
    return found


@pytest.mark.parametrize("architecture", ["test_efficientnet", "test_vit", "resnet10t"])
def test_some_images_are_spared_and_others_get_the_very_same_noise(architecture: str) -> None:
    if architecture == "test_vit":
        settings = {"img_size": 32}
        torch.manual_seed(0)
        whole, split = (
            timm.create_model(
                architecture, num_classes=5, drop_rate=0.5, drop_path_rate=0.5, **settings
            ).train()
            for _ in range(2)
        )
        split.load_state_dict(whole.state_dict())
    else:
        whole, split = network(architecture), network(architecture)
    clean = network(architecture) if architecture != "test_vit" else whole
    split_model_noise(split, labeled=NOISE_PARTS, pseudo=["crop"], num_labeled=2, num_pseudo=4)

    noised, found = logits(whole), logits(split)
    bare = logits(clean.eval())

    assert torch.equal(found[:2], noised[:2])
    assert torch.allclose(found[2:], bare[2:], atol=1e-5)
    assert not torch.allclose(noised[2:], bare[2:], atol=1e-2)


def test_nothing_is_touched_where_all_get_all() -> None:
    whole, split = network("test_efficientnet"), network("test_efficientnet")
    split_model_noise(
        split, labeled=NOISE_PARTS, pseudo=NOISE_PARTS, num_labeled=2, num_pseudo=4
    )

    assert torch.equal(logits(whole), logits(split))
    assert not any(module._forward_hooks for module in split.modules())


@pytest.mark.parametrize("architecture", ["test_efficientnet", "resnet10t"])
def test_frozen_blocks_keep_weights_and_statistics(architecture: str) -> None:
    made = timm.create_model(architecture, num_classes=3).train()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    freeze_blocks(made, 2)
    trained = [p for p in made.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    made(IMAGES).sum().backward()
    optimizer.step()

    changed = {n for n, value in made.state_dict().items() if not value.equal(before[n])}
    first = ("conv_stem.", "bn1.", "conv1.", "blocks.0.", "blocks.1.0", "layer1.")
    assert changed
    assert not [name for name in changed if name.startswith(first)]


def test_more_blocks_than_there_are_cannot_stay() -> None:
    made = timm.create_model("test_resnet", num_classes=3)

    with pytest.raises(InputError, match="frozen_blocks is 9; ResNet has 4 blocks"):
        freeze_blocks(made, 9)
