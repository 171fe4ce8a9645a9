"""Restorers times paired images times metrics: a table with its protocol.

A restorer is any function from an 8-bit image to one ``scale`` times its size.
"""

from slimdiffsr.evaluate.pairs import (
    PairedFolder,
    Pairs,
    read_rgb8,
)
from slimdiffsr.evaluate.report import (
    Estimate,
    Failure,
    Metric,
    Report,
    Sample,
    bootstrap_mean,
    report_json,
    report_markdown,
)
from slimdiffsr.evaluate.run import (
    TRUTH,
    Restore,
    default_metrics,
    evaluate,
    evaluate_folder,
    lpips_metric,
    restore_with,
)

__all__ = [
    "TRUTH",
    "Estimate",
    "Failure",
    "Metric",
    "PairedFolder",
    "Pairs",
    "Report",
    "Restore",
    "Sample",
    "bootstrap_mean",
    "default_metrics",
    "evaluate",
    "evaluate_folder",
    "lpips_metric",
    "read_rgb8",
    "report_json",
    "report_markdown",
    "restore_with",
]
