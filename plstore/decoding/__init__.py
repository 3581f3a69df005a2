"""Encoded images: what a file is, whether it is sound, and how every loader reads it alike.

Nothing here knows a store. Pillow and numpy are all it needs, so that a process that only
decodes starts in a fifth of a second.
"""

from plstore.decoding.apart import decode_apart, kept_processes
from plstore.decoding.decoder import Decoded, decode, open_image, too_many
from plstore.decoding.formats import CONVERTED, KEPT, format_of
from plstore.decoding.scaled import SCALES, can_scale, decode_scaled

__all__ = [
    "CONVERTED",
    "KEPT",
    "SCALES",
    "Decoded",
    "can_scale",
    "decode",
    "decode_apart",
    "decode_scaled",
    "format_of",
    "kept_processes",
    "open_image",
    "too_many",
]
