"""Images that are worth a look, as tasks of the tools that people label with.

Each task has the class that the newest labels give the image, to confirm or to change, and one
choice more, to leave the image out. What comes back is read by `plstore.exchange.annotations`.
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args
from xml.sax.saxutils import quoteattr

import pyarrow as pa
import pyarrow.compute as pc

from plstore.errors import InputError
from plstore.images import IMAGE_COLUMNS, image_bytes
from plstore.labels import labels_in_order
from plstore.query import run_query, saved_query
from plstore.schema import ACCEPTED
from plstore.store import Store

__all__ = [
    "EXCLUDE",
    "IMAGE_NAME",
    "Task",
    "Tasks",
    "Tool",
    "export_review",
    "rows_to_review",
    "tasks_of",
]

Tool = Literal["label-studio", "cvat"]

EXCLUDE: Final = "(exclude)"
"""The choice beside the classes: the image is to be left out."""

IMAGE_NAME: Final = "plstore-{:012d}.{}"
"""Name of an image in a tool, by its sample id and kind."""

_QUERY: Final = "review/worth_a_look"
_NUM_IMAGES: Final = "num_images"
_ROWS: Final = 256
_KINDS: Final = {b"\xff\xd8": "jpeg", b"\x89P": "png", b"RI": "webp"}
_SAID: Final = ("why", "score")


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """What was written to be reviewed.

    Attributes:
        folder: Where.
        num_images: Tasks.
        num_gone: Images that the query named and that cannot be had: their files are gone,
            they were refused at import, or are not in the store.
    """

    folder: Path
    num_images: int
    num_gone: int


@dataclass(frozen=True, kw_only=True)
class Task:
    """One image to be looked at.

    Attributes:
        sample_id: Its id.
        data: Encoded bytes.
        width: In pixels.
        height: The same.
        key: Its name.
        said: What the query says of it.
        label: The newest label: class_id, confidence, teacher_id, iteration; None without one.
    """

    sample_id: int
    data: bytes
    width: int
    height: int
    key: str
    said: Mapping[str, object]
    label: Mapping[str, Any] | None

    @property
    def kind(self) -> str:
        """What it is encoded as: jpeg, png or webp."""
        return _KINDS.get(self.data[:2], "png")

    @property
    def name(self) -> str:
        """Of its file in a tool."""
        return IMAGE_NAME.format(self.sample_id, self.kind.replace("jpeg", "jpg"))


def export_review(
    store: Store,
    folder: str | Path,
    *,
    tool: Tool = "label-studio",
    query: str = _QUERY,
    num_images: int = 200,
    url: str | None = None,
    on_images: Callable[[int], None] = lambda _: None,
    on_note: Callable[[str], None] = lambda _: None,
    **parameters: object,
) -> Tasks:
    """Write images as tasks, with what the newest labels say of them, to a new folder.

    Args:
        store: The store.
        folder: New, or empty.
        tool: "label-studio" (tasks.json, config.xml) or "cvat" (images, annotations.xml of
            CVAT for images 1.1, labels.json).
        query: Saved query whose rows have a ``sample_id``, the most worth a look first.
        num_images: At most.
        url: Of Label Studio: where it finds the images, which are written beside the tasks
            then; within the tasks unless given.
        on_images: Called with the number of images just written.
        on_note: Called with a line for people.
        **parameters: The query's own.

    Raises:
        InputError: If the folder is not empty, the tool is none, the query names no images, or
            a class is named as the choice to leave an image out.
    """
    folder = Path(folder)
    if tool not in get_args(Tool):
        raise InputError(f"review in {tool!r}; wanted one of {', '.join(get_args(Tool))}")
    if url is not None and tool != "label-studio":
        raise InputError("a URL of images is for label-studio; cvat has them in its task")
    if EXCLUDE in store.class_names:
        raise InputError(f"a class is named {EXCLUDE!r}, as the choice to leave an image out")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty; name a new folder")
    rows = rows_to_review(store, query, num_images, parameters, on_note)
    folder.mkdir(parents=True, exist_ok=True)
    tasks = tasks_of(store, rows)
    write = _write_label_studio if tool == "label-studio" else _write_cvat
    count = write(folder, _counted(tasks, on_images), store.class_names, url)
    return Tasks(folder=folder, num_images=count, num_gone=len(rows) - count)


def rows_to_review(
    store: Store,
    query: str,
    num_images: int,
    parameters: Mapping[str, object],
    on_note: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Return the rows of a query that names images, each image once.

    Args:
        store: The store.
        query: Saved query whose rows have a ``sample_id``.
        num_images: At most.
        parameters: The query's own.
        on_note: Called with a line for people.

    Raises:
        InputError: If it names no images.
    """
    takes = {parameter.name for parameter in saved_query(query).parameters}
    most = {_NUM_IMAGES: num_images} if _NUM_IMAGES in takes else {}
    given: dict[str, Any] = {**most, **parameters}
    found = run_query(store, query, on_note=on_note, **given)
    if "sample_id" not in found.column_names:
        raise InputError(
            f"the query {query} has the columns {', '.join(found.column_names)}; wanted "
            "sample_id among them"
        )
    rows = {row["sample_id"]: row for row in reversed(found.to_pylist())}
    return list(reversed(rows.values()))[:num_images]


def _counted(tasks: Iterator[Task], on_images: Callable[[int], None]) -> Iterator[Task]:
    for task in tasks:
        yield task
        on_images(1)


def tasks_of(store: Store, rows: Sequence[Mapping[str, Any]]) -> Iterator[Task]:
    """Yield what is known of each image, in the order of the rows."""
    for start in range(0, len(rows), _ROWS):
        part = {row["sample_id"]: row for row in rows[start : start + _ROWS]}
        labels = _newest_labels(store, list(part))
        images = {image["sample_id"]: image for image in _images(store, list(part))}
        for sample_id, row in part.items():
            image = images.get(sample_id)
            if image is None or not image["bytes"]:
                continue
            yield Task(
                sample_id=sample_id,
                data=image["bytes"],
                width=image["width"],
                height=image["height"],
                key=image["key"],
                said={name: row[name] for name in _SAID if name in row},
                label=labels.get(sample_id),
            )


def _images(store: Store, ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    columns = dict.fromkeys((*IMAGE_COLUMNS, "sample_id", "key", "width", "height"))
    where = pc.field("sample_id").isin(list(ids)) & (pc.field("verdict") == ACCEPTED)
    rows = store.table("images").read(columns=list(columns), where=where)
    for batch in rows.to_batches():
        data = image_bytes(batch, tolerant=True)
        names = [name for name in batch.schema.names if name != "image"]
        known = batch.select(names).append_column("bytes", data)
        yield from known.to_pylist()


def _newest_labels(store: Store, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Return the newest label of each image that has one."""
    order = {of: number for number, of in enumerate(labels_in_order(store))}
    rows: pa.Table = store.table("soft_labels").read(
        columns=["sample_id", "class_id", "confidence", "teacher_id", "iteration"],
        where=pc.field("sample_id").isin(list(ids)),
    )
    found: dict[int, dict[str, Any]] = {}
    for row in sorted(
        rows.to_pylist(), key=lambda row: order[row["teacher_id"], row["iteration"]]
    ):
        found[row["sample_id"]] = row
    return found


def _write_label_studio(
    folder: Path, tasks: Iterator[Task], class_names: Sequence[str], url: str | None
) -> int:
    """Write tasks.json with images inside, or beside it; return how many."""
    count = 0
    choices = "".join(
        f"    <Choice value={quoteattr(name)}/>\n" for name in (*class_names, EXCLUDE)
    )
    config = (
        '<View>\n  <Image name="image" value="$image"/>\n'
        '  <Choices name="label" toName="image" choice="single-radio" showInline="true">\n'
        f"{choices}  </Choices>\n</View>\n"
    )
    (folder / "config.xml").write_text(config, encoding="utf-8")
    if url is not None:
        (folder / "images").mkdir()
    with (folder / "tasks.json").open("w", encoding="utf-8") as file:
        for task in tasks:
            file.write(",\n" if count else "[\n")
            file.write(json.dumps(_label_studio_task(task, folder, class_names, url)))
            count += 1
        file.write("\n]\n" if count else "[]\n")
    return count


def _label_studio_task(
    task: Task, folder: Path, class_names: Sequence[str], url: str | None
) -> dict[str, Any]:
    if url is None:
        encoded = base64.b64encode(task.data).decode()
        place = f"data:image/{task.kind};base64,{encoded}"
    else:
        (folder / "images" / task.name).write_bytes(task.data)
        place = f"{url.rstrip('/')}/{task.name}"
    about = {"sample_id": task.sample_id, "key": task.key, **task.said}
    made: dict[str, Any] = {"data": {"image": place, **about}}
    if task.label is not None:
        choice = {"choices": [class_names[task.label["class_id"]]]}
        chosen = {"from_name": "label", "to_name": "image", "type": "choices", "value": choice}
        made["predictions"] = [
            {
                "model_version": f"{task.label['teacher_id']}@{task.label['iteration']}",
                "score": task.label["confidence"],
                "result": [chosen],
            }
        ]
    return made


def _write_cvat(
    folder: Path, tasks: Iterator[Task], class_names: Sequence[str], _: str | None
) -> int:
    """Write images, their tags, and the labels of the task; return how many images."""
    (folder / "images").mkdir()
    labels = [{"name": x, "type": "tag", "attributes": []} for x in (*class_names, EXCLUDE)]
    (folder / "labels.json").write_text(json.dumps(labels, indent=1), encoding="utf-8")
    count = 0
    with (folder / "annotations.xml").open("w", encoding="utf-8") as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n')
        file.write("  <version>1.1</version>\n")
        for task in tasks:
            (folder / "images" / task.name).write_bytes(task.data)
            size = f'width="{task.width}" height="{task.height}"'
            file.write(f'  <image id="{count}" name="{task.name}" {size}>\n')
            if task.label is not None:
                name = quoteattr(class_names[task.label["class_id"]])
                file.write(f'    <tag label={name} source="auto"></tag>\n')
            file.write("  </image>\n")
            count += 1
        file.write("</annotations>\n")
    return count
