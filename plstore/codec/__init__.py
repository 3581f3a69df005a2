"""A class distribution to columns and back: one pure pair of functions per codec."""

from plstore.codec.topk import decode, encode, statistics

__all__ = ["decode", "encode", "statistics"]
