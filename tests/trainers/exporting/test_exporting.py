"""What is exported gives what the model gives, in the library that it is for."""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from plstore.errors import InputError, MissingExtraError
from plstore.images import import_images
from plstore.labels import TeacherRecord, add_teacher, find_teacher
from plstore.store import Store, create
from tests.cli.shell import shell
from tests.conftest import CLASS_NAMES, make_records
from tests.trainers.exported import give_model
from tests.trainers.features.test_probing import recipe
from trainers import run
from trainers.exporting import ExportedModel, ModelKind, export_model
from trainers.exporting.network import Deployed, expected, sample_pixels
from trainers.models.model import Bundle, load_teacher

KINDS: tuple[ModelKind, ...] = ("timm", "onnx", "torch")
TURNED = ("owl", "cat", "dog")


@dataclass(frozen=True, kw_only=True)
class Given:
    """A model of a store, and what its exports gave."""

    bundle: Bundle
    done: dict[ModelKind, ExportedModel]

    def pixels(self, count: int) -> torch.Tensor:
        return sample_pixels(self.bundle, count)

    def seen(self, count: int) -> npt.NDArray[np.float32]:
        return expected(self.bundle, self.pixels(count))


EXPORTED: dict[str, tuple[ModelKind, ...]] = {
    "test_resnet": ("timm", "onnx"),
    "test_efficientnet": ("timm", "onnx", "torch"),
    "test_vit": ("onnx",),
}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Given]:
    """Export each network once; the classes of one stand in another order than the store's."""
    home = tmp_path_factory.mktemp("exports")
    store = create(home / "store")
    import_images(store, make_records(), dataset="pets", class_names=CLASS_NAMES)

    @cache
    def of(name: str) -> Given:
        names = TURNED if name == "test_resnet" else CLASS_NAMES
        teacher = give_model(store, name, name, output_names=names)
        kinds = EXPORTED[name]
        done = {k: export_model(store, name, home / f"{name}-{k}", kind=k) for k in kinds}
        return Given(bundle=load_teacher(store, teacher, device="cpu"), done=done)

    return of


def by_onnx(done: ExportedModel, images: torch.Tensor) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(done.file, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images.numpy()})
    return np.asarray(found)


def by_torch(done: ExportedModel, images: torch.Tensor) -> npt.NDArray[np.float32]:
    program = torch.export.load(done.file).module()
    return np.asarray(program(images).detach().numpy())


SOME = [
    pytest.param(name, marks=[pytest.mark.nightly] if name == "test_vit" else [])
    for name in EXPORTED
]


@pytest.mark.parametrize("name", SOME)
def test_onnx_is_one_network_from_uint8_to_probabilities(
    given: Callable[[str], Given], name: str
) -> None:
    bundle, done = given(name).bundle, given(name).done["onnx"]
    session = onnxruntime.InferenceSession(done.file, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    about = session.get_modelmeta().custom_metadata_map
    form = bundle.format

    assert (taken.name, taken.type) == ("images", "tensor(uint8)")
    assert taken.shape == ["batch", form.channels, form.size, form.size]
    assert done.largest_difference < 1e-5
    for count in (1, 5):
        found = by_onnx(done, given(name).pixels(count))
        assert np.abs(found - given(name).seen(count)).max() < 1e-5
    assert tuple(json.loads(about["class_names"])) == CLASS_NAMES
    assert json.loads(about["mean"]) == list(form.mean)
    assert json.loads(about["crop_pct"]) == form.crop_pct
    assert (about["interpolation"], about["size"]) == (form.interpolation, str(form.size))
    onnx.checker.check_model(str(done.file), full_check=True)


def test_a_program_of_torch_takes_any_batch(given: Callable[[str], Given]) -> None:
    case, files = given("test_efficientnet"), {"export.json": ""}
    done = case.done["torch"]
    torch.export.load(done.file, extra_files=files)

    assert tuple(json.loads(files["export.json"])["class_names"]) == CLASS_NAMES
    assert done.largest_difference < 1e-5
    assert np.abs(by_torch(done, case.pixels(5)) - case.seen(5)).max() < 1e-5


def test_timm_gets_the_folder_as_it_is_kept(given: Callable[[str], Given]) -> None:
    case = given("test_resnet")
    bundle, done = case.bundle, case.done["timm"]
    model = timm.create_model(f"local-dir:{done.folder}", pretrained=True).eval()
    found = model(bundle.format.normalise(case.pixels(3))).softmax(dim=1).detach().numpy()

    assert done.file.read_bytes() == (bundle.folder / done.file.name).read_bytes()
    assert np.abs(found[:, [1, 2, 0]] - case.seen(3)).max() < 1e-5
    assert sorted(p.name for p in done.folder.iterdir()) == [
        "README.md",
        "config.json",
        "export.json",
        "model.safetensors",
    ]


def test_classes_stand_in_the_order_of_the_store(given: Callable[[str], Given]) -> None:
    case = given("test_resnet")
    images = case.pixels(4)
    own = case.bundle.network(case.bundle.format.normalise(images)).softmax(dim=1)
    wanted = own.detach().numpy()[:, [1, 2, 0]]  # cat, dog, owl of owl, cat, dog

    assert np.abs(by_onnx(case.done["onnx"], images) - wanted).max() < 1e-5
    assert np.abs(own.detach().numpy() - wanted).max() > 1e-2


@pytest.mark.parametrize("name", SOME)
def test_the_pixels_of_the_check_tell_outputs_apart(
    given: Callable[[str], Given], name: str
) -> None:
    found = given(name).seen(7)

    assert found.std(axis=0).max() > 0.01
    assert np.median(found.max(axis=1)) < 0.999


@pytest.mark.parametrize("kind", KINDS)
def test_no_path_of_this_machine_goes_along(
    given: Callable[[str], Given], kind: ModelKind
) -> None:
    done = given("test_efficientnet").done[kind]
    for path in done.folder.iterdir():
        data = path.read_bytes()
        assert str(Path(timm.__file__).parents[1]).encode() not in data
        assert str(done.folder.parent).encode() not in data


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_of_the_card_classifies_an_image(
    given: Callable[[str], Given],
    kind: ModelKind,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case = given("test_efficientnet")
    folder = case.done[kind].folder
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    ramp = np.linspace(0, 255, 24 * 24).reshape(24, 24).astype(np.uint8)
    Image.fromarray(ramp).save(folder / "image.png")
    monkeypatch.chdir(folder)
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102
    name, share = capsys.readouterr().out.split()
    wanted = expected(case.bundle, torch.from_numpy(ramp)[None, None])[0]

    assert name == CLASS_NAMES[wanted.argmax()]
    assert float(share) == pytest.approx(wanted.max(), abs=1e-5)


def test_a_probe_is_one_network_too(store: Store, tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "test_resnet.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), weights)
    result = run(recipe(weights), store, device="cpu")
    teacher = find_teacher(store, result["students"][0]["teacher_id"])
    assert teacher is not None
    done = export_model(store, teacher.teacher_id, tmp_path / "out", kind="torch")
    bundle = load_teacher(store, teacher, device="cpu")
    images = sample_pixels(bundle, 4)

    assert bundle.embeddings is not None
    assert np.abs(by_torch(done, images) - expected(bundle, images)).max() < 1e-5


def test_a_difference_that_is_too_large_leaves_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_model(store)

    class Otherwise(Deployed):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images).flip(1)

    monkeypatch.setattr("trainers.exporting.formats.Deployed", Otherwise)
    with pytest.raises(
        InputError, match=r"model\.pt2 of 't0' .* differ by up to 0\.\d+ .* 1, 2, 7"
    ):
        export_model(store, "t0", tmp_path / "out", kind="torch")

    assert not [p.name for p in tmp_path.iterdir() if p.name != "store"]


def test_what_cannot_be_exported_is_told(store: Store, tmp_path: Path) -> None:
    give_model(store)
    labels = TeacherRecord(teacher_id="clip", iteration=1, role="predictions")
    add_teacher(store, labels, identity="clip", step="import")
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")

    with pytest.raises(InputError, match="has labels and no model: its role is 'predictions'"):
        export_model(store, "clip", tmp_path / "out")
    with pytest.raises(InputError, match="no teacher 't7'; those with a model are t0"):
        export_model(store, "t7", tmp_path / "out")
    with pytest.raises(InputError, match="full is not empty; name a new folder"):
        export_model(store, "t0", full)
    with pytest.raises(InputError, match="export as 'tflite'; wanted one of timm, onnx, torch"):
        export_model(store, "t0", tmp_path / "out", kind="tflite")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
    assert [p.name for p in full.iterdir()] == ["mine.txt"]


def test_onnx_without_its_packages_names_the_extra(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_model(store)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"'onnxscript'.*plstore\[onnx\]"):
        export_model(store, "t0", tmp_path / "out", kind="onnx")

    assert not (tmp_path / "out").exists()


def test_the_command_writes_a_model(store: Store, tmp_path: Path) -> None:
    give_model(store)
    out = tmp_path / "new/out"
    words = ("export", "t0", out, "--as", "torch", "--data-licence", "CC0: all of it")
    done = shell(*words, "--store", store.root, "--format", "json")
    (row,) = json.loads(done.stdout)
    wrong = shell("export", "t0", out, "--as", "timm", "--to", "folder", "--store", store.root)
    idle = shell("export", "t0", out, "--data-licence", "MIT", "--store", store.root)

    assert done.returncode == 0, done.stderr
    assert row["file"] == "model.pt2"
    assert 0 <= row["largest difference"] < 1e-4
    assert "## Licence of the data\n\nCC0: all of it\n" in (out / "README.md").read_text()
    assert "--as timm with --to, --split or --as-of" in wrong.stderr
    assert "--data-licence without --as" in idle.stderr
    assert wrong.returncode == idle.returncode == 2
