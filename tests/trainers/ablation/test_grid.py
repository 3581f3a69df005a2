"""What a grid may say, and what is said of one that may not."""

from pathlib import Path

import pytest

from plstore.errors import InputError
from tests.trainers.ablation.conftest import GRID
from trainers.ablation import Ablation
from trainers.ablation.grid import load_grid


def test_a_grid_becomes_cells_whose_recipes_load(ablation: Ablation) -> None:
    cells = ablation.cells

    assert list(cells) == ["supervised", "student", "hard", "length-short", "length-long"]
    assert cells["hard"].numbers == cells["student"].numbers
    assert cells["hard"].recipe.at(1).loss.pseudo_labels == "hard"
    assert cells["student"].recipe.at(1).loss.pseudo_labels == "soft"
    assert [cells[f"length-{n}"].recipe.at(1).train.steps for n in ("short", "long")] == [2, 6]
    assert cells["supervised"].model == "0"
    assert cells["student"].recipe.iterations == 1  # the recipe has two
    assert [cell.seeded(3).seed for cell in cells.values()] == [3] * 5
    assert ablation.all_seeds == [0, 1]


def test_only_some_findings_need_only_their_cells(ablation: Ablation) -> None:
    some = Ablation(grid=ablation.grid, home=ablation.home, only=["length"])

    assert [cell.name for cell in some.wanted] == ["length-short", "length-long"]
    with pytest.raises(InputError, match="no such finding; known are gain, soft, length"):
        Ablation(grid=ablation.grid, home=ablation.home, only=["lenght"]).findings  # noqa: B018


def wrong(grid: Path, tmp_path: Path, *changes: tuple[str, str]) -> str:
    """Return what is said of the grid with something else in it."""
    text = GRID
    for before, after in changes:
        assert before in text
        text = text.replace(before, after, 1)
    for file in grid.parent.glob("tiny.toml"):
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(InputError) as told:
        Ablation(grid=tmp_path / "wrong.toml", home=tmp_path).cells  # noqa: B018
    return str(told.value)


def test_all_errors_of_a_grid_come_at_once(grid: Path, tmp_path: Path) -> None:
    said = wrong(
        grid,
        tmp_path,
        ("[cells.hard]\nlike", "[cells.hard]\nliek"),
        ('of = "teacher"', 'of = "student-0"'),
        ('source = "table 7"\n', ""),
        ("limit = 12", "limit = -1"),
    )

    assert "4 wrong" in said
    assert "cells.hard.liek: unknown key; known are axes, like, numbers, of" in said
    assert "cells.supervised.of: found 'student-0'" in said
    assert "findings.0: paper and source go together" in said
    assert "robustness.limit: found -1" in said


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (
            'against = "hard"',
            'against = "herd"',
            r"findings.1 (soft): no cell 'herd'; the grid",
        ),
        ("pseudo_labels=hard", "pseudo_label=hard", "cells.hard: "),
        ("pseudo_labels=hard", "pseudo_labels=firm", "iteration.1.loss.pseudo_labels: found"),
        ("steps=$steps", "steps=$stairs", "cells.length: $stairs stands for nothing; known"),
        ("steps=$steps", "steps=$", "a $ is written $$"),
        ('like = "student"', 'like = "hard"', "cells.hard.like: it is like itself"),
        ('like = "student"', 'like = "pupil"', "'pupil', and there is no such cell"),
        (
            'number = "validation_accuracy"',
            'number = "mCE"',
            "cell student has no number mCE; it has test_accuracy, validation_accuracy",
        ),
        ('recipe = "tiny.toml"', 'recipe = "none.toml"', "no such file, and plstore ships"),
        ('id = "soft"', 'id = "gain"', "findings of the same id: gain"),
        ("[cells.hard]", '[cells."length-long"]', "its axes make length-long, which is there"),
    ],
)
def test_bad_input_names_the_place(
    grid: Path, tmp_path: Path, before: str, after: str, words: str
) -> None:
    assert words in wrong(grid, tmp_path, (before, after))


@pytest.mark.parametrize("seeds", ["0..", "1..0", "x", "-1"])
def test_malformed_seeds_are_refused(ablation: Ablation, seeds: str) -> None:
    with pytest.raises(InputError, match=r"wanted such as 0\.\.4 or 0,3,7"):
        Ablation(grid=ablation.grid, home=ablation.home, seeds=seeds).all_seeds  # noqa: B018


def test_a_seed_twice_and_images_that_are_not_there(ablation: Ablation) -> None:
    with pytest.raises(InputError, match="wanted each of them once"):
        Ablation(grid=ablation.grid, home=ablation.home, seeds="1,1").all_seeds  # noqa: B018
    with pytest.raises(InputError, match=r"no images 'cifar' \(--data\); it has images"):
        Ablation(grid=ablation.grid, home=ablation.home, data="cifar").cells  # noqa: B018


def test_a_grid_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no grid 'papers': no such file, and plstore ships"):
        load_grid("papers")
    (tmp_path / "grid.toml").write_text("name = ")
    with pytest.raises(InputError, match="is no TOML"):
        load_grid(tmp_path / "grid.toml")


FOLDERS = {name: f"images/{name}" for name in ("labeled", "unlabeled", "test")}


@pytest.mark.parametrize(("data", "folders"), [("", {}), ("quick", {}), ("cifar10", FOLDERS)])
def test_the_grid_of_the_paper_loads(data: str, folders: dict[str, str]) -> None:
    paper = Ablation(grid="paper", home=Path("paper"), data=data, folders=folders)
    tables = " ".join(finding.source for finding in paper.findings)

    assert {cell.name for cell in paper.wanted} == set(paper.cells)  # no cell is for nothing
    assert len(paper.all_seeds) >= 5
    for number in (4, 5, 6, 7, 12, 13, 14, 15, 16):
        assert f"table {number}" in tables
    assert_signs_are_the_papers(paper)


@pytest.mark.parametrize("data", ["", "quick"])
def test_other_regimes_are_of_findings_of_the_paper(data: str) -> None:
    regimes = Ablation(grid="regimes", home=Path("regimes"), data=data)
    figures = {finding.id: finding.paper for finding in load_grid("paper")[0].findings}

    assert {cell.name for cell in regimes.wanted} == set(regimes.cells)
    assert_signs_are_the_papers(regimes)
    for finding in regimes.findings:  # "balance-mild" is "balance" in another regime
        assert finding.paper == figures[finding.id.rpartition("-")[0]], finding.id


def assert_signs_are_the_papers(ablation: Ablation) -> None:
    for finding in ablation.findings:
        if finding.paper is not None:
            assert (finding.paper[0] > finding.paper[1]) == (finding.sign == "+"), finding.id
