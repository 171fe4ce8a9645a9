"""The findings in one sentence, and why."""

from __future__ import annotations

from dataclasses import dataclass

from slimdiffsr.check.findings import BandFinding, Findings

__all__ = ["LIMITS", "Verdict", "judge"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a result may depart from its input by, before it is called inconsistent."""

    mean_abs: float = 0.05  # of the input's spread; its noise, which results leave out, is in it
    bias: float = 0.01  # of the input's spread
    contrast: float = 0.05
    low_frequency_error: float = 0.02  # share of power, below 1/16 cycle per input pixel
    shift_lr_px: float = 0.25
    grid_db: float = 3.0
    emptiness: float = 0.001  # share of the compared pixels


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence for people, one flag for scripts, and each reason."""

    consistent: bool
    sentence: str
    reasons: tuple[str, ...]


def judge(findings: Findings, limits: Limits = LIMITS) -> Verdict:
    """Whether the result still says what its input says. It does not say that new detail is true."""
    reasons = (
        *(reason for band in findings.bands for reason in _of_band(band, limits)),
        *_of_scene(findings, limits),
    )
    worst = max(findings.bands, key=lambda band: band.mean_abs / band.spread)
    numbers = (
        f"averaged back it changes the input by {worst.mean_abs:.3g} on average "
        f"({worst.mean_abs / worst.spread:.1%} of its spread)"
    )
    if findings.shift_lr_px is not None:
        numbers += f" and lies {findings.shift_lr_px:.2f} input pixels beside it"
    if reasons:
        return Verdict(
            False, f"Not consistent with its input: {numbers}; {'; '.join(reasons)}.", reasons
        )
    return Verdict(
        True,
        f"Consistent with its input: {numbers}. New detail is not judged: it cannot be from here.",
        (),
    )


def _of_band(band: BandFinding, limits: Limits) -> list[str]:
    reasons = []
    if band.mean_abs > limits.mean_abs * band.spread:
        reasons.append(f"band {band.result_band} changes by {band.mean_abs / band.spread:.1%}")
    if abs(band.bias) > limits.bias * band.spread:
        word = "brighter" if band.bias > 0 else "darker"
        reasons.append(f"band {band.result_band} is {word} by {abs(band.bias):.3g}")
    if abs(band.contrast - 1) > limits.contrast:
        reasons.append(f"band {band.result_band} has {band.contrast:.2f} times the contrast")
    low = next((f for f in band.frequencies if f.cycles_per_lr_px[0] == 0), None)
    if low is not None and low.error_share > limits.low_frequency_error:
        reasons.append(
            f"band {band.result_band} departs at low frequencies ({low.error_share:.1%} of power)"
        )
    return reasons


def _of_scene(findings: Findings, limits: Limits) -> list[str]:
    reasons = []
    if findings.shift_lr_px is not None and findings.shift_lr_px > limits.shift_lr_px:
        reasons.append(f"it is displaced by {findings.shift_lr_px:.2f} input pixels")
    if findings.grid_db is not None and findings.grid_db > limits.grid_db:
        reasons.append(f"it paints a grid ({findings.grid_db:.1f} dB)")
    total = findings.compared_lr_px + findings.emptied_lr_px + findings.filled_lr_px
    for count, words in (
        (findings.emptied_lr_px, "valid input pixels are empty in it"),
        (findings.filled_lr_px, "empty input pixels are filled in it"),
    ):
        if count > limits.emptiness * total:
            reasons.append(f"{count} {words}")
    return reasons
