"""Images that are also among those held out: the same bytes, or nearly the same picture."""

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.dataset
from PIL import Image

from plstore.errors import InputError, MissingExtraError
from plstore.images import IMAGE_COLUMNS, image_bytes, large_images_are_verdicts
from plstore.schema import ACCEPTED, HELD_OUT
from plstore.store import Store

_BITS = 64
_MAX_DISTANCE = 8

_Hashes = npt.NDArray[np.uint64]
_Ids = npt.NDArray[np.int64]


def find_duplicates(
    store: Store, *, max_distance: int = 4, on_images: Callable[[int], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Return images to train on that are held out as well: for validation, test or evaluation.

    A picture's 64-bit perceptual hash (pHash, of the ImageHash package) changes by few bits
    when it is scaled, recompressed or retouched. Plain pictures, such as a white page, all have
    nearly the same one: look before you exclude.

    Args:
        store: The store.
        max_distance: Bits, 0 to 8, that two hashes may differ in; 0 finds the same hash alone.
        on_images: Called with the number of images just hashed.

    Returns:
        One row a labeled or unlabeled image, with the nearest held-out one: sample_id, key,
        split, kind (same_bytes or near), duplicate_of, its split, and distance in bits.

    Raises:
        InputError: If max_distance is not 0 to 8.
        MissingExtraError: If the ImageHash package is not installed.
    """
    if not 0 <= max_distance <= _MAX_DISTANCE:
        raise InputError(f"max distance is {max_distance}; wanted 0 to {_MAX_DISTANCE} bits")
    ids, splits, digests, hashes = _hash_images(store, on_images)
    held = np.isin(splits, HELD_OUT)
    near = _nearest(hashes[~held], hashes[held], max_distance)
    same = {digest: n for n, digest in enumerate(digests[held])}
    train_ids, train_splits = ids[~held], splits[~held]
    rows = []
    for n, digest in enumerate(digests[~held]):
        match, kind, distance = same.get(digest), "same_bytes", 0
        if match is None and n in near:
            (match, distance), kind = near[n], "near"
        if match is not None:
            rows.append(
                {
                    "sample_id": int(train_ids[n]),
                    "split": str(train_splits[n]),
                    "kind": kind,
                    "duplicate_of": int(ids[held][match]),
                    "held_out_split": str(splits[held][match]),
                    "distance": distance,
                }
            )
    return rows


def _accepted(store: Store) -> pyarrow.dataset.Scanner:
    return (
        store.table("images")
        .dataset()
        .scanner(
            columns=[*IMAGE_COLUMNS, "split"],
            filter=pc.field("verdict") == ACCEPTED,
            batch_size=256,
            batch_readahead=1,
            fragment_readahead=1,
            use_threads=False,
        )
    )


def _hash_images(
    store: Store, on_images: Callable[[int], None]
) -> tuple[_Ids, npt.NDArray[np.str_], npt.NDArray[np.str_], _Hashes]:
    scanner = _accepted(store)
    ids: list[_Ids] = [np.empty(0, np.int64)]
    hashes: list[int] = []
    names: dict[str, list[str]] = {"split": [], "content_hash": []}
    with ThreadPoolExecutor() as pool, large_images_are_verdicts():  # they were, at import
        for batch in scanner.to_batches():
            ids.append(batch["sample_id"].to_numpy())
            for name in names:
                names[name] += batch[name].to_pylist()
            hashes += pool.map(_perceptual_hash, image_bytes(batch).to_pylist())
            on_images(batch.num_rows)
    return (
        np.concatenate(ids),
        np.array(names["split"], dtype=np.str_),
        np.array(names["content_hash"], dtype=np.str_),
        np.array(hashes, np.uint64),
    )


def _perceptual_hash(data: bytes) -> int:
    try:
        import imagehash
    except ModuleNotFoundError as error:
        raise MissingExtraError("ImageHash", "exchange", "finding near-duplicates") from error
    with Image.open(io.BytesIO(data)) as image:
        return int(str(imagehash.phash(image)), 16)


def _nearest(
    queries: _Hashes, targets: _Hashes, max_distance: int
) -> dict[int, tuple[int, int]]:
    """Return for each query that has one its nearest target and the distance.

    Two hashes that differ in at most d bits agree in at least one of d + 1 bands of bits.
    """
    nearest: dict[int, tuple[int, int]] = {}
    for shift, mask in _bands(max_distance + 1):
        keys = (targets >> shift) & mask
        order = np.argsort(keys, kind="stable")
        wanted = (queries >> shift) & mask
        first = np.searchsorted(keys[order], wanted, side="left")
        last = np.searchsorted(keys[order], wanted, side="right")
        for query in np.flatnonzero(first < last).tolist():
            candidates = order[first[query] : last[query]]
            distances = np.bitwise_count(targets[candidates] ^ queries[query])
            best = int(distances.argmin())
            found = int(candidates[best]), int(distances[best])
            if found[1] <= min(max_distance, nearest.get(query, found)[1]):
                nearest[query] = found
    return nearest


def _bands(count: int) -> Iterator[tuple[np.uint64, np.uint64]]:
    edges = np.linspace(0, _BITS, count + 1).astype(int).tolist()
    for start, end in pairwise(edges):
        yield np.uint64(start), np.uint64((1 << (end - start)) - 1)
