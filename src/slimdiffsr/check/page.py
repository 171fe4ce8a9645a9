"""The findings as one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import re
import warnings
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from slimdiffsr.check.findings import BandFinding, Findings, WorstBlock
from slimdiffsr.check.verdict import Verdict

__all__ = ["build_check_page"]


def build_check_page(findings: Findings, verdict: Verdict) -> bytes:
    """The report: verdict, tables by band, frequency and decile, and the worst places as pictures."""
    parts = {
        "TITLE": escape(f"Check of {findings.result_path}"),
        "CLASS": "good" if verdict.consistent else "bad",
        "VERDICT": escape(verdict.sentence),
        "ABOUT": _about(findings),
        "BANDS": _bands(findings.bands),
        "FREQUENCIES": _frequencies(findings.bands),
        "DECILES": "".join(_deciles(band) for band in findings.bands),
        "WORST": "".join(map(_worst, findings.worst)) or "<p>No block without gaps was seen.</p>",
    }
    template = (resources.files("slimdiffsr.check") / "page.html").read_text(encoding="utf-8")
    return re.sub(r"@([A-Z]+)@", lambda match: parts[match[1]], template).encode()


def _about(found: Findings) -> str:
    covered = found.covered_lr
    rows = [
        ("input", found.input_path),
        ("result", found.result_path),
        ("enlargement", f"{found.scale[1]:.6g} x {found.scale[0]:.6g}"),
        (
            "compared",
            f"{covered.width} x {covered.height} input pixels from column {covered.col}, row "
            f"{covered.row}; {found.blocks_seen} of {found.blocks} blocks",
        ),
        ("displacement", _or_none(found.shift_lr_px, "{:.3f} input pixels")),
        ("grid", _or_none(found.grid_db, "{:.2f} dB")),
        ("emptied, filled", f"{found.emptied_lr_px}, {found.filled_lr_px} input pixels"),
    ]
    return "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rows)


def _or_none(value: float | None, form: str) -> str:
    return "not measured" if value is None else form.format(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _bands(bands: Sequence[BandFinding]) -> str:
    head = ["band", "of input", "name", "bias", "mean change", "RMS", "of spread", "contrast"]
    named = any(band.share_above is not None for band in bands)
    rows = []
    for band in bands:
        row = [
            str(band.result_band), str(band.input_band), band.name, f"{band.bias:+.4g}",
            f"{band.mean_abs:.4g}", f"{band.rms:.4g}", f"{band.mean_abs / band.spread:.2%}",
            f"{band.contrast:.3f}",
        ]  # fmt: skip
        if band.share_above is not None:
            row.append(f"{band.share_above:.3%}")
        rows.append(row)
    return _table([*head, *(["beyond the error"] if named else [])], rows)


def _frequencies(bands: Sequence[BandFinding]) -> str:
    rows = [
        [
            str(band.result_band),
            f"{ring.cycles_per_lr_px[0]:.3f} to {ring.cycles_per_lr_px[1]:.3f}",
            f"{ring.gain:.3f}",
            f"{ring.error_share:.2%}",
        ]
        for band in bands
        for ring in band.frequencies
    ]
    return _table(["band", "cycles per input pixel", "gain", "error, share of power"], rows)


def _deciles(band: BandFinding) -> str:
    rows = [
        [
            f"{decile.values[0]:.5g} to {decile.values[1]:.5g}",
            f"{decile.bias:+.4g}",
            f"{decile.mean_abs:.4g}",
            str(decile.pixels),
        ]
        for decile in band.deciles
    ]
    table = _table(["input's values", "bias", "mean change", "pixels"], rows)
    return f"<h3>Band {band.result_band} {escape(band.name)}</h3>{table}"


def _worst(block: WorstBlock) -> str:
    low, high = np.percentile(block.lr, (1, 99))
    off = np.abs(block.averaged - block.lr)
    pictures = (
        ("input", _levels(block.lr, low, high)),
        ("result", _levels(block.sr, low, high)),
        ("result averaged back", _levels(block.averaged, low, high)),
        ("difference (white: a tenth of the range)", _levels(off, 0, (high - low) / 10)),
    )
    region = block.region_lr
    title = f"column {region.col}, row {region.row}: {block.mean_abs:.1%} of the spread on average"
    figures = "".join(
        f'<figure><img alt="{escape(name)}" src="{_png(levels)}"><figcaption>{escape(name)}'
        "</figcaption></figure>"
        for name, levels in pictures
    )
    return f'<h3>{escape(title)}</h3><div class="pictures">{figures}</div>'


def _levels(values: NDArray[np.generic], low: float, high: float) -> NDArray[np.uint8]:
    unit = (values.astype(np.float64) - low) / max(high - low, 1e-12)
    return np.rint(np.clip(unit, 0, 1) * 255).astype(np.uint8)


def _png(levels: NDArray[np.uint8]) -> str:
    height, width = levels.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with MemoryFile() as memory:  # type: ignore[no-untyped-call]
            with memory.open(
                driver="PNG", width=width, height=height, count=1, dtype="uint8"
            ) as dataset:
                dataset.write(levels, 1)
            data = memory.read()
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
