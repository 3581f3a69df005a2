"""Several teachers in one pass: read and decoded once, and the files of each as if alone."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import plstore
from plstore.codec import Codec
from plstore.errors import InputError
from plstore.images import ImageRecord, import_images
from plstore.loaders import ImageSet
from plstore.store import Shard, Store
from tests.cli.shell import shell
from tests.conftest import CLASS_NAMES, encode
from tests.trainers.given import record_backends
from trainers.inference import missing, ranges
from trainers.inference.clean import BatchSize, Seer, common_looks, precision
from trainers.inference.compiling import compiled
from trainers.inference.portions import Portions, ids_of_split, read_images
from trainers.labeling import label as labeling
from trainers.labeling.label import Labeling, count_missing, label_by_all, label_missing_by_all
from trainers.models.bringing import bring_teacher
from trainers.models.model import build_model, image_format, load_bundle, save_bundle
from trainers.sections import Model

MINE = Labeling(
    teacher_id="a", splits=("unlabeled", "validation"), codec=Codec(name="dense", k=2)
)
FORMATS: dict[str, dict[str, Any]] = {
    "a": {"resolution": 32},
    "b": {"resolution": 32, "mean": [0.5] * 3, "std": [0.2] * 3},  # the same pixels as a
    "c": {"resolution": 40},
    "d": {"resolution": 32, "interpolation": "bicubic"},
}


def make_model(folder: Path, seed: int, **settings: Any) -> Path:  # noqa: ANN401  of a model
    torch.manual_seed(seed)
    model = Model(architecture="test_resnet", stochastic_depth=0, **settings)
    network = build_model(model, "test_resnet", 3)
    save_bundle(folder, network, image_format(model, network), CLASS_NAMES)
    return folder


@pytest.fixture
def taught(store: Store, tmp_path: Path) -> Store:
    for seed, (name, settings) in enumerate(FORMATS.items()):
        folder = make_model(tmp_path / name, seed, **settings)
        bring_teacher(store, name, str(folder), device="cpu")
    return store


def of(*names: str, **changes: Any) -> list[Labeling]:  # noqa: ANN401  of a labeling
    return [replace(MINE, teacher_id=name, **changes) for name in names]


def files(store: Store, name: str, iteration: int) -> list[tuple[str, str]]:
    """Return split and hash of the bytes of every file of labels."""
    table = store.table("soft_labels")
    found = table.shards(partition={"teacher_id": name, "iteration": iteration})
    hashes = [Path(shard.path).stem.rpartition("-")[2] for shard in found]
    return sorted((s.partition["split"], h) for s, h in zip(found, hashes, strict=True))


def test_in_company_each_teacher_writes_the_files_that_it_writes_alone(taught: Store) -> None:
    alone = [label_missing_by_all(taught, of(name))[0] for name in FORMATS]
    together = label_by_all(taught, of(*FORMATS, iteration=2))

    assert together == {name: {"unlabeled": 60, "validation": 6} for name in FORMATS}
    assert alone == list(together.values())
    for name in FORMATS:
        assert files(taught, name, 1) == files(taught, name, 2)
        assert len(files(taught, name, 2)) == 2
    assert len({tuple(files(taught, name, 2)) for name in FORMATS}) == len(FORMATS)


def test_images_are_read_once_and_decoded_once_for_each_format(
    taught: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, read = record_backends(monkeypatch), []

    def reading(*arguments: Any) -> Iterator[tuple[Any, ImageSet]]:  # noqa: ANN401  passed on
        for ids, images in read_images(*arguments):
            read.extend(ids.tolist())
            yield ids, images

    monkeypatch.setattr(ranges, "read_images", reading)
    label_missing_by_all(taught, of(*FORMATS, splits=["unlabeled"]))

    assert used == ["threads"] * 3  # 32 pixels for a and b, 40, and 32 by another filter
    assert read == list(range(12, 72))


def test_a_teacher_that_has_labels_looks_at_what_it_lacks_alone(taught: Store) -> None:
    label_by_all(taught, of("a"))
    random = np.random.default_rng(5)
    later = [
        ImageRecord(
            key=f"later-{n}.png",
            split="unlabeled",
            data=encode(random.integers(0, 256, (20, 20), dtype=np.uint8)),
        )
        for n in range(4)
    ]
    import_images(taught, later, dataset="pets", class_names=CLASS_NAMES)
    counts = label_by_all(taught, of("a", "b"))
    again = label_by_all(taught, of("a", "b"))
    table = taught.table("soft_labels")
    ids = {
        name: sorted(
            row["sample_id"]
            for shard in table.shards(partition={"teacher_id": name, "split": "unlabeled"})
            for row in table.dataset_of([shard]).to_table().to_pylist()
        )
        for name in ("a", "b")
    }

    assert counts["a"] == {"unlabeled": 4, "validation": 0}
    assert counts["b"] == {"unlabeled": 64, "validation": 6}
    assert again == {name: {"unlabeled": 0, "validation": 0} for name in ("a", "b")}
    assert ids["a"] == ids["b"] == [*range(12, 72), *range(84, 88)]


def test_a_stopped_pass_goes_on_with_what_each_teacher_lacks(
    taught: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plstore.labels import writing

    for module in (writing, missing):
        monkeypatch.setattr(module, "SHARD_IDS", 16)
    asked = of("a", "b", splits=["unlabeled"])
    commit, calls = labeling.commit_ranges, []

    def stopped(*args: Any, **options: Any) -> int:  # noqa: ANN401  passed through
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return int(commit(*args, **options))

    with monkeypatch.context() as patch:
        patch.setattr(labeling, "commit_ranges", stopped)
        with pytest.raises(KeyboardInterrupt):
            label_missing_by_all(taught, asked)
    left = [count_missing(taught, one) for one in asked]
    counts = label_missing_by_all(taught, asked)
    label_missing_by_all(taught, of("b", splits=["unlabeled"], iteration=2))

    assert left == [60 - 4 - 16, 60 - 4]  # a is a range ahead
    assert [count["unlabeled"] for count in counts] == left
    assert files(taught, "b", 1) == files(taught, "b", 2)


@pytest.mark.parametrize(
    ("labelings", "words"),
    [
        ([], "teachers are none; wanted each once"),
        (of("a", "b", "a"), "teachers are a, b, a; wanted each once"),
        ([*of("a"), *of("b", batch=8)], "batch is a 'auto', b 8; wanted one for all teachers"),
        ([*of("a"), *of("b", device="cuda")], "device is a 'cpu', b 'cuda'; wanted one"),
    ],
)
def test_what_cannot_be_one_pass_is_refused(
    taught: Store, labelings: list[Labeling], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        label_by_all(taught, labelings)


def test_ranges_of_other_images_are_refused(taught: Store) -> None:
    found = [
        ranges.Assignment(
            bundle=load_bundle(taught.root / "checkpoints" / "a"),
            labeling=MINE,
            missing=next(missing.missing_labels(taught, MINE, split)),
        )
        for split in ("unlabeled", "validation")
    ]

    with pytest.raises(InputError, match="hold different images; wanted the same of each"):
        ranges.label_ranges(taught, found)


@pytest.mark.parametrize("batch", [0, "some", 1.5, True])
def test_an_impossible_batch_is_refused(batch: Any) -> None:  # noqa: ANN401  bad input
    with pytest.raises(InputError, match="batch is"):
        replace(MINE, batch=batch)


class _Small(nn.Module):
    """A model in a memory that holds so many images."""

    def __init__(self, inner: nn.Module, room: int) -> None:
        super().__init__()
        self.inner, self.room, self.shown = inner, room, list[int]()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.shown.append(len(images))
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        found: torch.Tensor = self.inner(images)
        return found


def test_a_batch_that_one_of_several_cannot_hold_is_halved_for_all(
    taught: Store, tmp_path: Path
) -> None:
    one, two = load_bundle(tmp_path / "a"), load_bundle(tmp_path / "b")
    tight = replace(two, network=_Small(two.network, 8))
    ids = ids_of_split(taught, "unlabeled", taught.table("images").version())
    version = taught.table("images").version()

    def seen(*bundles: Any) -> list[list[torch.Tensor]]:  # noqa: ANN401  of bundles
        read = (images for _, images in read_images(taught, ids, version))
        looks = common_looks(
            [Seer(bundle) for bundle in bundles],
            Portions(read),
            device="cpu",
            batch_size=BatchSize(32),
        )
        found = [[(look.batch.sample_ids, look.probs) for look in batch] for batch in looks]
        return [
            [torch.cat([batch[n][place] for batch in found]) for place in (0, 1)]
            for n in range(len(bundles))
        ]

    (ids_one, probs_one), (ids_two, probs_two) = seen(one, tight)
    whole = seen(one, two)

    assert ids_one.tolist() == ids_two.tolist() == ids.tolist()
    assert torch.allclose(probs_one, whole[0][1], atol=1e-6)
    assert torch.allclose(probs_two, whole[1][1], atol=1e-6)
    assert tight.network.shown == [32, 16, *[8] * 7, 4]


def test_labels_say_in_what_they_were_computed(taught: Store) -> None:
    label_by_all(taught, of("a", batch=16))
    lineages = [commit.lineage for commit in taught.table("soft_labels").history()]
    labels = [lineage for lineage in lineages if lineage.get("step") == "label"]

    assert {lineage["precision"] for lineage in labels} == {"float32"}
    assert precision("cpu") == "float32"


def test_the_command_takes_several_teachers(taught: Store) -> None:
    words = ("label", "--store", str(taught.root), "--device", "cpu", "--format", "csv")
    one = shell(*words, "--teacher", "a", "--batch-size", "16")
    both = shell(*words, "--teacher", "a", "--teacher", "b", "--batch-size", "16")
    refused = shell(*words, "--teacher", "a", "--teacher", "b", "--checkpoint", "model")

    assert one.stdout.splitlines() == ["split,labeled", "unlabeled,60", "validation,6"]
    assert both.stdout.splitlines() == [
        "teacher,split,labeled",
        "a,unlabeled,0",
        "a,validation,0",
        "b,unlabeled,60",
        "b,validation,6",
    ]
    assert refused.returncode == 2
    assert "--checkpoint model with teachers a, b; it brings one" in refused.stderr
    assert plstore.label_by_all is label_by_all


@pytest.mark.nightly  # compiles for half a minute
def test_a_compiled_model_labels_as_it_does_uncompiled(taught: Store) -> None:
    def labels(iteration: int) -> list[dict[str, Any]]:
        table = taught.table("soft_labels")
        shards: list[Shard] = table.shards(partition={"iteration": iteration})
        rows = table.dataset_of(shards).to_table().sort_by("sample_id")
        return [dict(row) for row in rows.select(["sample_id", "confidence"]).to_pylist()]

    label_by_all(taught, of("a", splits=["unlabeled"], batch=16))
    label_by_all(taught, of("a", splits=["unlabeled"], batch=16, iteration=2, compiled=True))
    plain, fast = labels(1), labels(2)

    assert [row["sample_id"] for row in fast] == [row["sample_id"] for row in plain]
    assert np.allclose(
        [row["confidence"] for row in fast], [row["confidence"] for row in plain], atol=1e-5
    )
    lineages = [commit.lineage for commit in taught.table("soft_labels").history()]
    named = {x["iteration"]: x["compiled"] for x in lineages if "compiled" in x}
    assert named == {1: False, 2: True}


@pytest.mark.nightly
def test_without_a_compiler_a_compiled_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config

    torch.compiler.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    bundle = load_bundle(make_model(tmp_path / "m", 0, resolution=32))
    with (
        config.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(InputError, match=r"cannot be compiled for cpu.*or leave out --compile"),
    ):
        compiled(bundle, "cpu")
    torch.compiler.reset()
