"""Whether a server answers, asked once: libraries that download go on asking for minutes.

The question goes the way that the download would: through the same client, proxies and
certificates. A name that is being looked up cannot be interrupted, so a thread asks, and is
left behind when the time is over.
"""

import os
import ssl
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Final
from urllib.error import URLError
from urllib.request import Request, urlopen

SECONDS: Final = 6.0
_TRUE: Final = {"1", "ON", "YES", "TRUE"}


def hub_endpoint() -> str:
    """Return the address of the Hugging Face hub: `HF_ENDPOINT`, or its own."""
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


def why_hub_is_out_of_reach(
    repository: str, file: str, *, kind: str = "model", revision: str | None = None
) -> str | None:
    """Return why a repository of the Hugging Face hub cannot be read now; None where it can.

    It takes 6 seconds at most, and none where `HF_HUB_OFFLINE` is set.

    Args:
        repository: Such as "timm/resnet18.a1_in1k".
        file: That is looked for; that it is not there is an answer too.
        kind: "model" or "dataset".
        revision: The main branch unless given.
    """
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name, "").upper() in _TRUE:
            return f"{name} is set"

    def ask() -> None:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError

        url = hf_hub_url(repository, file, repo_type=kind, revision=revision)
        with suppress(EntryNotFoundError):
            get_hf_file_metadata(url, timeout=SECONDS)

    return _why_not(ask)


def why_url_is_out_of_reach(url: str) -> str | None:
    """Return why an http address cannot be read now; None where it can.

    It takes 6 seconds at most.
    """

    def ask() -> None:
        request = Request(url, method="HEAD")  # noqa: S310  the address of timm or the user
        try:
            with urlopen(request, timeout=SECONDS):  # noqa: S310
                pass
        except URLError as error:
            # whether to trust who answers is for the download to say
            if not isinstance(error.reason, ssl.SSLCertVerificationError):
                raise

    return _why_not(ask)


def _why_not(ask: Callable[[], None]) -> str | None:
    found: list[str | None] = []

    def run() -> None:
        try:
            ask()
        except Exception as error:  # noqa: BLE001  each client raises its own
            found.append((str(error) or type(error).__name__).splitlines()[0])
        else:
            found.append(None)

    thread = Thread(target=run, daemon=True, name="plstore-reach")
    thread.start()
    thread.join(SECONDS)
    return found[0] if found else f"no answer within {SECONDS:g} s"
