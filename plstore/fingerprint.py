"""Identity of contents: image bytes, files, and plain values."""

import json
from collections.abc import Mapping
from pathlib import Path

import xxhash

_CHUNK_BYTES = 1 << 20


def content_hash(data: bytes | memoryview) -> str:
    """Return the XXH3-128 of bytes as 32 hexadecimal digits: identity, not authentication."""
    return xxhash.xxh3_128_hexdigest(data)


def file_hash(path: Path) -> str:
    """Return the XXH3-128 of a file's bytes, read in chunks of 1 MiB."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def value_hash(value: Mapping[str, object]) -> str:
    """Return a 16-digit hexadecimal identity of a JSON-like value."""
    return xxhash.xxh3_64_hexdigest(canonical_json(value).encode())
