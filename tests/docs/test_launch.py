"""The launch files of the guide: parsed, checked against schemas, run with two processes."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from plstore.images import import_images
from plstore.query import run_sql
from plstore.store import create
from plstore.store import open as open_store
from tests.conftest import CLASS_NAMES, make_records
from tests.docs.test_commands import HOME, check
from tests.trainers.training.test_processes import SMALL

LAUNCH = HOME / "docs/launch"
SCRIPTS = sorted(LAUNCH.glob("*.sbatch"))
_OPTIONS = {
    *("job-name", "nodes", "ntasks-per-node", "gpus-per-node", "gpus", "cpus-per-task"),
    *("time", "requeue", "array"),
}
_SLURM = {
    "JOB_NODELIST",
    "NNODES",
    "GPUS_ON_NODE",
    "JOB_ID",
    "ARRAY_TASK_ID",
    "ARRAY_TASK_COUNT",
}


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((LAUNCH / name).read_text())
    return found


def test_every_file_is_in_the_guide() -> None:
    guide = (HOME / "docs/guides/hosts.md").read_text()
    included = set(re.findall(r"literalinclude\} \.\./launch/(\S+)", guide))

    assert included == {path.name for path in LAUNCH.iterdir() if path.is_file()}
    assert len(included) == 5


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound(path: Path) -> None:
    text = path.read_text()
    parsed = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    code = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    bare = re.findall(r"\$\w+", re.sub(r'"[^"]*"', "", code))  # outside of quotes
    options = {line.split("--")[1].partition("=")[0] for line in re.findall("#SBATCH.*", text)}

    assert (parsed.returncode, parsed.stderr) == (0, "")
    assert text.startswith("#!/bin/bash\n")
    assert "set -euo pipefail" in code
    assert bare == []
    assert options <= _OPTIONS
    assert set(re.findall(r"\$SLURM_(\w+)", code)) <= _SLURM


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_the_shell_takes_what_scripts_say(path: Path) -> None:
    text = path.read_text()
    (example,) = re.findall(r"^# sbatch \S+ (.*)$", text, re.MULTILINE)
    joined = text.replace("\\\n", " ")
    (line,) = [line for line in joined.splitlines() if line.startswith("srun ")]
    words = shlex.split(line.replace('"$@"', example))
    words = [re.sub(r"\$SLURM\w+/\$SLURM\w+", "0/2", word) for word in words]

    check(words[words.index("plstore") + 1 :])


def containers(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = manifest["spec"]["template"]["spec"]["containers"]
    return found


def jobs() -> list[dict[str, Any]]:
    """Return the Job of each manifest; that of a JobSet is its template."""
    (replicated,) = load("train-jobset.yaml")["spec"]["replicatedJobs"]
    template = {**replicated["template"], "metadata": {"name": "node"}}
    return [
        load("label-job.yaml"),
        {"apiVersion": "batch/v1", "kind": "Job", **template},
    ]


@pytest.mark.parametrize("job", jobs(), ids=("label", "train"))
def test_jobs_fit_the_schemas_of_kubernetes(job: dict[str, Any]) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    validate.validate(job, "1.33", strict=True)
    wrong = {**job, "spec": {**job["spec"], "parallelism": "many"}}
    with pytest.raises(validate.ValidationError):
        validate.validate(wrong, "1.33", strict=True)


@pytest.mark.parametrize("job", jobs(), ids=("label", "train"))
def test_the_shell_takes_what_pods_run(job: dict[str, Any]) -> None:
    (container,) = containers(job)
    words = [word.replace("$(JOB_COMPLETION_INDEX)", "0") for word in container["command"]]

    check(words[words.index("plstore") + 1 :])


def test_the_numbers_of_a_manifest_agree() -> None:
    label, train = (job["spec"] for job in jobs())
    (container,) = containers(jobs()[1])
    endpoint = "plstore-train-node-0-0.plstore-train:29500"

    assert label["completions"] == label["parallelism"] == 64
    assert containers(jobs()[0])[0]["command"][-1].endswith("/64")
    assert f"--nnodes={train['completions']}" in container["command"]
    assert (
        f"--nproc-per-node={container['resources']['limits']['nvidia.com/gpu']}"
        in (container["command"])
    )
    assert f"--rdzv-endpoint={endpoint}" in container["command"]


@pytest.mark.nightly
def test_scripts_train_and_label_with_two_processes(tmp_path: Path) -> None:
    store = create(tmp_path / "store")
    import_images(store, make_records(), dataset="pets", class_names=CLASS_NAMES)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in {
        "srun": 'exec "$@"',
        "scontrol": "echo 127.0.0.1",
        "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
        "plstore": f'exec {sys.executable} -m plstore "$@"',
    }.items():
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    slurm = {"JOB_NODELIST": "n1", "NNODES": "1", "GPUS_ON_NODE": "2", "JOB_ID": "1"}
    environment = {**os.environ, **{f"SLURM_{name}": value for name, value in slurm.items()}}
    environment |= {"PATH": f"{tools}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": str(HOME), "CUDA_VISIBLE_DEVICES": ""}
    sets = [f"--set={name}={value}" for name, value in SMALL.items()]
    words = [*sets, "--set=train.steps=6", "--device", "cpu"]
    place = ["--store", str(tmp_path / "store")]
    trained = subprocess.run(
        ["bash", LAUNCH / "train.sbatch", *words, *place],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert trained.returncode == 0, trained.stderr[-3000:]
    sql = "select teacher_id from teachers where role = 'teacher'"
    (teacher,) = (row["teacher_id"] for row in run_sql(open_store(place[1]), sql).to_pylist())
    for part in ("0", "1"):
        array = {"SLURM_ARRAY_TASK_ID": part, "SLURM_ARRAY_TASK_COUNT": "2"}
        ask = ["--teacher", teacher, "--iteration", "9", "--device", "cpu"]
        subprocess.run(
            ["bash", LAUNCH / "label.sbatch", *ask, *place],
            env={**environment, **array},
            check=True,
        )
    count = "select count(*) as n from soft_labels where iteration = 9"

    assert run_sql(open_store(place[1]), count).to_pylist() == [{"n": 66}]
