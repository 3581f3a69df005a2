"""One label space for the splits of an import: classes are matched by name, never by number."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from plstore.errors import InputError

_SHOWN = 20


def label_space(
    declared: Mapping[str, Sequence[str]],
    used: Callable[[str], Collection[str]],
    where: str,
) -> list[str]:
    """Return the classes of an import in their order: those of its labeled images.

    Where it has no labeled images, those of all splits; the store checks them against its own.

    Args:
        declared: Names of classes in their order, by split; a split may name some that no
            image has.
        used: Returns the names that images of a split have; called where it matters.
        where: What is read, for messages.

    Raises:
        InputError: If validation or test images have a class that labeled images lack.
    """
    if "labeled" not in declared:
        return list(dict.fromkeys(name for names in declared.values() for name in names))
    known = dict.fromkeys(declared["labeled"])
    for split, names in declared.items():
        strange = [name for name in names if name not in known]
        strange = [name for name in strange if name in set(used(split))] if strange else []
        if strange:
            raise InputError(
                f"{where}: the {split} images have {_listed(strange)}, which the labeled ones "
                f"lack; they have {_listed(list(known))}. Classes are matched by name"
            )
    return list(known)


def declared_names(names: object, where: str) -> list[str]:
    """Return names of classes by number, as a file or feature spells them.

    Two spellings of one name, as Unicode has them, are one class with two numbers.

    Raises:
        InputError: If they are no list of names, or one is blank or there twice.
    """
    if not isinstance(names, list | tuple):
        raise InputError(f"{where} has {names!r} for names of classes; wanted a list")
    texts = [str(name).strip() for name in names]
    twice = [name for name, count in Counter(texts).items() if count > 1 or not name]
    if twice:
        raise InputError(
            f"{where} names {_listed(twice)} twice, or not at all; wanted a name of its own "
            "for each number of a class"
        )
    return [unicodedata.normalize("NFC", text) for text in texts]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name) for name in names[:_SHOWN]) + more
