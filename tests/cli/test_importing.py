"""What `plstore import` says, and to whom: rows on stdout, the rest on stderr."""

import json
from pathlib import Path

from tests.cli.shell import shell
from tests.exchange.test_growing import add


def test_an_import_says_splits_and_classes_and_counts_what_it_left_out(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        add(tmp_path / "labeled" / name, range(4))
    add(tmp_path / "all", range(2))
    (tmp_path / "labeled" / "metadata.csv").write_text("x")
    words = ["import", "images", "--store", str(tmp_path / "store"), "--format", "json"]
    words += ["--labeled", str(tmp_path / "labeled"), "--unlabeled"]
    done = shell(*words, tmp_path / "all")
    nested = shell(*words, tmp_path / "labeled" / "cat")
    rows = {row["what"]: row["images"] for row in json.loads(done.stdout)}

    assert done.returncode == 0
    assert (
        "splits: labeled 6, unlabeled 2, validation 2\nclasses (2): cat, dog\n" in done.stderr
    )
    assert rows == {
        "already there": 0,
        "ignored: .csv": 1,
        "accepted": 10,
    }
    assert nested.returncode == 2
    assert "lies in the labeled folder" in nested.stderr
    assert "Traceback" not in nested.stderr
