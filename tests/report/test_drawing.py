"""Lines of a lineage are looked at as they are drawn: none may cross another."""

import re
from collections.abc import Iterator
from itertools import combinations, pairwise

import pytest

from plstore.report.drawing import lineage
from plstore.report.layout import Node, laid_out

Point = tuple[float, float]
_STEPS = 6


def made(**made_of: str) -> list[Node]:
    """Return boxes: each key is ``kind_name``, its value the keys of what it came of."""
    return [
        Node(
            key=key.replace("_", ":", 1),
            title=key,
            detail="",
            made_of=tuple(one.replace("_", ":", 1) for one in of.split()),
        )
        for key, of in made_of.items()
    ]


DEMO = made(
    teacher_t0="view_labeled",
    teacher_control="view_labeled",
    teacher_t1="view_v1",
    teacher_t2="view_v2",
    teacher_t3="view_v3",
    labels_t0="teacher_t0",
    labels_t1="teacher_t1",
    labels_t2="teacher_t2",
    labels_t3="teacher_t3",
    labels_control="teacher_control",
    view_labeled="",
    view_v1="labels_t0",
    view_v2="labels_t1",
    view_v3="labels_t2",
)
FUSED = made(
    teacher_a="view_labeled",
    teacher_c="view_labeled",
    teacher_b="view_labeled",
    teacher_both="labels_a labels_b",
    teacher_student="view_chosen",
    labels_c="teacher_c",
    labels_b="teacher_b",
    labels_a="teacher_a",
    labels_both="teacher_both",
    view_labeled="",
    view_of_c="labels_c",
    view_of_a="labels_a",
    view_of_b="labels_b",
    view_chosen="labels_both",
)


def drawn(path: str) -> list[Point]:
    """Return points along an SVG path of lines and curves."""
    points: list[Point] = []
    for command, text in re.findall("([A-Z])([^A-Z]*)", path):
        numbers = [float(number) for number in text.split()]
        if command == "H":
            numbers = [numbers[0], points[-1][1]]
        here = [*points[-1:], *zip(numbers[::2], numbers[1::2], strict=True)]
        points += [along(here, n / _STEPS) for n in range(1, _STEPS + 1)] if points else here
    return points


def along(points: list[Point], share: float) -> Point:
    """Return a point of a curve of Bezier's."""
    while len(points) > 1:
        points = [
            (x1 + (x2 - x1) * share, y1 + (y2 - y1) * share)
            for (x1, y1), (x2, y2) in pairwise(points)
        ]
    return points[0]


def side(a: Point, b: Point, c: Point) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def crossings(svg: str) -> Iterator[tuple[str, str]]:
    paths = re.findall('<path d="([^"]+)"', svg)
    for one, other in combinations(paths, 2):
        for (a, b), (c, d) in (
            (p, q) for p in pairwise(drawn(one)) for q in pairwise(drawn(other))
        ):
            if side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0:
                yield one, other


@pytest.mark.parametrize("nodes", [DEMO, FUSED], ids=["three iterations", "two teachers fused"])
def test_lines_do_not_cross_and_pass_no_box(nodes: list[Node]) -> None:
    for given in (nodes, nodes[::-1]):
        layout = laid_out(given)
        svg = str(lineage(layout))
        corners = [(int(x), int(y)) for x, y in re.findall(r"translate\((\d+) (\d+)\)", svg)]
        points = [p for path in re.findall('<path d="([^"]+)"', svg) for p in drawn(path)]

        assert layout.num_crossings() == 0
        assert list(crossings(svg)) == []
        assert len(set(corners)) == len(nodes)
        assert not any(
            x < px < x + 250 and y < py < y + 54 for x, y in corners for px, py in points
        )


def test_where_lines_must_cross_as_few_as_can_be_do() -> None:
    nodes = made(
        view_a="labels_x labels_y labels_z",
        view_b="labels_x labels_y labels_z",
        labels_x="",
        labels_y="",
        labels_z="",
        view_c="labels_z",
    )

    assert laid_out(nodes).num_crossings() == 3


def test_lines_of_many_teachers_do_not_cross() -> None:
    """Of so many, neighbours are not let change places one by one."""
    teachers = {f"teacher_{n}": "" for n in range(150)}
    labels = {f"labels_{n}": f"teacher_{n}" for n in reversed(range(150))}
    views = {f"view_{7 * n % 150}": f"labels_{7 * n % 150}" for n in range(150)}
    layout = laid_out(made(**teachers, **labels, **views))

    assert len(layout.lines) == 300
    assert layout.num_crossings() == 0


def test_a_lineage_that_goes_in_a_circle_is_laid_out_all_the_same() -> None:
    nodes = made(view_a="teacher_b view_gone", teacher_b="view_a")

    assert laid_out(nodes).columns == {"view:a": 1, "teacher:b": 0}


def test_names_of_boxes_are_escaped_and_lead_somewhere_only_where_they_can() -> None:
    nodes = [Node(key="view:a", title="<b>&", detail="</svg>", made_of=())]

    assert "&lt;b&gt;&amp;" in lineage(laid_out(nodes))
    assert "<a" not in lineage(laid_out(nodes))
    assert '<a href="/view?x=1&amp;y"' in lineage(laid_out(nodes), lambda _: "/view?x=1&y")
