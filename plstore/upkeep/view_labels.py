"""What is wrong with a file of `view_labels`: labels of noised images, by draw."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from plstore.errors import StoreError
from plstore.labels import span_of

if TYPE_CHECKING:
    from plstore.store import Shard

_SUM_TOLERANCE = 5e-3


def verify_view_labels(rows: pa.Table, shard: "Shard") -> Iterator[tuple[str, str]]:
    """Yield (what, detail) of everything that is wrong with the rows of a file."""
    draws = rows["draw"].to_numpy()
    try:
        span = span_of(shard)
    except StoreError as error:
        yield "draws", str(error)
        return
    if len(draws) and not span.start <= draws.min() <= draws.max() < span.end:
        yield "draws", f"{draws.min()} to {draws.max()}; its name says otherwise"
    if (np.diff(draws) <= 0).any():
        yield "draws", "they do not ascend"
    class_ids, probs, residual, _ = rows["label"].combine_chunks().flatten()
    counts = class_ids.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    if (counts == 0).any():
        yield "label", f"row {int(np.argmax(counts == 0))} has no class"
        return
    values = probs.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    sums = np.add.reduceat(values, np.cumsum(counts) - counts) + residual.to_numpy()
    bad = ~(np.abs(sums - 1) <= _SUM_TOLERANCE)
    if bad.any():
        row = int(np.argmax(bad))
        detail = f"{int(bad.sum())} rows, such as draw {draws[row]}: sums to {sums[row]:.6f}"
        yield "probability_sum", detail
