"""SQL functions over soft labels: probabilities, distributions, and how far apart they are.

| function | value |
|---|---|
| ``prob(label, class_id)`` | probability of a class, 0 to 1 |
| ``dense(label)`` | the whole distribution, float[] by class id |
| ``entropy(label)`` | of the distribution, in nats |
| ``kl(a, b)`` | Kullback-Leibler divergence of a from b, in nats |
| ``js(a, b)`` | Jensen-Shannon divergence, in nats: 0 to ln 2 |
| ``class_name(class_id)`` | name of a class |
| ``wilson_low(share, num)``, ``wilson_high(share, num)`` | ends of a share's 95 % interval |
| ``confidence_bucket(confidence)``, ``lottery(sample_id, seed)`` | as selection uses them |
| ``neighbors``, ``similar_pairs`` | of embeddings: see `plstore.query.neighbors` |
"""

from collections.abc import Callable
from functools import cache

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from duckdb.func import PythonUDFType

from plstore.codec import decode
from plstore.errors import InputError
from plstore.query.macros import create_macros
from plstore.query.neighbors import create_neighbors
from plstore.schema import LABEL_TYPE

_Floats = npt.NDArray[np.float32]

_LABEL_SQL = "struct(class_ids integer[], probs float[], residual float, tail blob)"
_FLOOR = np.float32(1e-12)
_CHUNK_FLOATS = 2**22  # of distributions in memory at once: 16 MB
_MOST_IN_LISTS = 2**31 - 1

_PROB = """
create macro prob(label, class_id) as
case
    when class_id is null then null
    when list_contains(label.class_ids, class_id)
        then label.probs[list_position(label.class_ids, class_id)]
            / (list_sum(label.probs) + label.residual)
    when class_id < 0 or class_id >= {num_classes} then null
    when label.tail is null
        then label.residual / ({num_classes} - len(label.class_ids))
            / (list_sum(label.probs) + label.residual)
    else dense(label)[class_id + 1]
end
"""

_CLASS_NAME = """
create macro class_name(number) as (
    select any_value(classes.name) from classes where classes.class_id = number
)
"""

# Wilson's score interval of a binomial share, without correction for continuity.
_WILSON = """
create macro wilson_{end}(share, num) as
(
    share + {z2} / (2 * num) {sign} {z} * sqrt((share * (1 - share) + {z2} / (4 * num)) / num)
) / (1 + {z2} / num)
"""
_Z = 1.959963984540054  # of 95 %, two-sided


def create_functions(connection: duckdb.DuckDBPyConnection, num_classes: int) -> None:
    """Add the functions of the module to a connection that is not locked yet.

    Args:
        connection: With the table `classes`.
        num_classes: Of the store.
    """
    for name, function in (("label_entropy", _entropy), ("kl", _kl), ("js", jensen_shannon)):
        arity = 1 if function is _entropy else 2
        _add(connection, name, _numbers(function, num_classes), arity, "float")
    _add(connection, "dense", _lists(num_classes), 1, "float[]")
    # DuckDB has an aggregate of this name, which a function cannot take and a macro can.
    connection.execute("create macro entropy(label) as label_entropy(label)")
    connection.execute(_PROB.format(num_classes=num_classes))
    connection.execute(_CLASS_NAME)
    for end, sign in (("low", "-"), ("high", "+")):
        connection.execute(_WILSON.format(end=end, sign=sign, z=_Z, z2=_Z**2))
    create_macros(connection)
    create_neighbors(connection)


def _add(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    function: Callable[..., pa.Array],
    arity: int,
    returns: str,
) -> None:
    label = connection.sqltype(_LABEL_SQL)
    connection.create_function(
        name, function, [label] * arity, connection.sqltype(returns), type=PythonUDFType.ARROW
    )


def _distributions(labels: pa.ChunkedArray, num_classes: int) -> _Floats:
    """Return labels as distributions; zeros for those that are null.

    Raises:
        InputError: If one that is not null is no distribution: SQL can make such labels.
    """
    array = labels.combine_chunks() if isinstance(labels, pa.ChunkedArray) else labels
    array = array.cast(LABEL_TYPE)
    with np.errstate(all="ignore"):  # what comes of no distribution is seen below
        rows = decode(array, num_classes)
    _check(array, rows)
    return rows


def _check(labels: pa.StructArray, rows: _Floats) -> None:
    """Refuse labels that are no distributions; `rows` are they, decoded.

    Decoded rows sum to 1 where no number is below 0, one is above it, and no class is twice.
    """
    class_ids, probs, residual, _ = labels.flatten()
    counts = class_ids.value_lengths().fill_null(0)
    if not counts.equals(probs.value_lengths().fill_null(0)):
        raise InputError("a label holds more or fewer classes than probabilities")
    rests = residual.fill_null(0).to_numpy(zero_copy_only=False)
    for numbers in (probs.flatten().to_numpy(), rests):
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < np.inf:
            raise InputError(
                f"a label is no distribution: it holds {numbers.min()} to {numbers.max()}; "
                "wanted numbers of 0 to 1"
            )
    ids, lengths = class_ids.flatten().to_numpy(), counts.to_numpy()
    places = np.repeat(np.arange(len(labels)) * rows.shape[1], lengths) + ids
    held = np.zeros(rows.size, bool)
    held[places] = True
    if np.count_nonzero(held) != len(places):
        raise InputError("a label is no distribution: it holds a class twice")
    is_there = labels.is_valid().to_numpy(zero_copy_only=False)
    first = places[(np.cumsum(lengths) - lengths)[lengths > 0]]
    if not (lengths[is_there].all() and (rows.reshape(-1)[first] > 0).all()):
        raise InputError("a label is no distribution: its first class has no probability")


# Kept for good, one a number of classes: DuckDB calls them from cursors, which may outlive the
# connection that they were added to, and does not own them.
@cache
def _lists(num_classes: int) -> Callable[[pa.ChunkedArray], pa.Array]:
    def dense(labels: pa.ChunkedArray) -> pa.Array:
        if len(labels) * num_classes > _MOST_IN_LISTS:
            raise InputError(
                f"dense of {len(labels)} labels of {num_classes} classes at once; ask for "
                "fewer rows, or for prob(label, class_id)"
            )
        rows = _distributions(labels, num_classes)
        offsets = np.arange(len(rows) + 1, dtype=np.int32) * num_classes
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(rows.reshape(-1)))

    return dense


@cache
def _numbers(function: Callable[..., _Floats], num_classes: int) -> Callable[..., pa.Array]:
    """Return a function of label columns from one of distributions, float32 [rows, classes]."""
    step = max(_CHUNK_FLOATS // max(num_classes, 1), 1)

    def value(*columns: pa.ChunkedArray) -> pa.Array:
        parts = []
        for start in range(0, len(columns[0]), step):
            rows = [_distributions(c.slice(start, step), num_classes) for c in columns]
            parts.append(function(*rows))
        return pa.array(np.concatenate(parts) if parts else np.zeros(0, np.float32))

    def one(a: pa.ChunkedArray) -> pa.Array:
        return value(a)

    def two(a: pa.ChunkedArray, b: pa.ChunkedArray) -> pa.Array:
        return value(a, b)

    return one if function is _entropy else two


def _entropy(p: _Floats) -> _Floats:
    return np.asarray(-np.sum(p * np.log(np.maximum(p, _FLOOR)), axis=1), np.float32)


def _kl(p: _Floats, q: _Floats) -> _Floats:
    ratio = np.log(np.maximum(p, _FLOOR)) - np.log(np.maximum(q, _FLOOR))
    return np.asarray(np.maximum(np.sum(p * ratio, axis=1), 0), np.float32)


def jensen_shannon(p: _Floats, q: _Floats) -> _Floats:
    """Return the divergence of distributions in nats, float32 [rows], 0 to ln 2.

    Args:
        p: float32 [rows, classes].
        q: The same.
    """
    middle = (p + q) * np.float32(0.5)
    return (_kl(p, middle) + _kl(q, middle)) * np.float32(0.5)
