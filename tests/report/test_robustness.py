"""The report shows how robust models are, where they were asked."""

from pathlib import Path
from statistics import mean

import plstore
from plstore.query import run_query
from plstore.report.robustness import robust_models
from plstore.store import Store
from tests.trainers.test_run import recipe
from trainers.robustness.attacks import Attack
from trainers.robustness.evaluation import Robustness, robustness
from trainers.robustness.kinds import Corruptions, Sequences


def test_the_report_shows_models_that_were_asked(store: Store, tmp_path: Path) -> None:
    made = plstore.run(recipe(), store, device="cpu")
    run = plstore.find_run(store)
    plstore.report_run(store, run, tmp_path / "before.html")
    models = [made["teacher"]["teacher_id"], made["students"][0]["teacher_id"]]
    what = Robustness(
        corruptions=Corruptions(names=("contrast", "pixelate"), severities=(1, 4)),
        sequences=Sequences(names=("rotate",), num_frames=3),
        attacks=[Attack(kind="fgsm", epsilons=(0.01, 0.02))],
    )
    robustness(store, models, what)
    plstore.report_run(store, run, tmp_path / "after.html")
    found = robust_models(store, made)
    rows = run_query(store, "evaluation/perturbed_accuracy").to_pylist()
    own = [row["accuracy"] for row in rows if row["teacher_id"] == models[1]]
    bars = found.accuracy_by_corruption().axes[0]
    lines = found.accuracy_by_epsilon().axes[0].lines

    assert "Robustness" not in (tmp_path / "before.html").read_text()
    page = (tmp_path / "after.html").read_text()
    assert page.count("<h2>Robustness</h2>") == 1
    assert 'alt="accuracy by corruption"' in page
    assert 'alt="accuracy under attacks"' in page
    assert [row["model"] for row in found.table] == ["teacher", "student 1"]
    assert found.table[1]["accuracy under corruptions"] == f"{100 * mean(own):.1f}"
    assert [text.get_text() for text in bars.get_yticklabels()] == ["contrast", "pixelate"]
    assert [line.get_label() for line in lines] == [
        "teacher, fgsm_linf",
        "student 1, fgsm_linf",
    ]


def test_models_are_compared_by_what_all_were_asked(store: Store) -> None:
    made = plstore.run(recipe(), store, device="cpu")
    models = [made["teacher"]["teacher_id"], made["students"][0]["teacher_id"]]
    robustness(store, models, Robustness(corruptions=Corruptions(names=("pixelate",))))
    more = Corruptions(names=("contrast",), severities=(5,))
    robustness(store, models[:1], Robustness(corruptions=more))

    assert {row["perturbation"] for row in robust_models(store, made).corrupted} == {"pixelate"}
