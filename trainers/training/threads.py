"""Threads that torch computes with on the CPU."""

import torch

from plstore.machine import num_cores


def use_threads(wanted: int | None = None) -> int:
    """Have torch compute with so many threads, or as it is, but not with more than cores.

    More threads than cores wait for one another: two on one core take 40 times as long.

    Args:
        wanted: By a recipe; None for what torch, or the environment, has.

    Returns:
        How many there are now.
    """
    threads = min(wanted or torch.get_num_threads(), num_cores())
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)
    return threads
