"""The pages of the app: each draws what a module of data found."""

from plstore.ui.desk import Desk
from plstore.ui.pages import (
    comparison,
    grid,
    image,
    overview,
    review,
    runs,
    sql,
    thresholds,
    views,
)
from plstore.ui.pages.frame import add_page


def add_pages(desk: Desk) -> None:
    """Make all pages known to NiceGUI."""
    add_page(desk, "/", overview.draw)
    add_page(desk, "/thresholds", thresholds.draw)
    add_page(desk, "/grid", grid.draw)
    add_page(desk, "/image", image.draw)
    add_page(desk, "/compare", comparison.draw)
    add_page(desk, "/view", views.draw)
    add_page(desk, "/runs", runs.draw)
    add_page(desk, "/sql", sql.draw)
    add_page(desk, "/review", review.draw)
