"""The paper's figures of cost, as printed; times on one RTX 3090 for 512x512 output pixels.

Source: Tables 1, 2, 5 and 6. ``row`` is ours of the same network; ``class_row`` one of the same
class, where the network itself cannot be had here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["PAPER_SHARES", "PAPER_TABLES", "PaperRow", "Table"]

Table = Literal[1, 2, 5, 6]


@dataclass(frozen=True, slots=True)
class PaperRow:
    """A row's seconds and millions of parameters, and which row here stands beside it."""

    method: str
    seconds: float
    parameters_m: float
    row: str | None = None
    class_row: str | None = None


PAPER_TABLES: dict[Table, tuple[PaperRow, ...]] = {
    2: (
        PaperRow("TTST", 0.218, 18.37),
        PaperRow("TransENet", 0.077, 35.09),
        PaperRow("ESRGAN", 0.044, 16.72, row="esrgan"),
        PaperRow("SwinIR-GAN", 0.132, 11.46, row="swinir"),
        PaperRow("EDiffSR", 6.745, 30.37),
        PaperRow("DiffBIR", 8.637, 1717, class_row="sd-50steps"),
        PaperRow("S3Diff", 0.736, 1327, class_row="sd-1step"),
        PaperRow("AdcSR", 0.088, 456.1),
        PaperRow("Ours", 0.037, 58.05, row="base"),
    ),
    5: (
        PaperRow("VAE", 0.195, 138.9, row="kl"),
        PaperRow("TAESD", 0.037, 57.68, row="taesd"),
        PaperRow("Ours", 0.037, 58.05, row="base"),
    ),
    6: (
        PaperRow("W/O SAP", 0.052, 168.3, row="no-sap"),
        PaperRow("W/O DSC", 0.040, 93.18, row="no-dsc"),
        PaperRow("W/O FSC", 0.042, 99.46, row="no-fsc"),
        PaperRow("W/O QGAM", 0.057, 81.11, row="no-qgam"),
        PaperRow("Ours", 0.037, 58.05, row="base"),
    ),
}

# Table 1: per cent of parameters and of MACs, single-step Stable Diffusion.
PAPER_SHARES = {"UNet": (92.02, 16.0), "VAE": (7.98, 84.0)}
