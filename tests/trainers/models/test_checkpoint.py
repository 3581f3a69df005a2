"""A model folder is checked in full: no label may come from a head that nobody trained."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf

from plstore.errors import InputError
from plstore.loaders import ImageFormat
from trainers.models.checkpoint import match_names
from trainers.models.model import build_model, load_bundle, save_bundle
from trainers.sections import Model

NAMES = ("cat", "dog", "owl")
SIZE = 32

Json = dict[str, Any]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("saved") / "model"
    settings = Model(architecture="test_resnet", resolution=SIZE, stochastic_depth=0)
    network = build_model(settings, "test_resnet", len(NAMES))
    save_bundle(folder, network, ImageFormat(size=SIZE), NAMES)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved, tmp_path / "model")
    return tmp_path / "model"


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_bundle(folder)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def pixels(name: str, value: object) -> Callable[[Json], None]:
    return lambda config: config["pretrained_cfg"].update({name: value})


def value(name: str, value: object) -> Callable[[Json], None]:
    return lambda config: config.update({name: value})


CONFIGS: list[tuple[Callable[[Json], Any], tuple[str, ...]]] = [
    (lambda c: c["pretrained_cfg"].pop("mean"), ("pretrained_cfg.mean: missing",)),
    (lambda c: c.pop("pretrained_cfg"), ("pretrained_cfg: missing",)),
    (lambda c: c.pop("architecture"), ("architecture: missing",)),
    (lambda c: c.pop("label_names"), ("has no label_names", "model_config=")),
    (pixels("mean", [0.5]), ("mean has 1 values for 3 channels",)),
    (pixels("mean", [0.5, 0.5, float("nan")]), ("mean.2", "finite")),
    (pixels("mean", "gray"), ("pretrained_cfg.mean: found 'gray'",)),
    (pixels("std", [0.2, 0.2, 0]), ("pretrained_cfg.std.2: found 0", "greater than 0")),
    (pixels("std", [0.2, 0.2, float("nan")]), ("pretrained_cfg.std.2", "finite")),
    (pixels("std", [0.2, 0.2]), ("std has 2 values for 3 channels",)),
    (pixels("interpolation", "lanczos"), ("found 'lanczos'", "'bilinear' or 'bicubic'")),
    (pixels("input_size", [3, 32]), ("pretrained_cfg.input_size", "at least 3 items")),
    (pixels("input_size", [3, 10**6, 10**6]), ("input_size.1: found 1000000", "4096")),
    (pixels("input_size", [3, 32, 64]), ("input_size is [3, 32, 64]", "a square")),
    (pixels("input_size", [2, 32, 32]), ("wanted 1 or 3 channels",)),
    (pixels("input_size", [3, 32.5, 32.5]), ("input_size.1: found 32.5",)),
    (pixels("crop_pct", 0), ("crop_pct: found 0", "greater than 0")),
    (pixels("crop_pct", 1e9), ("crop_pct: found 1000000000.0", "less than or equal to 1")),
    (pixels("num_classes", 5), ("pretrained_cfg.num_classes 5", "label_names 3")),
    (value("num_classes", 5), ("num_classes 5", "label_names 3", "wanted them equal")),
    (value("label_names", [*NAMES, "cow"]), ("num_classes 3", "label_names 4")),
    (value("label_names", ["cat", "dog", "cat"]), ("label_names repeat cat",)),
    (value("label_names", ["cat", None, "owl"]), ("label_names is no list of names",)),
    (value("label_names", {"0": "cat", "1": "dog", "5": "owl"}), ("0 to 2",)),
    (value("scaled_decoding", "no"), ("scaled_decoding: found 'no'",)),
    (value("architecture", "resnet1888"), ("architecture is 'resnet1888'", "does not know")),
    (value("architecture", 18), ("architecture: found 18",)),
    (value("model_args", {"num_classes": 5}), ("model_args.num_classes 5",)),
    (value("model_args", {"spin": 1}), ("cannot make 'test_resnet'", "spin")),
    (value("model_args", [1]), ("model_args: found [1]",)),
    (value("model_args", {"in_chans": 1}), ("conv1.0.weight", "wanted [16, 1, 3, 3]")),
    (value("architecture", "test_vit"), ("missing", "left over", "save_for_hf")),
]


@pytest.mark.parametrize(("change", "words"), CONFIGS)
def test_a_config_that_is_wrong_is_refused_by_name(
    folder: Path, change: Callable[[Json], Any], words: tuple[str, ...]
) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))

    refused(folder, str(folder), *words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>404</html>", "is no JSON"),
        (b"\xff\xfe{}", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b'["a"]', "holds list; wanted a JSON object"),
    ],
)
def test_a_config_that_is_no_json_object_is_refused(
    folder: Path, content: bytes, words: str
) -> None:
    (folder / "config.json").write_bytes(content)

    refused(folder, str(folder / "config.json"), words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"PK\x03\x04", "a pickle of torch"),
        (b"\x80\x02}q\x00.", "a pickle of torch"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\xff" * 100, "cut off"),
    ],
)
def test_weights_that_are_none_are_refused(folder: Path, content: bytes, words: str) -> None:
    (folder / "model.safetensors").write_bytes(content)

    refused(folder, "is no safetensors file", words)


def test_weights_that_end_early_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])

    refused(folder, str(path), "was its download or copy cut off?")


def rename_head(weights: dict[str, torch.Tensor]) -> None:
    weights["head.weight"] = weights.pop("fc.weight")


def other_head(weights: dict[str, torch.Tensor]) -> None:
    weights["fc.weight"] = torch.zeros(10, weights["fc.weight"].shape[1])


def whole_numbers(weights: dict[str, torch.Tensor]) -> None:
    weights["fc.weight"] = weights["fc.weight"].to(torch.int8)


def not_a_number(weights: dict[str, torch.Tensor]) -> None:
    weights["fc.bias"] = torch.full((3,), torch.nan)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (rename_head, ("missing fc.weight", "left over head.weight")),
        (lambda w: w.pop("fc.bias"), ("missing fc.bias",)),
        (lambda w: w.update({"more": torch.zeros(1)}), ("left over more",)),
        (other_head, ("fc.weight is F32 [10, ", "wanted [3, ")),
        (whole_numbers, ("fc.weight is I8",)),
        (not_a_number, ("values that are not finite",)),
    ],
)
def test_every_weight_is_found_and_used(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], Any], words: tuple[str, ...]
) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")

    refused(folder, str(folder), *words)


def test_half_precision_is_read(folder: Path) -> None:
    before = load_bundle(folder).network.state_dict()["fc.weight"]
    weights = load_file(folder / "model.safetensors")
    halves = {n: t.half() if t.is_floating_point() else t for n, t in weights.items()}
    save_file(halves, folder / "model.safetensors")
    after = load_bundle(folder).network.state_dict()["fc.weight"]

    assert after.dtype == torch.float32
    torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-3)


def test_a_folder_without_its_files_says_what_it_has(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    refused(folder, "found config.json, pytorch_model.bin", "save_for_hf")


def test_a_model_that_timm_saved_itself_wants_label_names(tmp_path: Path) -> None:
    network = timm.create_model("test_resnet", num_classes=3)
    save_for_hf(network, str(tmp_path / "bare"), safe_serialization=True)
    data = {"input_size": (3, SIZE, SIZE)}
    named = {"label_names": list(NAMES)}
    save_for_hf(
        network,
        str(tmp_path / "named"),
        model_config=named,
        data_config=data,
        safe_serialization=True,
    )

    refused(tmp_path / "bare", "has no label_names", "save_for_hf(model, folder, model_config=")
    assert load_bundle(tmp_path / "named").class_names == NAMES


def test_names_by_number_and_numbers_as_names_are_read(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    for given, wanted in (
        ({"2": "owl", "0": "cat", "1": "dog"}, ("cat", "dog", "owl")),
        ([7, 8, 9], ("7", "8", "9")),
    ):
        (folder / "config.json").write_text(json.dumps({**config, "label_names": given}))
        assert load_bundle(folder).class_names == wanted


def test_outputs_are_matched_with_classes_by_name(folder: Path) -> None:
    images = torch.randint(0, 256, (4, 3, SIZE, SIZE), dtype=torch.uint8)
    own = load_bundle(folder)
    other = load_bundle(folder, class_names=("owl", "cat", "dog"))
    with torch.inference_mode():
        expected, found = own.logits(images), other.logits(images)

    assert own.notes == ()
    assert "matched by name" in other.notes[0]
    assert other.class_names == ("owl", "cat", "dog")
    for place, name in enumerate(other.class_names):
        torch.testing.assert_close(found[:, place], expected[:, NAMES.index(name)])


def test_names_are_equal_however_unicode_composes_them() -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"

    assert match_names(["a", apart], ["a", composed], "m") is None
    assert match_names([apart, "a"], ["a", composed], "m") == [1, 0]
    with pytest.raises(InputError, match="only the model has b, only the store has none"):
        match_names(["a", "b"], ["a"], "m")


def test_a_crop_that_is_not_done_is_said(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"]["crop_mode"] = "squash"
    (folder / "config.json").write_text(json.dumps(config))

    assert "crop_mode is 'squash'" in load_bundle(folder).notes[0]
