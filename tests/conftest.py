from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from browsers import chromium
from rasters import byte_picture, write_raster

# Why tests are skipped, by words of their reasons: one line at the end instead of one for each.
SKIPPED = {
    "for want of pictures, rasters and weights in ../shared, which is no part of the project": (
        "shared", "not here", "not in the repository", "not part of the repository",
    ),
    "for want of packages that are not installed": ("could not import", "torchvision"),
    "for want of a browser: on Debian, apt-get install chromium chromium-driver": ("chromium",),
    "for want of a CUDA device": ("CUDA",),
}  # fmt: skip


@pytest.hookimpl
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line what was skipped, and for want of what."""
    counts: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        known = (kind for kind, words in SKIPPED.items() if any(word in reason for word in words))
        counts[next(known, reason.removeprefix("Skipped: "))] += 1
    if counts:
        told = "; ".join(f"{count} {kind}" for kind, count in counts.most_common())
        terminalreporter.write_line(f"skipped: {told}")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small networks only lose time to a second thread, most of all beside other tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A small RGB raster."""
    return write_raster(tmp_path / "in.tif", byte_picture(3, 40, 50), photometric="RGB")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One Chromium for all tests of a module."""
    chrome = chromium(tmp_path_factory.mktemp("chromium"))
    yield chrome
    chrome.quit()
