from pathlib import Path

import pytest
import timm
import torch

from plstore.errors import InputError, StoreError
from trainers.models.model import (
    Ema,
    build_model,
    check_weights,
    image_format,
    load_bundle,
    save_bundle,
)
from trainers.recipe import load_recipe
from trainers.sections import Model
from trainers.training.checking import check_models

TINY = Model(architecture="test_resnet", resolution=24, channels=1, mean=[0.3], std=[0.2])


def test_a_saved_model_is_loaded_by_timm_alone(tmp_path: Path) -> None:
    network = build_model(TINY, "test_resnet", 3).eval()
    images = torch.randn(2, 1, 24, 24)
    with torch.inference_mode():
        expected = network(images)
    save_bundle(tmp_path / "m", network, image_format(TINY, network), ["cat", "dog", "owl"])
    alone = timm.create_model(f"local-dir:{tmp_path / 'm'}", pretrained=True).eval()
    with torch.inference_mode():
        torch.testing.assert_close(alone(images), expected)

    assert alone.pretrained_cfg["input_size"] == (1, 24, 24)
    assert alone.pretrained_cfg["label_names"] == ["cat", "dog", "owl"]


def test_a_bundle_comes_back_with_classes_and_preprocessing(tmp_path: Path) -> None:
    network = build_model(TINY, "test_resnet", 3)
    digest = save_bundle(tmp_path / "m", network, image_format(TINY, network), ["a", "b", "c"])
    bundle = load_bundle(tmp_path / "m")

    assert bundle.class_names == ("a", "b", "c")
    assert (bundle.format.size, bundle.format.channels, bundle.format.mean) == (24, 1, (0.3,))
    assert not bundle.network.training
    check_weights(tmp_path / "m", digest)


def test_weights_that_were_changed_are_noticed(tmp_path: Path) -> None:
    network = build_model(TINY, "test_resnet", 3)
    digest = save_bundle(tmp_path / "m", network, image_format(TINY, network), ["a", "b", "c"])
    path = tmp_path / "m" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")

    with pytest.raises(StoreError, match="was changed after training"):
        check_weights(tmp_path / "m", digest)


def test_an_unknown_model_names_its_neighbours() -> None:
    with pytest.raises(InputError, match="timm has no model 'resnet1888'"):
        build_model(TINY, "resnet1888", 3)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("optimizer.name=adamm", "wanted a name that timm knows"),
        ("iteration.2.model.architecture=resnet1888", "timm has no model 'resnet1888'"),
        ("model.architecture=test_maxvit", "cannot take images of 28 pixels"),
    ],
)
def test_models_and_optimizer_are_tried_before_hours_are_spent(
    setting: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        check_models(load_recipe("fashion_mnist", [setting]), 10)


def test_a_model_of_fixed_size_is_made_for_the_recipes(tmp_path: Path) -> None:
    model = TINY.model_copy(update={"resolution": 32, "stochastic_depth": 0.0})
    network = build_model(model, "test_vit", 3).eval()
    save_bundle(tmp_path / "m", network, image_format(model, network), ["a", "b", "c"])
    images = torch.randn(2, 1, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(
            load_bundle(tmp_path / "m").network(images), network(images), rtol=1e-4, atol=1e-5
        )


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no model folder"):
        load_bundle(tmp_path)


def test_the_average_follows_the_official_rule() -> None:
    ema = Ema(torch.nn.Linear(1, 1), decay=0.999)

    assert [ema.get_decay(step) for step in (0, 5, 100_000)] == [0.1, 6 / 15, 0.999]


def test_the_average_covers_batch_statistics() -> None:
    network = torch.nn.BatchNorm2d(2)
    ema = Ema(network, decay=0.5)
    network.running_mean = torch.ones(2)
    ema.update(network, step=1_000_000)

    torch.testing.assert_close(ema.module.running_mean, torch.full((2,), 0.5))
