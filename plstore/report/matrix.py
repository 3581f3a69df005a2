"""Two sets of labels as a matrix of classes."""

from collections.abc import Callable

from markupsafe import Markup

from plstore.report.comparison import Comparison
from plstore.report.markup import count, html, joined, link, note

_DEEP = 62  # percent of colour from which on ink is light


def matrix(
    found: Comparison,
    name: Callable[[int], str],
    sides: tuple[str, str],
    address: Callable[[int, int], str] | None = None,
) -> Markup:
    """Return a comparison as a table of classes.

    Args:
        found: Of `plstore.report.comparison.compare`.
        name: Of a class.
        sides: What rows and columns are called.
        address: Where the images of a cell are, by its row's class and its column's; nowhere
            unless given.
    """
    head = joined(html("<th><span>{}</span></th>", name(c)) for c in found.class_ids)
    rows = []
    for place, a_id in enumerate(found.class_ids):
        total = max(int(found.matrix[place].sum()), 1)
        cells = []
        for b_id, n in zip(found.class_ids, found.matrix[place], strict=True):
            url = None if address is None else address(a_id, b_id)
            cells.append(_cell(int(n), total, url, is_same=a_id == b_id))
        rows.append(html("<tr><th>{}</th>{}</tr>", name(a_id), joined(cells)))
    shown = f"The {len(found.class_ids)} most confused of {found.num_classes:,} classes."
    return html(
        '<h2>Classes: rows by {}, columns by {}</h2><div class="scroll"><table class="matrix">'
        "<thead><tr><th></th>{}</tr></thead><tbody>{}</tbody></table></div>{}",
        *sides,
        head,
        joined(rows),
        note(shown) if found.num_classes > len(found.class_ids) else "",
    )


def _cell(number: int, total: int, address: str | None, *, is_same: bool) -> Markup:
    if not number:
        return Markup('<td style="--v:0"><span class="zero">0</span></td>')
    share = 100 * number / total
    tone = 18 + 0.72 * share if is_same else min(12 + 3 * share, 100)
    css = " ".join([*([] if is_same else ["wrong"]), *(["deep"] if tone > _DEEP else [])])
    shown = html("<span>{}</span>", count(number))
    if address is not None:
        shown = link(address, count(number), "cell")
    return html('<td class="{}" style="--v:{}">{}</td>', css, f"{tone:.0f}", shown)
