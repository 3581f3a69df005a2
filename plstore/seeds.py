"""Independent random streams from one run seed.

``SeedSequence([run_seed, PURPOSE, ...])`` and never ``seed + epoch``: sums of small numbers
make run 7, epoch 1 equal to run 8, epoch 0.
"""

from enum import IntEnum

import numpy as np
import numpy.typing as npt

_PHILOX_WORDS = 4  # a counter of Philox gives four words, a double takes one


class Purpose(IntEnum):
    """What a stream is for. Numbers are part of a run's identity: never reuse one."""

    LABELED_ORDER = 2
    PSEUDO_ORDER = 3
    AUGMENTATION = 4
    MODEL_INIT = 5
    MODEL_NOISE = 6
    CONTACT_SHEET = 7
    SAMPLE = 8
    TRAINING = 9
    VIEW_GROUPS = 10
    VIEW_ROWS = 11
    TEACHER_NOISE = 12
    CORRUPTION = 14
    PERTURBATION = 15
    ATTACK = 16
    EXPORT_CHECK = 20
    POOL = 21
    INTERVAL = 22
    PRETRAINING = 23


def generator(seed: int, purpose: Purpose, *path: int) -> np.random.Generator:
    """Return the generator of one stream.

    Args:
        seed: The run's seed, 0 or more.
        purpose: What the stream is for.
        *path: Further coordinates, such as (iteration, epoch).
    """
    sequence = np.random.SeedSequence([seed, int(purpose), *path])
    return np.random.Generator(np.random.Philox(sequence))


def uniforms(
    seed: int, purpose: Purpose, *path: int, first: int, count: int, width: int
) -> npt.NDArray[np.float64]:
    """Return the random numbers of draws, by their number alone (Philox, counted).

    Draw 7 has the same numbers whether it is asked for alone or among others.

    Args:
        seed: The run's seed, 0 or more.
        purpose: What the draws are for.
        *path: Further coordinates.
        first: Number of the first draw, from 0.
        count: Draws.
        width: Numbers of a draw.

    Returns:
        float64 [count, at least width], 0 to 1.
    """
    blocks = -(-width // _PHILOX_WORDS)
    key = np.random.SeedSequence([seed, int(purpose), *path]).generate_state(2, np.uint64)
    philox = np.random.Philox(key=key, counter=first * blocks)
    return np.random.Generator(philox).random((count, blocks * _PHILOX_WORDS))


def torch_seed(seed: int, purpose: Purpose, *path: int) -> int:
    """Return a 63-bit seed for a library that wants one integer, derived as in `generator`."""
    state = np.random.SeedSequence([seed, int(purpose), *path]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def shuffle_keys(
    ids: npt.NDArray[np.int64], seed: int, purpose: Purpose
) -> npt.NDArray[np.uint64]:
    """Return a key for each id: sorted by them, ids are in a random order of the seed.

    The finaliser of SplitMix64 over the id and a seeded start: different ids have different
    keys, and an id has the same key wherever it stands.

    Args:
        ids: int64 [rows].
        seed: The run's seed, 0 or more.
        purpose: What the order is for.
    """
    start = np.random.SeedSequence([seed, int(purpose)]).generate_state(1, np.uint64)[0]
    keys = (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + start
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        keys = (keys ^ (keys >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(keys ^ (keys >> np.uint64(31)))
