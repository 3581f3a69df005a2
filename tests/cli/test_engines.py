"""What the command line says of engines, before one starts."""

from pathlib import Path

import pytest

from tests.cli.shell import shell

LABEL = ("label", "--teacher", "t")
SELECT = ("select", "v", "--teacher", "t")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*LABEL, "--engine", "spark"), "--engine is 'spark'; wanted local or ray"),
        (
            (*LABEL, "--address", "auto", "--workers", "2"),
            "--address, --workers without --engine ray; add it, or leave them out",
        ),
        (
            (*LABEL, "--engine", "ray", "--workers", "x..2"),
            "--workers is 'x..2'; wanted such as",
        ),
        ((*LABEL, "--engine", "ray", "--workers", "4..2"), "workers are 4..2; wanted such as"),
        (("embed", "--gpus-per-worker", "1"), "--gpus-per-worker without --engine ray"),
        (("evaluate", "t", "--cpus-per-worker", "4"), "--cpus-per-worker without --engine ray"),
        ((*SELECT, "--workers", "2", "--dry-run"), "--workers without --engine ray; add it"),
        ((*SELECT, "--engine", "dask"), "engine is 'dask'; wanted 'duckdb' or 'spark'"),
        ((*SELECT, "--engine", "ray", "--mode", "reference"), "this view is by reference"),
    ],
)
def test_bad_words_get_one_message(
    tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    shell("init", "--store", tmp_path / "store")
    done = shell(*words, "--store", tmp_path / "store", home=tmp_path)

    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""
