from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from browsers import chromium
from rasters import byte_picture, write_raster


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
