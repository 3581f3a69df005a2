"""Weights to start from: found in a file or a cache, or missed at once, with what to do."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from plstore.errors import InputError
from plstore.store import Store
from tests.conftest import CLASS_NAMES
from trainers.loop import open_run
from trainers.models import pretrained
from trainers.models.model import build_model, image_format, save_bundle
from trainers.models.pretrained import architecture_of, starting_weights, weights_file
from trainers.recipe import load_recipe
from trainers.sections import Model
from trainers.training.checking import check_models

SMALL = Model(architecture="test_resnet", resolution=32, stochastic_depth=0)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(7)
    network = timm.create_model("test_resnet")
    (tmp_path / "timm").mkdir()
    save_file(network.state_dict(), tmp_path / "timm" / "model.safetensors")
    return tmp_path / "timm" / "model.safetensors"


@pytest.mark.parametrize("by", ["file", "folder", "name"])
def test_a_model_starts_from_the_weights_of_a_file(weights: Path, by: str) -> None:
    if by == "name":
        weights = weights.rename(weights.with_name("test_resnet.safetensors"))
    place = weights if by == "file" else weights.parent
    model = SMALL.model_copy(update={"weights": str(place)})
    network = build_model(model, "test_resnet", 3)
    stored, found = load_file(weights), network.state_dict()

    for name, value in found.items():
        assert torch.equal(value, stored[name]) != name.startswith("fc."), name


def test_weights_of_another_model_are_refused(weights: Path) -> None:
    renamed = {f"backbone.{name}": value for name, value in load_file(weights).items()}
    save_file(renamed, weights)
    recipe = load_recipe("fashion_mnist", [f"model.weights='{weights}'"])

    with pytest.raises(InputError, match=r"lacks \d+ weights of 'test_resnet', such as c"):
        check_models(recipe, 10)


def test_weights_for_small_images_are_for_a_model_of_small_images(tmp_path: Path) -> None:
    small = SMALL.model_copy(update={"architecture": "test_efficientnet", "small_images": True})
    network = build_model(small, small.architecture, len(CLASS_NAMES))
    save_bundle(tmp_path, network, image_format(small, network), CLASS_NAMES)
    from_it = small.model_copy(update={"weights": str(tmp_path)})

    found = build_model(from_it, small.architecture, 3).state_dict()
    assert torch.equal(found["conv_stem.weight"], network.state_dict()["conv_stem.weight"])
    large = from_it.model_copy(update={"small_images": False})
    with pytest.raises(InputError, match=r"set model\.small_images to true"):
        build_model(large, small.architecture, 3)


@pytest.mark.parametrize("name", ["gone", "empty", "model.onnx"])
def test_a_place_without_weights_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.onnx").write_bytes(b"\x08")
    with pytest.raises(InputError, match=r"wanted a \.safetensors or \.pth file, or a"):
        weights_file(str(tmp_path / name), "test_resnet")


def test_another_file_of_weights_is_another_step(weights: Path, tmp_path: Path) -> None:
    recipe = load_recipe("fashion_mnist", [f"model.weights='{weights}'"])
    store = Store(tmp_path / "store")
    before = {step.name: step.key for step in open_run(recipe, store).steps}
    changed = load_file(weights)
    changed["fc.bias"] += 1
    save_file(changed, weights)
    after = {step.name: step.key for step in open_run(recipe, store).steps}

    assert before["labeled"] == after["labeled"]
    assert before["train-0"] != after["train-0"]


def test_a_model_that_timm_has_no_weights_for_is_said() -> None:
    with pytest.raises(InputError, match="timm has no weights for 'resnet18ts'"):
        starting_weights(SMALL.model_copy(update={"pretrained": True}), "resnet18ts")


def test_weights_in_the_cache_are_taken_without_a_network(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    repository = tmp_path / "models--timm--test_resnet.r160_in1k"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    weights.rename(snapshot / "model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(pretrained, "why_hub_is_out_of_reach", lambda *_, **__: "no network")
    network = build_model(SMALL.model_copy(update={"pretrained": True}), "test_resnet", 3)
    stored = load_file(snapshot / "model.safetensors")

    assert torch.equal(network.state_dict()["conv1.0.weight"], stored["conv1.0.weight"])


@pytest.mark.slow
def test_without_a_network_a_run_ends_before_it_begins_and_says_what_to_do(
    tmp_path: Path, unused_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused_port()}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    command = [sys.executable, "-m", "plstore.cli.main", "run", "fashion_mnist"]
    done = subprocess.run(
        [*command, "--pretrained", "--store", str(tmp_path / "store")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 2
    for words in ("refused", "hf download timm/test_resnet", "--weights", "HF_HOME"):
        assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "Retrying" not in done.stderr
    assert "import" not in done.stderr.splitlines()[0]


def test_a_pickle_of_weights_is_read_as_weights_alone(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLSTORE_CACHE", str(tmp_path / "cache"))
    plain = load_file(weights)
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": w for name, w in plain.items()}}
    place = tmp_path / "test_resnet.pth"
    torch.save(wrapped, place)

    found = load_file(weights_file(str(place), "test_resnet"))

    assert architecture_of(str(place)) == "test_resnet"
    assert found.keys() == plain.keys()
    assert all(value.equal(plain[name]) for name, value in found.items())


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"a": 1}, "holds int; wanted weights by name"),
        (Path("x"), "Only weights are read, no code"),
    ],
)
def test_a_pickle_of_anything_else_is_refused(
    value: object, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLSTORE_CACHE", str(tmp_path / "cache"))
    torch.save(value, tmp_path / "test_resnet.pth")

    with pytest.raises(InputError, match=says):
        weights_file(str(tmp_path / "test_resnet.pth"), "test_resnet")
