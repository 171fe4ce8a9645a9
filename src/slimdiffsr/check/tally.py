"""Running sums of one band: differences as a whole, by decile of the input, and by frequency."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BandTally", "Tone"]

RINGS = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2)  # cycles per input pixel
_DECILES = 10


@dataclass(frozen=True, slots=True)
class Tone:
    """How the values of a band are spread, from a sample of the input."""

    low: float  # 2nd percentile
    high: float  # 98th
    edges: NDArray[np.float64]  # (9,) between the deciles

    @classmethod
    def of(cls, samples: NDArray[Any]) -> Tone:
        """From valid values; of none, and of equal ones, the spread is 1."""
        if samples.size == 0:
            return cls(0.0, 1.0, np.linspace(0.1, 0.9, _DECILES - 1))
        exact = samples.astype(np.float64)
        low, high = np.percentile(exact, (2, 98))
        if high <= low:
            low, high = exact.min(), max(exact.max(), exact.min() + 1.0)
        edges = np.percentile(exact, np.linspace(0, 100, _DECILES + 1)[1:-1])
        return cls(float(low), float(high), edges)

    @property
    def spread(self) -> float:
        """From the low end to the high one; positive."""
        return self.high - self.low

    def levels(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Values -> [0, 255], what lies beyond the ends cut off."""
        return np.clip((values.astype(np.float64) - self.low) / self.spread, 0, 1) * 255


class BandTally:
    """Sums over blocks; every figure is in the input's units."""

    def __init__(self, tone: Tone, error: float | None) -> None:
        """tone: of the input's band; error: whose exceedance is counted, if any."""
        self.tone = tone
        self._error = error
        self._above = 0
        self._moments = np.zeros(4)  # sums of input, its square, averaged result, its square
        self._square = 0.0
        self._counts = np.zeros(_DECILES, np.int64)
        self._bias = np.zeros(_DECILES)
        self._abs = np.zeros(_DECILES)
        self._power = np.zeros((3, len(RINGS) - 1))  # input, cross, difference

    def add(
        self, lr: NDArray[np.float64], averaged: NDArray[np.float64], both: NDArray[np.bool_]
    ) -> None:
        """Blocks (h, w) of the input and of the averaged result, where both are known."""
        x, y = lr[both], averaged[both]
        difference = y - x
        self._moments += x.sum(), (x * x).sum(), y.sum(), (y * y).sum()
        self._square += float((difference**2).sum())
        if self._error is not None:
            self._above += int((np.abs(difference) > self._error).sum())
        decile = np.searchsorted(self.tone.edges, x, side="right")
        self._counts += np.bincount(decile, minlength=_DECILES)
        self._bias += np.bincount(decile, difference, minlength=_DECILES)
        self._abs += np.bincount(decile, np.abs(difference), minlength=_DECILES)

    def add_spectrum(self, lr: NDArray[np.float64], averaged: NDArray[np.float64]) -> None:
        """Blocks (h, w) without gaps."""
        window = np.outer(np.hanning(lr.shape[0]), np.hanning(lr.shape[1]))
        x, y = (np.fft.fft2((image - image.mean()) * window) for image in (lr, averaged))
        down, right = (np.fft.fftfreq(side) for side in lr.shape)
        ring = np.digitize(np.hypot(down[:, None], right), RINGS) - 1
        inside = (ring < len(RINGS) - 1) & (np.hypot(down[:, None], right) > 0)
        for k, power in enumerate((np.abs(x) ** 2, (x.conj() * y).real, np.abs(y - x) ** 2)):
            self._power[k] += np.bincount(ring[inside], power[inside], minlength=len(RINGS) - 1)

    @property
    def pixels(self) -> int:
        """Input pixels compared."""
        return int(self._counts.sum())

    @property
    def bias(self) -> float:
        """Mean difference."""
        return float(self._bias.sum() / max(self.pixels, 1))

    @property
    def mean_abs(self) -> float:
        """Mean absolute difference."""
        return float(self._abs.sum() / max(self.pixels, 1))

    @property
    def rms(self) -> float:
        """Root of the mean squared difference."""
        return float(np.sqrt(self._square / max(self.pixels, 1)))

    @property
    def contrast(self) -> float:
        """Standard deviation of the averaged result by the input's; 1 for a plain input."""
        n = max(self.pixels, 1)
        x, xx, y, yy = self._moments / n
        of_input = max(xx - x * x, 0.0)
        return float(np.sqrt(max(yy - y * y, 0.0) / of_input)) if of_input > 0 else 1.0

    @property
    def share_above(self) -> float | None:
        """Share of the pixels beyond the error, if one was named."""
        return None if self._error is None else self._above / max(self.pixels, 1)

    def frequencies(self) -> Iterator[tuple[tuple[float, float], float, float]]:
        """((from, to) in cycles per input pixel, gain, share of error) of each ring."""
        for k, (power, cross, error) in enumerate(self._power.T):
            if power > 0:
                yield (RINGS[k], RINGS[k + 1]), float(cross / power), float(error / power)

    def deciles(self) -> Iterator[tuple[tuple[float, float], float, float, int]]:
        """((from, to) in values, bias, mean absolute difference, pixels) of each decile seen."""
        edges = [self.tone.low, *self.tone.edges, self.tone.high]
        for k, count in enumerate(self._counts):
            if count:
                limits = (float(edges[k]), float(edges[k + 1]))
                yield limits, self._bias[k] / count, self._abs[k] / count, int(count)
