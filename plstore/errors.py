"""Every error that plstore raises on purpose.

* PlstoreError
  x InputError (also ValueError)      bad input: an argument, a file, a recipe, a query
    - RecipeError                     a recipe with unknown, missing or impossible values
    - QueryError                      SQL that is not one read-only SELECT, or fails
  x StoreError (also RuntimeError)    the store is not as it must be
    - StoreNotFoundError              nothing there, or no plstore store
    - BucketError                     an object store refused or was too busy; run it again
    - CommitConflictError             another writer changed what this one was changing
  x MissingExtraError (also ImportError)  an optional part of plstore is not installed

A message says what was found, where, what was wanted and what to do about it.
"""


class PlstoreError(Exception):
    """Root of the tree: ``except PlstoreError`` catches all that plstore raises on purpose."""


class InputError(PlstoreError, ValueError):
    """What was passed in cannot be used."""


class RecipeError(InputError):
    """A recipe holds unknown, missing or impossible values; the message lists all of them."""


class QueryError(InputError):
    """A query is not one read-only SELECT, its parameters are wrong, or it failed to run."""


class StoreError(PlstoreError, RuntimeError):
    """The store on disk is not what it must be."""


class StoreNotFoundError(StoreError):
    """There is no plstore store at the path."""


class BucketError(StoreError):
    """An object store refused, or was too busy at each attempt; the same command goes on."""


class CommitConflictError(StoreError):
    """Another writer changed what this commit was based on; nothing of it was written."""


class MissingExtraError(PlstoreError, ImportError):
    """An optional part is needed and not installed; the message names the extra."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        """Say which package is missing, what for, and which extra brings it."""
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed: "
            f"pip install 'plstore[{extra}]'"
        )
