"""Folders of classes: a name each, also for classes whose own name can be none."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from plstore.errors import InputError

_LONGEST_NAME: Final = 255  # of a folder, in bytes
_BESIDE: Final = frozenset({"metadata.csv", "README.md"})


def class_folders(class_names: Sequence[str], *, taken: Collection[str] = ()) -> list[str]:
    """Return the name of a folder for each class: its own wherever that can be one.

    Of another name what a folder cannot have is percent-encoded, as in a URL: "T-shirt/top"
    has the folder "T-shirt%2Ftop", "README.md" the folder "README%2Emd".

    Args:
        class_names: By class id.
        taken: Names that no class may have.

    Raises:
        InputError: If a class is without a name, its folder's is too long, or another's too.
    """
    found = [_folder(name, taken) for name in class_names]
    for number, folder in enumerate(found):
        if not 0 < len(folder.encode()) <= _LONGEST_NAME:
            long = f"of {len(folder.encode())} bytes" if folder else "empty"
            raise InputError(
                f"class {class_names[number]!r} cannot be a folder's name: {long}, wanted 1 to "
                f"{_LONGEST_NAME}; write rows instead, whose column class names it"
            )
        if folder in found[:number]:
            other = class_names[found.index(folder)]
            raise InputError(
                f"classes {other!r} and {class_names[number]!r} would share the folder "
                f"{folder!r}; write rows instead, whose column class names them"
            )
    return found


def _folder(name: str, taken: Collection[str]) -> str:
    is_own = name not in _BESIDE and name not in taken and not name.startswith(".")
    if is_own and Path(name).name == name and "\0" not in name:
        return name
    encoded = quote(name, safe=" ").replace(".", "%2E")
    return encoded.replace("_", "%5F") if encoded in taken else encoded
