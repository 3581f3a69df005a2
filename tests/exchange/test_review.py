import base64
import json
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from plstore.errors import InputError
from plstore.exchange import Reviewed, export_review, import_review
from plstore.exchange.review_tasks import EXCLUDE
from plstore.store import Store
from tests.conftest import CLASS_NAMES, give_labels, make_records


@pytest.fixture
def labeled(store: Store) -> Store:
    give_labels(store)
    return store


def tasks_of(store: Store, folder: Path, url: str | None = None) -> list[dict[str, Any]]:
    export_review(store, folder, num_images=8, url=url)
    tasks: list[dict[str, Any]] = json.loads((folder / "tasks.json").read_text())
    return tasks


def elements(path: Path) -> Any:  # noqa: ANN401  typed as generic, which it is not
    return ET.parse(path)  # noqa: S314  written here


def annotated(task: dict[str, Any], label: str | None, **more: object) -> dict[str, Any]:
    """Return a task as Label Studio exports it."""
    choice = {"type": "choices", "from_name": "label", "value": {"choices": [label]}}
    one = {"result": [] if label is None else [choice], "was_cancelled": False, **more}
    return {**task, "id": 1, "annotations": [one]}


def decisions(store: Store) -> tuple[dict[int, tuple[str, str]], dict[int, str]]:
    corrections = store.table("corrections").read().to_pylist()
    exclusions = store.table("exclusions").read().to_pylist()
    return (
        {row["sample_id"]: (CLASS_NAMES[row["label"]], row["who"]) for row in corrections},
        {row["sample_id"]: row["who"] for row in exclusions},
    )


def test_tasks_have_the_image_and_what_the_newest_labels_say(
    labeled: Store, tmp_path: Path
) -> None:
    other = give_labels(labeled, name="again", iteration=2)
    tasks = tasks_of(labeled, tmp_path / "out")
    config = elements(tmp_path / "out" / "config.xml")
    choices = [choice.get("value") for choice in config.iter("Choice")]

    assert len(tasks) == 8
    assert choices == [*CLASS_NAMES, EXCLUDE]
    for task in tasks:
        (said,) = task["predictions"]
        row = task["data"]["sample_id"] - 12
        (result,) = said["result"]
        assert said["model_version"] == "t0@2"
        assert said["score"] == pytest.approx(other[row].max(), rel=1e-5)
        assert result["value"]["choices"] == [CLASS_NAMES[other[row].argmax()]]
        head, _, data = task["data"]["image"].partition(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(data) == make_records()[row + 12].data
        assert {"why", "score", "key"} < task["data"].keys()
    scores = [task["data"]["score"] for task in tasks]
    assert scores == sorted(scores, reverse=True)


def test_images_may_be_beside_the_tasks(labeled: Store, tmp_path: Path) -> None:
    tasks = tasks_of(labeled, tmp_path / "out", url="http://localhost:8000/images/")

    for task in tasks:
        name = f"plstore-{task['data']['sample_id']:012d}.png"
        assert task["data"]["image"] == f"http://localhost:8000/images/{name}"
        assert (tmp_path / "out" / "images" / name).is_file()


def test_what_people_said_in_label_studio_is_taken_over(labeled: Store, tmp_path: Path) -> None:
    tasks = tasks_of(labeled, tmp_path / "out")
    ids = [task["data"]["sample_id"] for task in tasks]
    done = [
        annotated(tasks[0], "owl", completed_by={"email": "ann@zoo.org"}),
        annotated(tasks[1], EXCLUDE, completed_by=7),
        annotated(tasks[2], "cat", was_cancelled=True),
        annotated(tasks[3], None),
        tasks[4],
        annotated(tasks[5], "dog", updated_at="2026-01-02"),
    ]
    done[5]["annotations"].append(annotated(tasks[5], "cat", updated_at="2026-01-01"))
    done[5]["annotations"][1] = done[5]["annotations"][1]["annotations"][0]
    path = tmp_path / "project.json"
    path.write_text(json.dumps(done))
    found = import_review(labeled, path)

    assert found == Reviewed(corrected=2, excluded=1, unchanged=0, without_label=3)
    assert decisions(labeled) == (
        {ids[0]: ("owl", "ann@zoo.org"), ids[5]: ("dog", "review")},
        {ids[1]: "Label Studio user 7"},
    )
    assert import_review(labeled, path).corrected == 0


@pytest.mark.parametrize(
    "image",
    ["/data/local-files/?d=pool/{}", "/data/upload/3/0123abcd-{}", "https://host/pool/{}?a=b"],
)
def test_tasks_of_ones_own_are_known_by_the_path_of_their_image(
    labeled: Store, tmp_path: Path, image: str
) -> None:
    key = make_records()[20].key
    path = tmp_path / "mine.json"
    path.write_text(json.dumps([annotated({"data": {"image": image.format(key)}}, "owl")]))
    import_review(labeled, path, who="ann")

    assert decisions(labeled) == ({20: ("owl", "ann")}, {})


def cvat(folder: Path, changes: dict[int, str]) -> Path:
    """Return CVAT's annotations after someone changed some images' tags."""
    tree = elements(folder / "annotations.xml")
    for image in tree.iter("image"):
        number = int(str(image.get("id")))
        if number in changes:
            for tag in image.findall("tag"):
                image.remove(tag)
            ET.SubElement(image, "tag", label=changes[number], source="manual")
    path = folder.parent / "annotations.xml"
    tree.write(path, encoding="utf-8", xml_declaration=True)
    return path


def test_what_people_said_in_cvat_is_taken_over(labeled: Store, tmp_path: Path) -> None:
    export_review(labeled, tmp_path / "out", tool="cvat", num_images=4)
    images = list(elements(tmp_path / "out" / "annotations.xml").iter("image"))
    ids = [int(str(image.get("name"))[8:20]) for image in images]
    names = json.loads((tmp_path / "out" / "labels.json").read_text())
    path = cvat(tmp_path / "out", {0: "owl", 1: EXCLUDE})
    packed = tmp_path / "task.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(path, "annotations.xml")
    first = import_review(labeled, packed, who="ann")
    said = [tag.get("label") for image in images for tag in image.iter("tag")]
    decided = decisions(labeled)
    second = import_review(labeled, path, who="ann", unchanged_is_confirmed=True)

    assert [label["name"] for label in names] == [*CLASS_NAMES, EXCLUDE]
    assert {image.get("name") for image in images} == {
        file.name for file in (tmp_path / "out" / "images").iterdir()
    }
    assert first == Reviewed(corrected=1, excluded=1, unchanged=2, without_label=0)
    assert decided == ({ids[0]: ("owl", "ann")}, {ids[1]: "ann"})
    assert second == Reviewed(corrected=2, excluded=0, unchanged=0, without_label=0)
    assert decisions(labeled)[0] == {
        ids[0]: ("owl", "ann"),
        ids[2]: (said[2], "ann"),
        ids[3]: (said[3], "ann"),
    }


_TASK = {"data": {"sample_id": 20, "image": "x.png"}}
_GONE = {"data": {"sample_id": 999}}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "is no JSON"),
        ("a.json", '[{"label": "owl"}]', "JSON-MIN and CSV are for plstore correct --file"),
        ("a.json", json.dumps([annotated(_TASK, "cow")]), "labels 'cow', which are no classes"),
        ("a.json", json.dumps([annotated({"data": {"text": "x"}}, "cat")]), "names no image"),
        (
            "a.json",
            json.dumps([annotated({"data": {"sample_id": "20"}}, "cat")]),
            "sample_id is '20'; wanted a whole number",
        ),
        ("a.json", json.dumps([annotated(_TASK, "cat")] * 2), "says of the image 20 twice"),
        (
            "a.json",
            json.dumps([annotated(_TASK, "cat"), annotated(_GONE, EXCLUDE)]),
            "1 of 2 images are not in",
        ),
        (
            "a.json",
            json.dumps([annotated({"data": {"image": "gone.png"}}, "cat")]),
            "1 images that are not in",
        ),
        ("a.csv", "x", "is for plstore correct --file"),
        ("a.zip", "x", "is no zip with annotations.xml"),
        ("a.xml", "<annotations>", "is no XML"),
        ("a.xml", "<!DOCTYPE a [<!ENTITY b 'c'>]><annotations/>", "has a DTD"),
        (
            "a.xml",
            "<a><image name='1'><tag label='cat'/><tag label='dog'/></image></a>",
            "has the tags cat, dog; wanted one class",
        ),
    ],
)
def test_what_cannot_be_taken_over_is_said_and_nothing_is_written(
    labeled: Store, tmp_path: Path, name: str, text: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(text)

    with pytest.raises(InputError, match=message):
        import_review(labeled, path)
    assert decisions(labeled) == ({}, {})


def test_a_folder_that_holds_something_is_left_as_it_is(labeled: Store, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")

    with pytest.raises(InputError, match="is not empty; name a new folder"):
        export_review(labeled, tmp_path)
    with pytest.raises(InputError, match="wanted one of label-studio, cvat"):
        export_review(labeled, tmp_path / "out", tool="excel")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="wanted sample_id among them"):
        export_review(labeled, tmp_path / "out", query="coverage/labels_per_class")
    assert [path.name for path in tmp_path.iterdir() if path.name != "store"] == ["mine.txt"]
