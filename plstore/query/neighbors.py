"""SQL functions over many vectors at once: neighbours and near pairs, by cosine, exactly.

| function | value |
|---|---|
| ``neighbors(vectors, others, k)`` | for each vector the ``k`` most similar others |
| ``similar_pairs(vectors, others, least)`` | all pairs whose cosine is ``least`` or more |

Vectors and others are lists, float[][], such as ``list(vector order by sample_id)``; places in
them count from 1, as SQL's do. Block by block they are one product of matrices, which takes a
tenth of the time of a call for each pair, and no pair is held that is not wanted.
"""

from collections.abc import Iterator
from typing import Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from duckdb.func import PythonUDFType

from plstore.errors import InputError

MOST_PAIRS: Final = 1_000_000
"""Of `similar_pairs`."""

_BLOCK_FLOATS: Final = 2**22  # similarities in memory at once: 16 MB
_SMALLEST: Final = np.float32(1e-20)
_NEIGHBOR: Final = pa.struct([("place", pa.int64()), ("similarity", pa.float32())])
_PAIR: Final = pa.struct(
    [("place", pa.int64()), ("other", pa.int64()), ("similarity", pa.float32())]
)

_Floats = npt.NDArray[np.float32]
_Places = npt.NDArray[np.int64]


def create_neighbors(connection: duckdb.DuckDBPyConnection) -> None:
    """Add the functions of the module to a connection that is not locked yet."""
    vectors = connection.sqltype("float[][]")
    for name, function, number, returns in (
        ("neighbors", _neighbors, "integer", "struct(place bigint, similarity float)[][]"),
        (
            "similar_pairs",
            _similar_pairs,
            "double",
            "struct(place bigint, other bigint, similarity float)[]",
        ),
    ):
        connection.create_function(
            name,
            function,
            [vectors, vectors, connection.sqltype(number)],
            connection.sqltype(returns),
            type=PythonUDFType.ARROW,
        )


def _neighbors(
    vectors: pa.ChunkedArray, others: pa.ChunkedArray, k: pa.ChunkedArray
) -> pa.Array:
    found = []
    for row in range(len(vectors)):
        ours, theirs, wanted = _units(vectors[row]), _units(others[row]), k[row].as_py()
        if wanted < 0:
            raise InputError(f"neighbors of k = {wanted}; wanted 0 or more")
        count = min(wanted, len(theirs))
        places = np.zeros((len(ours), count), np.int64)
        values = np.zeros((len(ours), count), np.float32)
        for start, block in _blocks(ours, theirs, count):
            here = slice(start, start + len(block))
            places[here], values[here] = _largest(block, count)
        pairs = pa.StructArray.from_arrays(
            [pa.array(places.reshape(-1) + 1), pa.array(values.reshape(-1))],
            fields=list(_NEIGHBOR),
        )
        offsets = np.arange(len(ours) + 1, dtype=np.int32) * count
        found.append(pa.ListArray.from_arrays(pa.array(offsets), pairs))
    return _as_rows(found, pa.list_(_NEIGHBOR))


def _similar_pairs(
    vectors: pa.ChunkedArray, others: pa.ChunkedArray, least: pa.ChunkedArray
) -> pa.Array:
    found = []
    for row in range(len(vectors)):
        ours, theirs, limit = _units(vectors[row]), _units(others[row]), least[row].as_py()
        places, partners, values = [_NONE], [_NONE], [np.zeros(0, np.float32)]
        count = 0
        for start, block in _blocks(ours, theirs, 1):
            here, there = np.nonzero(block >= np.float32(limit))
            count += len(here)
            if count > MOST_PAIRS:
                raise InputError(
                    f"more than {MOST_PAIRS:,} pairs have a cosine of {limit:g} or more; ask "
                    "for more similar ones"
                )
            places.append(here + start + 1)
            partners.append(there + 1)
            values.append(block[here, there])
        columns = [np.concatenate(parts) for parts in (places, partners, values)]
        found.append(pa.StructArray.from_arrays(map(pa.array, columns), fields=list(_PAIR)))
    return _as_rows(found, _PAIR)


_NONE: Final = np.zeros(0, np.int64)


def _as_rows(found: list[pa.Array], kind: pa.DataType) -> pa.Array:
    """Return a list for each row."""
    offsets = np.cumsum([0, *map(len, found)]).astype(np.int32)
    values = pa.concat_arrays(found) if found else pa.array([], kind)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _units(vectors: pa.ListScalar) -> _Floats:
    """Return vectors of length 1, float32 [vectors, features]; one of zeros stays as it is.

    Raises:
        InputError: If they are not of one length, or hold what is no finite number.
    """
    lists = vectors.values
    if not len(lists):
        return np.zeros((0, 0), np.float32)
    widths = pc.unique(pc.list_value_length(lists)).to_pylist()
    values = pc.list_flatten(lists).to_numpy(zero_copy_only=False).astype(np.float32)
    if len(widths) > 1 or not np.isfinite(values).all():
        raise InputError(
            f"vectors of {', '.join(map(str, widths[:4]))} numbers, to be compared; wanted one "
            "length, and finite numbers"
        )
    rows = values.reshape(len(lists), -1)
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    units: _Floats = rows / np.maximum(lengths, _SMALLEST)[:, None]
    return units


def _blocks(ours: _Floats, theirs: _Floats, wanted: int) -> Iterator[tuple[int, _Floats]]:
    """Yield cosines, float32 [some of ours, theirs], with the place of the first of ours."""
    if not (len(ours) and len(theirs) and wanted):
        return
    if ours.shape[1] != theirs.shape[1]:
        raise InputError(
            f"vectors of {ours.shape[1]} numbers, compared with vectors of {theirs.shape[1]}; "
            "wanted those of one model"
        )
    step = max(_BLOCK_FLOATS // len(theirs), 1)
    columns = np.ascontiguousarray(theirs.T)
    for start in range(0, len(ours), step):
        yield start, np.clip(ours[start : start + step] @ columns, -1, 1)


def _largest(block: _Floats, count: int) -> tuple[_Places, _Floats]:
    """Return the places of the largest values of each row, and these; of equals the first."""
    floor = np.partition(block, block.shape[1] - count, axis=1)[:, [block.shape[1] - count]]
    rows, places = np.nonzero(block >= floor)
    values = block[rows, places]
    order = np.lexsort((places, -values, rows))
    starts = np.searchsorted(rows, np.arange(len(block)))
    picked = order[starts[:, None] + np.arange(count)]
    return places[picked], values[picked]
