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
from slimdiffsr.evaluate.testset import (
    MadeTestset,
    TestsetOptions,
    make_testset,
    open_testset,
)

__all__ = [
    "TRUTH",
    "Estimate",
    "Failure",
    "MadeTestset",
    "Metric",
    "PairedFolder",
    "Pairs",
    "Report",
    "Restore",
    "Sample",
    "TestsetOptions",
    "bootstrap_mean",
    "default_metrics",
    "evaluate",
    "evaluate_folder",
    "lpips_metric",
    "make_testset",
    "open_testset",
    "read_rgb8",
    "report_json",
    "report_markdown",
    "restore_with",
]
