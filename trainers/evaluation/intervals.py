"""Intervals of shares: how far an accuracy on a few images may be from that on many."""

from typing import Final

from scipy.stats import binomtest

LEVEL: Final = 0.95


def wilson(num_right: int, num_images: int) -> tuple[float, float]:
    """Return the Wilson 95 % interval of an accuracy, in percent.

    Wilson 1927, Probable inference, the law of succession, and statistical inference; of the
    common intervals the one that Brown, Cai and DasGupta 2001 advise for few images.

    Args:
        num_right: Of the images.
        num_images: 1 or more.
    """
    found = binomtest(num_right, num_images).proportion_ci(LEVEL, method="wilson")
    return 100 * float(found.low), 100 * float(found.high)


def counted(accuracy: float, num_images: int) -> int | None:
    """Return how many of the images are right; None if no count of them is that accuracy.

    Args:
        accuracy: In percent.
        num_images: That it may have been measured on.
    """
    exact = accuracy * num_images / 100
    count = round(exact)
    fits = num_images > 0 and 0 <= count <= num_images
    return count if fits and abs(exact - count) <= _ROUNDING * num_images else None


_ROUNDING: Final = 1e-9
