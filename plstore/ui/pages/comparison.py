"""Not yet."""

from plstore.ui.address import Address
from plstore.ui.snapshot import Desk


async def draw(desk: Desk, address: Address) -> None:
    """Draw the page."""
