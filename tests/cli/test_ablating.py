"""What the command line says of an experiment that cannot be."""

from pathlib import Path

import pytest

from tests.cli.shell import shell


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["papers"], "no grid 'papers': no such file, and plstore ships paper"),
        (["paper", "--seeds", "0..x"], "wanted such as 0..4 or 0,3,7"),
        (["paper", "--budget", "-1"], "--budget is '-1'; wanted"),
        (["paper", "--budget", "soon"], "--budget is 'soon'; wanted"),
        (["paper", "--only", "iteration-9"], "--only iteration-9: no such finding; known are"),
        (["paper", "--data", "mnist"], "it has fashion_mnist, cifar10, quick"),
        (["paper", "--set", "train.stepps=3"], "train.stepps: unknown key"),
        (["paper", "--results", "none.jsonl"], "--results none.jsonl: no such file"),
    ],
)
def test_bad_words_get_one_message(tmp_path: Path, words: list[str], message: str) -> None:
    done = shell("ablate", *words, "--dry-run", home=tmp_path)

    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_the_help_has_examples() -> None:
    done = shell("ablate", "--help")

    assert "plstore ablate paper --dry-run" in done.stdout
