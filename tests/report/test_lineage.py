from datetime import UTC, datetime

from plstore.labels import TeacherRecord, add_teacher
from plstore.report import lineage
from plstore.report.snapshot import Snapshot
from plstore.store import Store


def test_models_have_their_accuracy_where_it_was_measured(snapshot: Snapshot) -> None:
    first, second = lineage.models(snapshot)

    assert (first.teacher_id, first.test) == ("t0", None)
    assert (second.teacher_id, second.test) == ("t1", 0.815)
    assert first.validation is not None
    assert second.num_labels == {"t1@2": 66}
    assert second.view == "first@1"


def test_the_lineage_leads_from_teachers_over_views_to_students(snapshot: Snapshot) -> None:
    found = lineage.lineage(snapshot, lineage.models(snapshot))
    way = ["teacher:t0", "labels:t0@1", "view:first@1", "teacher:t1", "labels:t1@2"]
    way.append("view:second@1")

    assert found.nodes.keys() == set(way)
    assert [found.columns[key] for key in way] == [0, 1, 2, 3, 4, 5]
    assert all(way[n] in found.nodes[way[n + 1]].made_of for n in range(5))


def test_a_model_comes_after_the_one_that_it_began_with(own: Store) -> None:
    before = TeacherRecord(teacher_id="pre-1", iteration=0, role="pretrained")
    started = {"started_from": "pre-1"}
    after = TeacherRecord(teacher_id="t9", iteration=0, role="teacher", metrics=started)
    for record in (before, after):
        add_teacher(own, record, identity=record.teacher_id, step="train")
    snapshot = Snapshot(own)
    found = lineage.lineage(snapshot, lineage.models(snapshot))

    assert found.nodes["teacher:t9"].made_of == ("teacher:pre-1",)
    assert found.nodes["teacher:pre-1"].detail == "pretrained"
    assert found.columns["teacher:t9"] == found.columns["teacher:pre-1"] + 1


def test_a_control_is_compared_with_the_student_of_its_iteration() -> None:
    def model(name: str, iteration: int, role: str, test: float | None) -> lineage.Model:
        return lineage.Model(
            teacher_id=name,
            iteration=iteration,
            role=role,
            architecture="",
            view=None,
            test=test,
            validation=None,
            num_labels={},
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
        )

    models = [
        model("t0", 0, "teacher", 0.7),
        model("t1", 1, "student", 0.8),
        model("t2", 2, "student", 0.9),
        model("control", 2, "control", 0.75),
        model("t3", 3, "student", None),
    ]

    assert lineage.compared_with(models) == {"t1": 0.7, "t2": 0.8, "control": 0.9, "t3": 0.9}
