"""What people said in a labeling tool: of tasks that plstore wrote, or of their own.

Label Studio exports JSON: a list of tasks with annotations. (Its CSV and JSON-MIN are tables,
which `plstore correct --file` reads.) CVAT exports "CVAT for images 1.1": annotations.xml, or a
zip with it, whose tags count.
"""

import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit
from xml.parsers import expat

import pyarrow as pa

from plstore.errors import InputError
from plstore.exchange.decisions import images_in
from plstore.exchange.review_tasks import EXCLUDE
from plstore.store import Store
from plstore.upkeep import correct, exclude
from plstore.upkeep.decisions import check_images

__all__ = ["Reviewed", "import_review"]

_OWN_NAME: Final = re.compile(r"(?:.*[/\\])?plstore-([0-9]{12,})\.\w+")
_UPLOAD: Final = re.compile(r"^/data/upload/\d+/[0-9a-f]{8}-")
_PLACES: Final = ("path", "file", "key", "image")
_XML: Final = "annotations.xml"
_MOST_BYTES: Final = 1 << 30
_AUTO: Final = "auto"


@dataclass(frozen=True, kw_only=True)
class _Said:
    """What someone said of one image.

    Attributes:
        image: What the tool calls it: a path, a URL, or the sample id that plstore gave it.
        sample_id: Where the name says it.
        label: The class, or `EXCLUDE`; None where nobody said one.
        who: Said so, where the tool tells.
        is_unchanged: Whether it is what the labels said, as it was brought in.
    """

    image: str
    sample_id: int | None
    label: str | None
    who: str | None = None
    is_unchanged: bool = False


@dataclass(frozen=True, kw_only=True)
class Reviewed:
    """What became of a review.

    Attributes:
        corrected: Images whose label is another now, or was confirmed first.
        excluded: Images that were not excluded before.
        unchanged: Images whose tag is as it was brought in, which says nothing.
        without_label: Images of which nobody said anything, or that were skipped.
    """

    corrected: int
    excluded: int
    unchanged: int
    without_label: int


def import_review(
    store: Store,
    path: str | Path,
    *,
    who: str | None = None,
    unchanged_is_confirmed: bool = False,
    dataset: str | None = None,
) -> Reviewed:
    """Take over decisions of people from Label Studio's JSON or CVAT's XML.

    Images that plstore wrote are known by their sample id, others by the end of their path.
    What is left empty or skipped changes nothing and is counted.

    Args:
        store: The store.
        path: JSON of Label Studio; annotations.xml of CVAT, or a zip with it.
        who: Decided, in the record; whom the tool names, unless given, else "review".
        unchanged_is_confirmed: Whether a tag of CVAT that is as it was brought in counts as
            what someone saw: after all images were looked at.
        dataset: Of the images, where the same names are in several data sets.

    Raises:
        InputError: If it is none of these, or names an image or a class that the store does not
            have; nothing is written then.
    """
    path = Path(path)
    said = list(_read(path))
    taken = [
        each
        for each in said
        if each.label is not None and (unchanged_is_confirmed or not each.is_unchanged)
    ]
    ids = _ids(store, taken, str(path), dataset)
    by_person: dict[str, dict[int, str]] = {}
    for sample_id, each in zip(ids, taken, strict=True):
        decided = by_person.setdefault(who or each.who or "review", {})
        decided[sample_id] = str(each.label)
    if len(set(ids)) < len(ids):
        twice = next(i for i, number in Counter(ids).items() if number > 1)
        raise InputError(f"{path} says of the image {twice} twice what it is; wanted once")
    _check_classes(store, taken, path)
    check_images(store, ids)
    corrected = excluded = 0
    for person, decided in by_person.items():
        labels = {i: name for i, name in decided.items() if name != EXCLUDE}
        gone = [i for i, name in decided.items() if name == EXCLUDE]
        corrected += correct(store, labels, who=person) if labels else 0
        excluded += exclude(store, gone, reason="review", who=person) if gone else 0
    unchanged = sum(x.is_unchanged for x in said) if not unchanged_is_confirmed else 0
    return Reviewed(
        corrected=corrected,
        excluded=excluded,
        unchanged=unchanged,
        without_label=sum(each.label is None for each in said),
    )


def _ids(store: Store, taken: Sequence[_Said], source: str, dataset: str | None) -> list[int]:
    """Return the sample ids of images, each by the id in its name or by the end of its path."""
    numbered = [each.sample_id for each in taken if each.sample_id is not None]
    named = [each.image for each in taken if each.sample_id is None]
    table = pa.table({"sample_id": pa.array(numbered, pa.int64())})
    known = iter(images_in(store, table, source))
    paths = pa.table({"path": pa.array(named, pa.string())})
    found = iter(images_in(store, paths, source, dataset=dataset))
    return [next(found if each.sample_id is None else known) for each in taken]


def _check_classes(store: Store, taken: Sequence[_Said], path: Path) -> None:
    unknown = sorted({str(x.label) for x in taken} - {*store.class_names, EXCLUDE})
    if unknown:
        raise InputError(
            f"{path} has the labels {', '.join(map(repr, unknown))}, which are no classes of "
            f"the store; wanted {', '.join(store.class_names)} or {EXCLUDE}. Nothing was "
            "written"
        )


def _read(path: Path) -> Iterator[_Said]:
    if not path.is_file():
        raise InputError(f"{path} is no file; wanted Label Studio's JSON or CVAT's XML or zip")
    kind = path.suffix.lower()
    if kind == ".json":
        return _label_studio(path)
    if kind in {".xml", ".zip"}:
        return _cvat(path)
    raise InputError(
        f"{path} is neither Label Studio's JSON nor CVAT's XML or zip; a table, such as Label "
        "Studio's CSV, is for plstore correct --file"
    )


def _label_studio(path: Path) -> Iterator[_Said]:
    try:
        tasks = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is no JSON: {error}") from error
    if not isinstance(tasks, list) or not all(
        isinstance(task, dict) and isinstance(task.get("data"), dict) for task in tasks
    ):
        raise InputError(
            f"{path} is not Label Studio's JSON, a list of tasks with data and annotations; "
            "its JSON-MIN and CSV are for plstore correct --file"
        )
    for number, task in enumerate(tasks, start=1):
        where = f"{path}, task {task.get('id', number)}"
        yield _of_task(task, where)


def _of_task(task: Mapping[str, Any], where: str) -> _Said:
    data = task["data"]
    sample_id = data.get("sample_id")
    if not isinstance(sample_id, int | None) or isinstance(sample_id, bool):
        raise InputError(f"{where}: sample_id is {sample_id!r}; wanted a whole number")
    image = next((_path_of(str(data[name])) for name in _PLACES if data.get(name)), "")
    if sample_id is None and not image:
        raise InputError(
            f"{where} names no image: its data has {', '.join(data) or 'nothing'}; wanted "
            f"sample_id, or a path in one of {', '.join(_PLACES)}"
        )
    given = [x for x in task.get("annotations") or () if not x.get("was_cancelled")]
    if not given:
        return _Said(image=image, sample_id=sample_id, label=None)
    last = max(given, key=lambda x: str(x.get("updated_at") or x.get("created_at") or ""))
    chosen = [
        choice
        for result in last.get("result") or ()
        if result.get("type") == "choices"
        for choice in result["value"]["choices"]
    ]
    if len(chosen) > 1:
        raise InputError(f"{where} has the choices {', '.join(chosen)}; wanted one class")
    return _Said(
        image=image,
        sample_id=sample_id,
        label=chosen[0] if chosen else None,
        who=_person(last.get("completed_by")),
    )


def _path_of(place: str) -> str:
    """Return the path in a place that Label Studio shows: of a local file, an upload, a URL."""
    url = urlsplit(place)
    if url.scheme == "data":
        return ""
    local = parse_qs(url.query).get("d")
    path = unquote(local[0] if local else url.path)
    return _UPLOAD.sub("", path)


def _person(found: object) -> str | None:
    if isinstance(found, dict):
        return str(found.get("email") or found.get("id"))
    return None if found is None else f"Label Studio user {found}"


def _cvat(path: Path) -> Iterator[_Said]:
    for name, tags in _tags(_xml(path), str(path)):
        mine = _OWN_NAME.fullmatch(name)
        manual = [label for label, source in tags if source != _AUTO]
        labels = manual or [label for label, _ in tags]
        if len(set(labels)) > 1:
            raise InputError(
                f"{path}: image {name!r} has the tags {', '.join(labels)}; wanted one class"
            )
        yield _Said(
            image=name,
            sample_id=None if mine is None else int(mine[1]),
            label=labels[0] if labels else None,
            is_unchanged=bool(labels) and not manual,
        )


def _xml(path: Path) -> bytes:
    if path.suffix.lower() == ".xml":
        return path.read_bytes()
    try:
        with zipfile.ZipFile(path) as archive:
            size = archive.getinfo(_XML).file_size
            if size > _MOST_BYTES:
                raise InputError(f"{path}: {_XML} has {size:,} bytes; at most {_MOST_BYTES:,}")
            return archive.read(_XML)
    except (zipfile.BadZipFile, KeyError) as error:
        raise InputError(
            f"{path} is no zip with {_XML}: {error}. Export the task as 'CVAT for images 1.1'"
        ) from error


def _tags(xml: bytes, source: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return each image with its tags: labels, and who made them, "auto" or another."""
    images: list[tuple[str, list[tuple[str, str]]]] = []
    is_within = False

    def begin(element: str, attributes: dict[str, str]) -> None:
        nonlocal is_within
        if element == "image":
            images.append((attributes.get("name", ""), []))
            is_within = True
        elif element == "tag" and is_within:
            of = attributes.get("label", ""), attributes.get("source", "manual")
            images[-1][1].append(of)

    def end(element: str) -> None:
        nonlocal is_within
        is_within = is_within and element != "image"

    def refuse(*_: object) -> None:
        raise InputError(f"{source} has a DTD, which CVAT does not write; it is not read")

    parser = expat.ParserCreate()
    parser.StartElementHandler = begin
    parser.EndElementHandler = end
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(xml, True)  # noqa: FBT003  the last of it
    except expat.ExpatError as error:
        raise InputError(f"{source} is no XML: {error}") from error
    return images
