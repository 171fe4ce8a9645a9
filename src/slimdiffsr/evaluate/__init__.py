"""Methods times paired images times metrics: tables with their protocol.

A method makes of an 8-bit image one of ``scale`` times its size: a model of ours, a peer's
network, or a folder of ready outputs.
"""

from slimdiffsr.evaluate.distances import lpips_metric
from slimdiffsr.evaluate.measures import METRIC_NAMES, choose_metrics
from slimdiffsr.evaluate.methods import Method, from_function, from_network, our_model
from slimdiffsr.evaluate.pairs import PairedFolder, Pairs
from slimdiffsr.evaluate.report import (
    TRUTH,
    Estimate,
    Failure,
    Metric,
    Report,
    Sample,
    bootstrap_mean,
    pool,
)
from slimdiffsr.evaluate.run import Progress, evaluate
from slimdiffsr.evaluate.store import Store
from slimdiffsr.evaluate.tables import report_json, report_markdown, write_tables
from slimdiffsr.evaluate.testset import (
    MadeTestset,
    TestsetOptions,
    make_testset,
    open_testset,
)

__all__ = [
    "METRIC_NAMES",
    "TRUTH",
    "Estimate",
    "Failure",
    "MadeTestset",
    "Method",
    "Metric",
    "PairedFolder",
    "Pairs",
    "Progress",
    "Report",
    "Sample",
    "Store",
    "TestsetOptions",
    "bootstrap_mean",
    "choose_metrics",
    "evaluate",
    "from_function",
    "from_network",
    "lpips_metric",
    "make_testset",
    "open_testset",
    "our_model",
    "pool",
    "report_json",
    "report_markdown",
    "write_tables",
]
