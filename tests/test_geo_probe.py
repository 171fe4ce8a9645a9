"""A raster that crashes the first process does not crash the second."""

import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from rasters import byte_picture, write_raster

from slimdiffsr.errors import RasterError
from slimdiffsr.geo.probe import Probe

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


def stop(probe: Probe) -> int:
    assert probe._process is not None
    os.kill(probe._process.pid, signal.SIGSTOP)
    return probe._process.pid


def crash(process: int) -> None:
    os.kill(process, signal.SIGSEGV)
    os.kill(process, signal.SIGCONT)


def test_a_look_tells_crashes_and_delays_from_errors(tmp_path: Path) -> None:
    path = str(write_raster(tmp_path / "in.tif", byte_picture(3, 20, 24)))
    text = tmp_path / "text.tif"
    text.write_text("not a raster")
    with Probe() as probe:
        probe.look(path)
        probe.look(str(text))  # its error is for who reads it
        probe.look(str(tmp_path / "none.tif"))
        first = stop(probe)
        threading.Timer(0.2, crash, (first,)).start()
        with pytest.raises(RasterError, match=r"in\.tif makes GDAL crash \(SIGSEGV\)"):
            probe.look(path)
        probe.look(path)
        probe.patience_s = 0.2
        stop(probe)
        with pytest.raises(RasterError, match=r"takes over 0\.2 s to open"):
            probe.look(path)
        probe.patience_s = 60
        probe.look(path)


def test_without_an_interpreter_there_is_no_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(write_raster(tmp_path / "in.tif", byte_picture(3, 20, 24)))
    monkeypatch.setattr(sys, "executable", "")
    with Probe() as probe:
        probe.look(path)
