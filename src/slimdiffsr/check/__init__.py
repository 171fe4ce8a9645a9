"""What can be said of a result without a truth: does it still say what its input says?"""

from slimdiffsr.check.findings import BandFinding, Findings, check_result
from slimdiffsr.check.page import build_check_page
from slimdiffsr.check.verdict import Verdict, judge

__all__ = [
    "BandFinding",
    "Findings",
    "Verdict",
    "build_check_page",
    "check_result",
    "judge",
]
