"""The README.md of an export: what it is, where it came from, and front matter for the hub."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plstore.version import __version__


def write_card(
    folder: Path,
    kind: str,
    card: Mapping[str, Any],
    counts: Counter[str],
    class_names: tuple[str, ...],
) -> None:
    """Write the card of an export of some kind, with the number of images of each sort."""
    title, what = card["title"], card["what"]
    lines = [
        *_front(kind),
        f"# {title}",
        "",
        f"{what[0].upper()}{what[1:]}, as {kind}.",
        "",
        *_rows(card, counts, class_names),
        "`probabilities` is the target: one-hot for labeled images, the teacher's soft",
        "label for pseudo-labeled ones; `copies` is how often an epoch draws the image, and",
        "`weight` what each draw counts for in the loss.",
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _front(kind: str) -> list[str]:
    front = ["---", "task_categories:", "- image-classification", "tags:", "- pseudo-labels"]
    if kind == "parquet":
        front += ["configs:", "- config_name: default", "  data_files: data/train.parquet"]
    return [*front, "---", ""]


def _rows(
    card: Mapping[str, Any], counts: Counter[str], class_names: tuple[str, ...]
) -> list[str]:
    lines = ["| what | value |", "|---|---|"]
    lines += [f"| {name} images | {number} |" for name, number in sorted(counts.items())]
    lines += [f"| classes | {len(class_names)}: {', '.join(class_names[:20])} |"]
    for name, value in card.items():
        if name not in {"title", "what"} and value:
            text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            lines.append(f"| {name} | `{text}` |")
    return [*lines, f"| written by | plstore {__version__} |", ""]
