"""The paper's own run through plstore: bytes, files, requests, hours, dollars, by arithmetic.

    python -m benchmarks.capacity [--json FILE] [--page FILE] [--cards 512] [--image-bytes N] …

Every figure is measured (`benchmarks/results`), counted by a dry run of the recipe
`imagenet_b7_l2`, or an input of `Inputs`. `docs/scale.md` holds what this prints.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from plstore.report.output import render
from plstore.storage import write_atomically

RESULTS: Final = Path(__file__).parent / "results"
_FILE_BYTES: Final = 256 << 20
_FILE_IMAGES: Final = 8192
_RANGE: Final = 65_536
_ROW_GROUP_BYTES: Final = 8 << 20
_CHECKPOINT_COMMITS: Final = 100
_COMMIT_SECONDS: Final = 30.0
_COMMIT_FILES: Final = 256


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is assumed, not measured.

    Attributes:
        cards: GPUs, all of them at each step.
        image_bytes: Mean of an image.
        dollars_card_hour: Of one A100 80GB.
        dollars_gb_month: Of stored bytes.
        dollars_million_reads: Of GET and HEAD.
        dollars_million_writes: Of PUT and LIST.
        months: That everything is kept.
        gb_a_second: That the network carries into the hosts, together.
    """

    cards: int = 512
    image_bytes: int = 110_000
    dollars_card_hour: float = 2.0
    dollars_gb_month: float = 0.023
    dollars_million_reads: float = 0.4
    dollars_million_writes: float = 5.0
    months: float = 2.0
    gb_a_second: float = 10.0


Row = dict[str, Any]


def _measured(name: str, case: str, metric: str, contender: str = "plstore") -> float:
    """Return a figure of a dated result."""
    rows = json.loads((RESULTS / f"{name}.json").read_text())
    key = (case, contender, metric)
    found = [
        row["value"] for row in rows if (row["case"], row["contender"], row["metric"]) == key
    ]
    if not found:
        raise SystemExit(f"{name}.json has no {key}")
    return float(found[0])


def steps() -> list[Row]:
    """Return the dry run of the recipe, step by step, without its total."""
    rows: list[Row] = json.loads((RESULTS / "2026-11-27-dry-run.json").read_text())
    return [row for row in rows if row["step"] != "total"]


def _images() -> int:
    return int(next(row["images"] for row in steps() if row["step"].startswith("label-")))


def stored(given: Inputs) -> list[Row]:
    """Return what is kept: rows, files, bytes, dollars a month."""
    pool = next(int(row["images"]) for row in steps() if row["step"] == "import")
    a_file = min(_FILE_IMAGES, _FILE_BYTES // given.image_bytes)
    found = [
        _kept(
            "images, packed", pool, math.ceil(pool / a_file), pool * given.image_bytes, given
        ),
    ]
    codec = "2026-11-22-codec"
    case, metric = "1000-classes-simulated", "bytes_per_row_all_columns"
    num_labels, ranges = 3 * _images(), 3 * math.ceil(_images() / _RANGE)
    for contender in ("topk10-compact", "topk20-compact", "dense"):
        size = _measured(codec, case, metric, contender)
        name = f"labels of three iterations, {contender}"
        found.append(_kept(name, num_labels, ranges, num_labels * size, given))
    size = _measured(codec, case, "bytes_per_row", "float32")
    name = "the same as float32, not kept"
    found.append(_kept(name, num_labels, ranges, num_labels * size, given))
    views = [row for row in steps() if row["step"].startswith("select-")]
    size = sum(row["store, GB"] for row in views) * 1e9
    rows = sum(int(row["images"]) for row in views)
    found.append(
        _kept("views by reference, three", rows, math.ceil(rows / 131_072), size, given)
    )
    return found


def _kept(what: str, rows: int, files: int, size: float, given: Inputs) -> Row:
    gigabytes = size / 1e9
    return {
        "what": what,
        "rows, M": round(rows / 1e6, 1),
        "files": files,
        "GB": round(gigabytes, 1),
        "$ a month": round(gigabytes * given.dollars_gb_month, 2),
    }


def asked(given: Inputs) -> list[Row]:
    """Return the requests of every step: what a file more takes, times the files.

    A commit looks for its transaction in every entry since the last checkpoint, fifty in the
    mean: three times of an import, twice of a labeling. One of an import has the files of half
    a minute; what it asks beside the log is what an import file by file asks more.
    """
    files = int(stored(given)[0]["files"])
    ranges = math.ceil(_images() / _RANGE)
    images_a_range = math.ceil(_RANGE / (_images() / files))
    mean = _CHECKPOINT_COMMITS / 2
    commits = _import_commits(given)
    found = [
        _priced(
            "import",
            _each("import", *_READS) * files + (_more(*_READS) + 3 * mean) * commits,
            _each("import", *_WRITES) * files + _more(*_WRITES) * commits,
            given,
        ),
        _requests("label, a set", "label", ranges, 2 * mean + 8 * images_a_range, given),
        _requests("select, by reference", "select-reference", files, 0, given),
        _requests("SQL over a label set", "sql", ranges, 0, given),
        _requests("verify", "verify", files, 0, given),
        _requests("collect", "collect", files, 0, given),
    ]
    draws = next(row for row in steps() if row["step"] == "train-1")
    a_group = max(_ROW_GROUP_BYTES // given.image_bytes, 1)
    reads = math.ceil(int(draws["images"]) / a_group)
    found.append(_priced("train a student, a row group a GET", reads, 0, given))
    return found


_READS: Final = ("GET", "HEAD")
_WRITES: Final = ("PUT", "LIST")


def _requests(what: str, verb: str, files: int, more_reads: float, given: Inputs) -> Row:
    reads = (_each(verb, *_READS) + more_reads) * files
    return _priced(what, reads, _each(verb, *_WRITES) * files, given)


def _each(verb: str, *kinds: str) -> float:
    """Return the requests of some kinds that a file more takes."""
    rows = json.loads((RESULTS / "2026-11-27-requests.json").read_text())
    case = f"{verb}-each-file"
    found = {row["metric"]: row["value"] for row in rows if row["case"] == case}
    return float(sum(max(found.get(kind, 0.0), 0.0) for kind in kinds))


def _more(*kinds: str) -> float:
    """Return the requests of some kinds that a commit of an import takes."""
    return max(_each("import-file-by-file", *kinds) - _each("import", *kinds), 0.0)


def _import_commits(given: Inputs) -> int:
    """Return the commits of an import by one process whose cores judge images all the time."""
    files = int(stored(given)[0]["files"])
    a_commit = _COMMIT_SECONDS / (_judging_seconds() / files)
    return math.ceil(files / min(max(a_commit, 1), _COMMIT_FILES))


def _judging_seconds() -> float:
    """Return how long one core reads and judges the images."""
    pool = next(int(row["images"]) for row in steps() if row["step"] == "import")
    return pool * _measured("2026-11-26-imports", "import-1000000-paths-first", "cpu_s") / 1e6


def _priced(what: str, reads: float, writes: float, given: Inputs) -> Row:
    dollars = reads * given.dollars_million_reads + writes * given.dollars_million_writes
    return {
        "step": what,
        "GET and HEAD, M": round(reads / 1e6, 2),
        "PUT and LIST, M": round(writes / 1e6, 2),
        "$": round(dollars / 1e6, 2),
    }


def hours(given: Inputs) -> list[Row]:
    """Return the hours of cards, what they need of the network, and what holds a step up."""
    found = []
    for row in steps():
        cards = row["hours of A100 80GB"]
        if not cards or row["step"].startswith("evaluate"):
            continue
        wall = float(cards) / given.cards
        rate = int(row["images"]) / (3600 * wall)
        gigabytes = rate * given.image_bytes / 1e9
        found.append(
            {
                "step": row["step"],
                "card hours": round(float(cards)),
                "hours": round(wall, 2),
                "images a second": round(rate),
                "GB a second": round(gigabytes, 2),
                "held up by": "network" if gigabytes > given.gb_a_second else "cards",
                "$": round(float(cards) * given.dollars_card_hour),
            }
        )
    return found


def alone(given: Inputs) -> list[Row]:
    """Return the steps that one process does, in hours, each with what they are made of."""
    pool = next(int(row["images"]) for row in steps() if row["step"] == "import")
    files = int(stored(given)[0]["files"])
    commit = _measured("2026-11-27-scale", "1e9-rows", "commit_next_image_file_s")
    measured_files = _measured("2026-11-27-scale", "1e9-rows", "images_files")
    # It grows with the files that are there.
    commits = _import_commits(given) * (commit * files / measured_files) / 2
    select = _measured(
        "2026-11-22-select", "select-300000000-rows", "wall_s", "plstore-sidecar"
    )
    first = _measured("2026-11-27-scale", "1e9-rows", "select_wall_s")
    network = pool * given.image_bytes / 1e9 / given.gb_a_second
    rows = {
        "import: images judged, one core": _judging_seconds(),
        "import: commits, one in half a minute": commits,
        "import: bytes over the network": network,
        "select: images looked at, the first time": first * files / measured_files,
        "select: 300 M labels": select,
    }
    return [{"what": what, "hours": round(value / 3600, 3)} for what, value in rows.items()]


def total(given: Inputs) -> list[Row]:
    """Return the dollars of all of it."""
    kept = stored(given)
    named = ("images, packed", "labels of three iterations, topk20-compact")
    monthly = [
        row["$ a month"] for row in kept if row["what"] in named or "views" in row["what"]
    ]
    requests = sum(row["$"] * (1 if row["step"] == "import" else 3) for row in asked(given))
    cards = sum(float(row["hours of A100 80GB"] or 0) for row in steps())
    values = {
        "cards": cards * given.dollars_card_hour,
        "bytes kept": sum(monthly) * given.months,
        "requests": requests,
    }
    return [{"of": what, "$": round(value)} for what, value in values.items()]


PARTS: Final = {
    "stored": stored,
    "asked": asked,
    "hours": hours,
    "alone": alone,
    "total": total,
}


def written(text: str, given: Inputs) -> str:
    """Return a page with every table between its marks, such as ``<!-- stored -->``, anew.

    Raises:
        SystemExit: If the page lacks the marks of a table.
    """
    for name, part in PARTS.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        if start not in text or end not in text:
            raise SystemExit(f"the page lacks {start.strip()} or {end}")
        before, _, rest = text.partition(start)
        text = f"{before}{start}\n{markdown(part(given))}\n\n{end}{rest.partition(end)[2]}"
    return text


def markdown(rows: Sequence[Row]) -> str:
    """Return rows as a table of Markdown."""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([_text(v) for v in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: object) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the inputs, print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="where the tables go")
    parser.add_argument("--page", type=Path, help="a page whose tables are written anew")
    for field in fields(Inputs):
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, type=type(field.default), default=field.default)
    options = vars(parser.parse_args(arguments))
    target, page = options.pop("json"), options.pop("page")
    given = Inputs(**options)
    tables = {name: part(given) for name, part in PARTS.items()}
    for name, rows in tables.items():
        print(f"{name}\n{render(rows, 'table')}\n")
    if page is not None:
        write_atomically(page, written(page.read_text(), given).encode())
    if target is not None:
        write_atomically(target, json.dumps(tables, indent=1).encode())


if __name__ == "__main__":
    main()
