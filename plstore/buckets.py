"""How object stores are asked: retries and large files of both clients, and what errors mean.

Files go through fsspec (of S3: s3fs, which is botocore), logs of tables through delta-rs. The
usual variables AWS_MAX_ATTEMPTS and AWS_RETRY_MODE are for both.
"""

import os
import re
from collections.abc import Iterator
from typing import Any, Final

from plstore.errors import BucketError, InputError

PART_BYTES: Final = 32 << 20
"""Files of twice as much or more are uploaded in parts, several at once, each tried again."""

_ATTEMPTS: Final = 10
_MODE: Final = "standard"
_RETRY_SECONDS: Final = 180
_S3: Final = frozenset({"s3", "s3a"})
_EXPIRED: Final = re.compile(
    r"ExpiredToken|RequestExpired|TokenRefreshRequired|(token|credentials?)\W+(has|have)\W+expired",
    re.IGNORECASE,
)
_REFUSED: Final = re.compile(
    r"Forbidden|AccessDenied|Access Denied|InvalidAccessKeyId|SignatureDoesNotMatch"
    r"|InvalidToken|NoCredentials|Unable to locate credentials|\b403\b"
)
_THROTTLED: Final = re.compile(r"SlowDown|reduce your request rate|\b503\b|TooManyRequests")


def max_attempts() -> int:
    """Return how often a request is sent, at most.

    Raises:
        InputError: If AWS_MAX_ATTEMPTS is no whole number above 0.
    """
    text = os.environ.get("AWS_MAX_ATTEMPTS", str(_ATTEMPTS))
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"AWS_MAX_ATTEMPTS is {text!r}; wanted a whole number above 0")
    return int(text)


def fsspec_options(protocol: str) -> dict[str, Any]:
    """Return the options of fsspec's file system for a kind of URL."""
    if protocol not in _S3:
        return {}
    mode = os.environ.get("AWS_RETRY_MODE", _MODE)
    return {"config_kwargs": {"retries": {"mode": mode, "total_max_attempts": max_attempts()}}}


def upload_options(protocol: str) -> dict[str, Any]:
    """Return the options of writing a whole file."""
    return {"chunksize": PART_BYTES} if protocol in _S3 else {}


def delta_options(url: str) -> dict[str, str] | None:
    """Return the options of delta-rs for a table's URL; None for a folder."""
    if url.partition("://")[0] not in _S3:
        return None
    return {"max_retries": str(max_attempts() - 1), "retry_timeout": f"{_RETRY_SECONDS}s"}


def meaning(error: BaseException) -> str | None:
    """Return what an object store's error means and what to do, or None where it says enough.

    Each client has its own errors, whose texts alone have the store's code.
    """
    if getattr(error, "filename", None) is not None:
        return None  # of a folder
    texts = [text for cause in _causes(error) for text in (str(cause), _code(cause))]
    found = " ".join(texts)
    if _EXPIRED.search(found):
        return (
            "the credentials have expired: renew them, then run the same command again; what "
            "was committed stays, and it goes on from there"
        )
    is_refused = any(isinstance(cause, PermissionError) for cause in _causes(error))
    if is_refused or _REFUSED.search(found):
        return (
            "access was refused: the credentials are missing or wrong, may not do this, or "
            "have expired. Set or renew them, then run the same command again; what was "
            "committed stays, and it goes on from there"
        )
    if _THROTTLED.search(found):
        return (
            f"the store was too busy at each of {max_attempts()} attempts (SlowDown): run the "
            "same command again with fewer workers, or a higher AWS_MAX_ATTEMPTS; what was "
            "committed stays, and it goes on from there"
        )
    return None


def stopped(what: str, error: BaseException) -> BucketError | None:
    """Return the error to raise where a bucket stopped something, None where it did not."""
    why = meaning(error)
    return None if why is None else BucketError(f"{what}: {why}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _code(error: BaseException) -> str:
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
