"""A histogram of distances that are seen once, row by row, and whose range is not known in advance."""

import numpy as np

NUM_BINS = 2048


class DistanceHistogram:
    """Counts the distances of right matches and of other identities in equal bins.

    The bins reach from 0 to a power of two; when a distance does not fit, the power doubles and neighbouring bins are
    added up. Powers of two make this exact: the counts are those of one pass with the final bins.

    Attributes:
        limit: Upper end of the last bin, a power of two above every distance.
        same: (NUM_BINS,) int64, right matches: same identity, other camera.
        other: (NUM_BINS,) int64, other identities.
    """

    def __init__(self) -> None:
        self.limit = 2.0**-40
        self.same = np.zeros(NUM_BINS, dtype=np.int64)
        self.other = np.zeros(NUM_BINS, dtype=np.int64)

    def add(self, row: np.ndarray, matches: np.ndarray, ignored: np.ndarray) -> None:
        """Counts one query's distances.

        Args:
            row: (G,) float, finite, at least 0.
            matches: Gallery indices of the right matches.
            ignored: Gallery indices of the images that do not count.
        """
        largest = float(row.max())
        while largest >= self.limit:
            self._double()
        bins = (row * row.dtype.type(NUM_BINS / self.limit)).astype(np.int32)
        same = np.bincount(bins[matches], minlength=NUM_BINS)
        self.same += same
        self.other += np.bincount(bins, minlength=NUM_BINS) - same
        self.other -= np.bincount(bins[ignored], minlength=NUM_BINS)

    def edges(self) -> np.ndarray:
        """Returns the bins' ends, (NUM_BINS + 1,) float64; a bin holds its lower end and not its upper."""
        return np.linspace(0, self.limit, NUM_BINS + 1)

    def medians(self) -> tuple[float, float]:
        """Returns the medians of ``same`` and ``other`` to half a bin, the lower of two; NaN of nothing."""
        return self._median(self.same), self._median(self.other)

    def _median(self, counts: np.ndarray) -> float:
        if not counts.any():
            return float("nan")
        middle = int(np.searchsorted(counts.cumsum(), counts.sum() / 2))
        return (middle + 0.5) * self.limit / NUM_BINS

    def _double(self) -> None:
        for counts in (self.same, self.other):
            counts[: NUM_BINS // 2] = counts.reshape(-1, 2).sum(axis=1)
            counts[NUM_BINS // 2 :] = 0
        self.limit *= 2
