"""Independent random streams from one run seed.

``SeedSequence([run_seed, PURPOSE, ...])`` and never ``seed + epoch``: sums of small numbers
make run 7, epoch 1 equal to run 8, epoch 0.
"""

from enum import IntEnum

import numpy as np


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


def generator(seed: int, purpose: Purpose, *path: int) -> np.random.Generator:
    """Return the generator of one stream.

    Args:
        seed: The run's seed, 0 or more.
        purpose: What the stream is for.
        *path: Further coordinates, such as (iteration, epoch).
    """
    sequence = np.random.SeedSequence([seed, int(purpose), *path])
    return np.random.Generator(np.random.Philox(sequence))


def torch_seed(seed: int, purpose: Purpose, *path: int) -> int:
    """Return a 63-bit seed for a library that wants one integer, derived as in `generator`."""
    state = np.random.SeedSequence([seed, int(purpose), *path]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
