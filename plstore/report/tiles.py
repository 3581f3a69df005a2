"""Images as tiles: each with what labels and people say of it."""

from dataclasses import dataclass

from markupsafe import Markup

from plstore.report.markup import bar, html, joined, tag
from plstore.report.pictures import Picture


@dataclass(frozen=True, kw_only=True)
class Tile:
    """What is said of one image.

    Attributes:
        sample_id: The image.
        key: Its name.
        split: Its split.
        class_name: That its labels say, or people.
        confidence: Of the labels.
        other_name: The class that the labels compared with say.
        is_excluded: By a person.
        corrected_name: The class that a person gave.
    """

    sample_id: int
    key: str
    split: str
    class_name: str | None = None
    confidence: float | None = None
    other_name: str | None = None
    is_excluded: bool = False
    corrected_name: str | None = None


def tile(said: Tile, shot: Picture, address: str | None = None, more: str = "") -> Markup:
    """Return one image with what is said of it.

    Args:
        said: Of it.
        shot: The image.
        address: Where it leads; nowhere unless given.
        more: A line below.
    """
    marks = [
        *([tag("excluded", "bad")] if said.is_excluded else []),
        *([tag("corrected", "good")] if said.corrected_name is not None else []),
    ]
    sure = Markup("")
    if said.confidence is not None:
        sure = html(
            '<span class="line">{}<span>{}</span></span>',
            bar(said.confidence),
            f"{said.confidence:.2f}",
        )
    other = Markup("")
    if said.other_name is not None and said.other_name != said.class_name:
        other = html('<span class="other">≠ {}</span>', said.other_name)
    inner = html(
        '<span class="shot">{}</span><span class="marks">{}</span>'
        '<span class="says"><b>{}</b>{}{}{}</span>',
        drawn(shot),
        joined(marks),
        said.class_name if said.class_name is not None else said.split,
        sure,
        other,
        html('<span class="more-said">{}</span>', more) if more else "",
    )
    if address is None:
        return html('<div class="tile" title="{}">{}</div>', said.key, inner)
    return html('<a class="tile" href="{}" title="{}">{}</a>', address, said.key, inner)


def drawn(shot: Picture) -> Markup:
    """Return a picture, or why there is none."""
    if shot.why:
        return html('<span class="none">{}</span>', shot.why)
    css = "pixelated" if shot.is_small else ""
    return html('<img class="{}" alt="" src="{}">', css, Markup(shot.uri))  # noqa: S704  base64
