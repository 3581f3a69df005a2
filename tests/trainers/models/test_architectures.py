import copy
import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models import save_for_hf
from torch import nn

from plstore.errors import InputError
from trainers.models.architectures import (
    PUBLISHED,
    Published,
    Variant,
    batch_norm_settings,
    num_parameters,
    on_meta,
    published,
    small_images,
    variant_of,
)
from trainers.models.model import Ema

SMALL_ONES = ["efficientnet_b0", "tf_efficientnet_b0", "resnet18", "test_resnet"]


@pytest.mark.parametrize("entry", PUBLISHED, ids=lambda entry: entry.name)
def test_timms_models_are_as_large_as_published(entry: Published) -> None:
    counted = num_parameters(entry.timm_names[-1], num_classes=1000) / 1e6

    assert counted == pytest.approx(entry.parameters, rel=0.02)
    assert all(timm.is_model(name) for name in entry.timm_names)


@pytest.mark.parametrize("entry", PUBLISHED[:-2], ids=lambda entry: entry.name)
def test_weights_that_timm_brings_have_the_published_resolution(entry: Published) -> None:
    config = timm.get_pretrained_cfg(f"{entry.timm_names[-1]}.ns_jft_in1k")

    assert config.input_size == (3, entry.resolution, entry.resolution)
    assert entry.test_resolution == entry.resolution


def test_the_largest_is_tested_at_more_pixels_than_it_is_trained_at() -> None:
    largest = published("tf_efficientnet_l2.ns_jft_in1k")
    assert largest is not None
    trained = timm.get_pretrained_cfg("tf_efficientnet_l2.ns_jft_in1k_475").input_size
    tested = timm.get_pretrained_cfg("tf_efficientnet_l2.ns_jft_in1k").input_size

    assert (largest.resolution, largest.test_resolution) == (trained[1], tested[1])
    assert (largest.width, largest.depth, largest.dropout) == (4.3, 5.3, 0.5)


def test_magnitudes_are_those_of_the_official_scripts() -> None:
    found = [entry.randaugment_magnitude for entry in PUBLISHED]

    assert found == [None, None, 6, 12, 15, 18, 24, 27, 27, None]
    assert published("resnet51") is None


@pytest.mark.parametrize("architecture", SMALL_ONES)
def test_small_images_have_sixteen_places_in_place_of_one(architecture: str) -> None:
    network = on_meta(architecture, num_classes=10).eval()
    images = torch.empty(2, 3, 32, 32, device="meta")
    assert network.forward_features(images).shape[-2:] == (1, 1)  # type: ignore[operator]
    small_images(network)

    assert network.forward_features(images).shape[-2:] == (4, 4)  # type: ignore[operator]
    maps = network.forward_intermediates(images, intermediates_only=True)  # type: ignore[operator]
    info: list[dict[str, int]] = network.feature_info  # type: ignore[assignment]
    assert [32 // one["reduction"] for one in info] == [one.shape[-1] for one in maps]


@pytest.mark.parametrize("architecture", ["efficientnet_b0", "tf_efficientnet_b0"])
def test_strides_are_those_of_the_official_svhn_example(architecture: str) -> None:
    network = on_meta(architecture, num_classes=10)

    def strides() -> list[int]:
        layers = (m for m in network.modules() if isinstance(m, nn.Conv2d))
        return [layer.stride[0] for layer in layers if layer.kernel_size[0] > 1]

    repeats = (1, 2, 2, 3, 3, 4, 1)
    firsts = [1 + sum(repeats[:stage]) for stage in range(7)]
    usual = strides()
    small_images(network)
    assert [usual[0], *(usual[first] for first in firsts)] == [2, 1, 2, 2, 2, 1, 2, 1]
    assert [strides()[0], *(strides()[first] for first in firsts)] == [2, 1, 1, 1, 2, 1, 2, 1]
    assert sum(stride > 1 for stride in strides()) == 3


@pytest.mark.parametrize(
    ("architecture", "changed"),
    [
        ("efficientnet_b0", []),
        ("tf_efficientnet_b0", []),
        ("resnet18", ["conv1.weight"]),
        ("test_resnet", []),
    ],
)
def test_weights_keep_their_names_and_shapes(architecture: str, changed: list[str]) -> None:
    usual, small = (on_meta(architecture, num_classes=10) for _ in range(2))
    replaced = small_images(small)
    before, after = usual.state_dict(), small.state_dict()

    assert list(before) == list(after)
    assert [name for name in before if before[name].shape != after[name].shape] == changed
    assert list(replaced) == changed


@pytest.mark.parametrize("architecture", ["test_efficientnet", "resnet18"])
def test_a_variant_trains_and_is_the_same_by_its_seed(architecture: str) -> None:
    networks, outputs = [], []
    for _ in range(2):
        torch.manual_seed(1)
        networks.append(timm.create_model(architecture, num_classes=3))
        small_images(networks[-1])
        outputs.append(networks[-1](torch.randn(2, 3, 32, 32)))
    outputs[1].square().sum().backward()

    assert torch.equal(*outputs)
    gradients = [parameter.grad for parameter in networks[1].parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    assert gradients[0] is not None
    assert gradients[0].any()


def test_same_padding_of_the_variant_is_that_of_stride_one() -> None:
    tf, plain = (timm.create_model(f"{p}efficientnet_b0") for p in ("tf_", ""))
    images = torch.randn(1, 16, 9, 9)
    for network in (tf, plain):
        small_images(network)
    plain.load_state_dict(tf.state_dict())
    for stage in (1, 2):
        for layer in plain.blocks[stage].modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eps = tf.bn1.eps
    with torch.inference_mode():
        found, wanted = (n.eval().blocks[1:3](images) for n in (tf, plain))

    torch.testing.assert_close(found, wanted)
    assert found.shape[-2:] == (9, 9)


def test_applied_twice_it_is_as_applied_once() -> None:
    network = on_meta("resnet18", num_classes=3)
    small_images(network)
    stem, info = network.conv1, copy.deepcopy(network.feature_info)
    assert small_images(network) == ()

    assert network.conv1 is stem
    assert network.feature_info == info


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("test_vit", "'test_vit', which is of timm's family VisionTransformer; known are"),
        ("efficientnet_blur_b0", "do not both begin with a strided convolution; known are"),
        ("resnetrs50", "a pooling without weights; known are timm's EfficientNets, such as"),
    ],
)
def test_other_families_are_refused(architecture: str, words: str) -> None:
    network = on_meta(architecture, num_classes=3)
    with pytest.raises(InputError, match=words):
        small_images(network)
    assert variant_of(network) == Variant()


@pytest.mark.parametrize("architecture", ["test_efficientnet", "test_resnet"])
def test_a_saved_variant_comes_back_by_what_is_recorded(
    architecture: str, tmp_path: Path
) -> None:
    network = timm.create_model(architecture, num_classes=3)
    small_images(network)
    batch_norm_settings(network, eps=0.1)
    images = torch.randn(2, 3, 32, 32)
    save_for_hf(
        network.eval(),
        str(tmp_path),
        model_config=variant_of(network).recorded(),
        safe_serialization=True,
    )
    config = json.loads((tmp_path / "config.json").read_text())
    alone = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    back = timm.create_model(f"local-dir:{tmp_path}", pretrained=False).eval()
    wanted = Variant(
        small_images=config["small_images"], batch_norm_eps=config["batch_norm_eps"]
    )
    wanted.apply(back)
    back.load_state_dict(load_file(tmp_path / "model.safetensors"))

    with torch.inference_mode():
        torch.testing.assert_close(back(images), network(images))
        assert not torch.allclose(alone(images), network(images))
    assert variant_of(back) == variant_of(network) == wanted


def test_timms_own_network_records_nothing_and_averages_are_the_same_variant() -> None:
    network = timm.create_model("test_resnet")
    assert variant_of(network).recorded() == {}
    small_images(network)

    assert variant_of(Ema(network).module) == Variant(small_images=True)
    assert variant_of(network).recorded() == {"small_images": True}


def test_batch_norm_follows_its_formula() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    layer = network[0]
    assert isinstance(layer, nn.BatchNorm2d)
    images = 5 + 0.1 * torch.randn(8, 3, 4, 4)
    mean, variance = images.mean(dim=(0, 2, 3)), images.var(dim=(0, 2, 3), unbiased=False)
    unbiased = images.var(dim=(0, 2, 3))

    assert batch_norm_settings(network, momentum=0.01, eps=1e-3) == 2
    found = layer(images)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    torch.testing.assert_close(layer.running_mean, 0.99 * torch.zeros(3) + 0.01 * mean)
    torch.testing.assert_close(layer.running_var, 0.99 * torch.ones(3) + 0.01 * unbiased)
    by_channel = (1, 3, 1, 1)
    wanted = (images - mean.view(by_channel)) / (variance.view(by_channel) + 1e-3).sqrt()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_batch_norm_settings_reach_every_layer_of_a_timm_model() -> None:
    network = on_meta("efficientnet_b0", num_classes=3)
    num_layers = batch_norm_settings(network)
    layers = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]

    assert num_layers == len(layers) == 49
    assert {(layer.momentum, layer.eps) for layer in layers} == {(0.01, 1e-3)}
    assert variant_of(network).recorded() == {"batch_norm_eps": 1e-3}


def test_a_variant_that_is_applied_leaves_timms_momentum() -> None:
    network = on_meta("test_resnet", num_classes=3)
    Variant(batch_norm_eps=0.5).apply(network)
    layers = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]

    assert {(layer.momentum, layer.eps) for layer in layers} == {(0.1, 0.5)}


def test_a_network_without_batch_norm_is_left_alone() -> None:
    network = on_meta("test_vit", num_classes=3)

    assert batch_norm_settings(network) == 0
    assert variant_of(network) == Variant()


@pytest.mark.parametrize(
    ("momentum", "eps", "words"),
    [(0.0, 1e-3, "momentum is 0.0"), (1.5, 1e-3, "momentum is 1.5"), (0.1, 0.0, "eps is 0.0")],
)
def test_settings_out_of_range_are_refused(momentum: float, eps: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        batch_norm_settings(nn.BatchNorm1d(2), momentum=momentum, eps=eps)


def test_counting_takes_neither_memory_nor_random_numbers() -> None:
    state = torch.random.get_rng_state()
    network = on_meta("test_resnet", num_classes=7, channels=1, small=True)

    assert {tensor.device.type for tensor in network.state_dict().values()} == {"meta"}
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(("classes", "channels"), [(7, 1), (1000, 3)])
def test_parameters_are_counted_as_of_a_real_model(classes: int, channels: int) -> None:
    real = timm.create_model("test_resnet", num_classes=classes, in_chans=channels)
    counted = num_parameters("test_resnet", num_classes=classes, channels=channels)

    assert counted == sum(parameter.numel() for parameter in real.parameters())


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(InputError, match=r"timm has no model 'resnet1888'.*such as .*resnet"):
        num_parameters("resnet1888", num_classes=10)
    with pytest.raises(InputError, match=r"'test_vit' cannot be made with .*'in_chans': -1"):
        on_meta("test_vit", num_classes=3, channels=-1)
