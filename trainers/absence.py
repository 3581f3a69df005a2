"""Images that were left in place and whose files are gone: whatever looks at images says so."""

from collections.abc import Callable

from plstore.images import mark_gone
from plstore.store import Store


def leave_out_gone(store: Store, say: Callable[[str], None]) -> None:
    """Leave out images that were left in place while their files are gone, and say how many.

    Raises:
        InputError: If no image of a split is left.
        CommitConflictError: If another writer changed the same images at the same time.
    """
    gone = mark_gone(store)
    if len(gone.ids):
        say(f"  {gone}")
