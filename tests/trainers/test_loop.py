"""The whole loop on a tiny slice of the bundled sample, killed and not."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import plstore
from plstore.query import run_query, run_sql

TINY = [
    "train.steps=24",
    "train.looks=2",
    "schedule.warmup_steps=2",
    "train.labeled_batch=16",
    "data.limit_unlabeled=200",
    "select.min_confidence=0.15",
    "select.images_per_class=20",
    "iterations=2",
]


def command(home: Path, *extra: str) -> list[str]:
    words = [sys.executable, "-m", "plstore.cli.main", "run", "fashion_mnist"]
    for setting in TINY:
        words += ["--set", setting]
    return [*words, "--store", str(home / "store"), "--format", "json", *extra]


def result(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home / "result.json").read_text())
    found.pop("run_seconds")
    return found


def num_steps(home: Path) -> int:
    return len(list((home / "store" / "_plstore" / "steps").glob("*.json")))


def wait_for_steps(home: Path, wanted: int, process: subprocess.Popen[Any]) -> None:
    while num_steps(home) < wanted and process.poll() is None:
        time.sleep(0.02)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("whole")
    subprocess.run(command(home), check=True, capture_output=True)
    return home


@pytest.mark.slow
def test_the_loop_leaves_models_result_and_report(finished: Path) -> None:
    found = result(finished)
    page = (finished / "report.html").read_text()

    assert [student["iteration"] for student in found["students"]] == [1, 2]
    for model in (found["teacher"], found["control"], *found["students"]):
        assert 5 < model["test_accuracy"] < 100
        assert (finished / "store" / model["checkpoint"] / "model.safetensors").is_file()
    assert page.count("<img") == 5 + 12  # figures, and images worth a look
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.slow
def test_every_pseudo_label_can_be_asked_for_in_sql(finished: Path) -> None:
    store = plstore.open(finished / "store")
    rows = run_sql(
        store,
        "select labels.iteration, teachers.checkpoint_hash, count(*) as n "
        "from soft_labels as labels join teachers using (teacher_id) "
        "where split = 'unlabeled' group by all order by all",
    ).to_pylist()

    assert [(row["iteration"], row["n"]) for row in rows] == [(1, 200), (2, 200)]
    assert all(len(row["checkpoint_hash"]) == 32 for row in rows)
    assert run_query(store, "audit/unknown_images").num_rows == 0
    assert run_query(store, "audit/truth_in_training").num_rows == 0


@pytest.mark.slow
def test_views_pin_what_they_were_made_of(finished: Path) -> None:
    store = plstore.open(finished / "store")
    rows = store.table("views").read().to_pylist()
    by_name = {row["view"]: json.loads(row["pins"])["soft_labels"] for row in rows}
    labels = {
        name: set(store.table("soft_labels").read(version=version)["iteration"].to_pylist())
        for name, version in by_name.items()
    }

    assert by_name["fashion_mnist-1"] == 2  # a commit a split
    assert by_name["fashion_mnist-2"] == 4
    assert labels["fashion_mnist-1"] == {1}
    assert labels["fashion_mnist-2"] == {1, 2}


@pytest.mark.slow
def test_a_finished_run_is_not_done_again(finished: Path) -> None:
    before = plstore.open(finished / "store").versions()
    start = time.monotonic()
    done = subprocess.run(command(finished), check=True, capture_output=True, text=True)

    assert plstore.open(finished / "store").versions() == before
    assert "] train-" not in done.stderr  # no step is begun
    assert time.monotonic() - start < 60


@pytest.mark.nightly
def test_a_run_killed_again_and_again_ends_with_the_same_result(
    finished: Path, tmp_path: Path
) -> None:
    draw = random.Random(0)  # noqa: S311  moments, not secrets
    killed_at = []
    for wanted in (1, 4, 6, 9, 12):
        process = subprocess.Popen(
            command(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_steps(tmp_path, wanted, process)
        time.sleep(draw.uniform(0, 1))
        process.kill()
        process.wait()
        killed_at.append(num_steps(tmp_path))
    subprocess.run(command(tmp_path), check=True, capture_output=True)

    assert sum(0 < steps < 14 for steps in killed_at) >= 3
    assert result(tmp_path) == result(finished)


@pytest.mark.nightly
def test_a_training_that_was_kept_but_not_recorded_is_not_done_again(
    finished: Path, tmp_path: Path
) -> None:
    home = tmp_path / "copy"
    shutil.copytree(finished, home)
    (record,) = [
        path
        for path in (home / "store" / "_plstore" / "steps").glob("train-*.json")
        if json.loads(path.read_text())["name"] == "train-1"
    ]
    record.unlink()
    before = plstore.open(home / "store").versions()
    subprocess.run(command(home), check=True, capture_output=True)

    assert plstore.open(home / "store").versions() == before
    assert result(home) == result(finished)


@pytest.mark.slow
def test_other_images_are_refused_before_any_is_imported(
    finished: Path, tmp_path: Path
) -> None:
    home = tmp_path / "copy"
    shutil.copytree(finished, home)
    before = plstore.open(home / "store").versions()
    done = subprocess.run(
        command(home, "--set", "data.dataset=other"),
        check=False,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 2
    assert "nothing was imported" in done.stderr
    assert plstore.open(home / "store").versions() == before


@pytest.mark.slow
def test_an_interrupted_run_says_so_and_exits_with_3(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    wait_for_steps(tmp_path, 2, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()

    assert process.returncode == 3
    assert "the same command goes on from here" in said
    assert "Traceback" not in said


@pytest.mark.nightly
def test_a_changed_recipe_runs_beside_the_old_one(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    words = command(
        tmp_path / "copy", "--set", "select.min_confidence=0.2", "--set", "control=false"
    )
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    rows = plstore.open(tmp_path / "copy" / "store").table("views").read().to_pylist()

    assert "train-0" not in done.stderr
    assert "train-1" in done.stderr
    assert sorted(r["version"] for r in rows if r["view"] == "fashion_mnist-1") == [1, 2]


@pytest.mark.nightly
def test_two_stores_of_one_folder_keep_their_own_results(
    finished: Path, tmp_path: Path
) -> None:
    home = tmp_path / "copy"
    shutil.copytree(finished, home)
    before = {name: (home / name).read_bytes() for name in ("result.json", "report.html")}
    small = ["train.steps=4", "schedule.warmup_steps=1", "iterations=1", "control=false"]
    small += ["select.min_confidence=0"]
    words = [word for setting in small for word in ("--set", setting)]
    subprocess.run(
        command(home, *words, "--store", str(home / "other")), check=True, capture_output=True
    )
    other = json.loads((home / "other.result.json").read_text())

    assert {name: (home / name).read_bytes() for name in before} == before
    assert other["teacher"]["teacher_id"] != result(home)["teacher"]["teacher_id"]
    assert other["teacher"]["teacher_id"] in (home / "other.report.html").read_text()


@pytest.mark.slow
def test_the_readmes_python_runs_on_the_demos_store(finished: Path, tmp_path: Path) -> None:
    home = Path(__file__).parents[2]
    pages = [home / "README.md", home / "docs/guides/feed.md"]
    blocks = [part for page in pages for part in page.read_text().split("```python\n")]
    examples = [part for part in blocks if part.startswith("import plstore")]
    assert len(examples) == 2
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "store").symlink_to(finished / "store")
    code = "".join(example.split("```")[0] for example in examples)
    # a teacher of sixteen steps is sure of nothing: its student's view takes the place
    code = code.replace('"demo/store"), "surer")', '"demo/store"), "fashion_mnist-1")')
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert "surer@1" in done.stdout
    assert "errors=[]" in done.stdout


@pytest.mark.nightly
def test_the_tutorials_commands_run_on_the_demos_store(finished: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/tutorial.md").read_text()
    blocks = [part.split("```")[0] for part in page.split("```sh\n")[1:]]
    (tmp_path / "demo").mkdir()
    shutil.copytree(finished / "store", tmp_path / "demo/store")
    script = "\n".join(block for block in blocks if "make demo" not in block)
    script = script.replace("source .venv/bin/activate\n", "")
    # a teacher of sixteen steps is sure of nothing
    script = script.replace("--min-confidence 0.9", "--min-confidence 0.05")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "surer" in done.stdout


@pytest.mark.slow
def test_predict_names_what_it_sees_and_what_it_cannot_read(
    finished: Path, tmp_path: Path
) -> None:
    images = plstore.open(finished / "store").table("images").read().to_pylist()
    for row in [row for row in images if row["split"] == "test"][:5]:
        (tmp_path / f"{row['sample_id']}.png").write_bytes(row["image"]["bytes"])
    (tmp_path / "notes.txt").write_text("no image")
    words = [sys.executable, "-m", "plstore.cli.main", "predict", str(tmp_path)]
    done = subprocess.run(
        [*words, "--store", str(finished / "store"), "--format", "json"],
        check=True,
        capture_output=True,
        text=True,
    )
    rows = json.loads(done.stdout)

    assert [row["verdict"] for row in rows] == ["accepted"] * 5 + ["not_an_image"]
    assert all(0 < row["confidence"] <= 1 for row in rows[:5])
    assert rows[5]["class"] is None
