"""A run that is stopped, by whatever, goes on where it was and ends in the same bytes."""

import errno
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rasters import byte_picture, nearest, wobbly, write_raster

from slimdiffsr.errors import DiskFullError, InterruptedRunError, OutputError
from slimdiffsr.geo import Network, Progress, SceneOptions, SceneReport, upscale_scene

OPTIONS = SceneOptions(chunk_hr_px=512)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A raster of nine chunks."""
    values = byte_picture(3, 300, 290)
    values[:, 40:60, 100:] = 0
    return write_raster(tmp_path / "in.tif", values, nodata=0)


def stop_after(tiles: int, error: BaseException, network: Network | None = None) -> Network:
    """A network that raises after some tiles."""
    inner = network or wobbly()
    left = [tiles]

    def predict(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        left[0] -= 1
        if left[0] < 0:
            raise error
        return np.asarray(inner.predict(batch))

    return Network(
        predict=predict, scale=4, tile_hr_px=64, overlap_hr_px=16,
        model_id="wobbly", weights_sha256="0" * 64,
    )  # fmt: skip


def stopped(scene: Path, options: SceneOptions = OPTIONS) -> Path:
    out = scene.with_name("out.tif")
    with pytest.raises(InterruptedRunError, match="same command resumes"):
        upscale_scene(scene, out, stop_after(400, KeyboardInterrupt()), options)
    assert not out.exists()
    return out


def finish(scene: Path, options: SceneOptions = OPTIONS, **more: Any) -> SceneReport:
    return upscale_scene(scene, scene.with_name("out.tif"), wobbly(), options, **more)


def test_ctrl_c_keeps_finished_chunks_and_the_same_call_resumes(scene: Path) -> None:
    finish(scene)
    out = scene.with_name("out.tif")
    uninterrupted = out.read_bytes()
    out.unlink()
    stopped(scene)
    names = {path.name for path in out.with_name("out.tif.partial").iterdir()}
    assert all(
        re.fullmatch(r"chunk-[0-9a-f]+-\d+-\d+\.tif|manifest\.json|lock", name) for name in names
    )
    told: list[Progress] = []
    report = finish(scene, on_progress=told.append)
    assert 0 < report.chunks_resumed < 9
    assert report.chunks_resumed + report.chunks_run == 9
    assert told[0].output_px_done == told[0].output_px_resumed > 0
    assert report.warnings == ()
    assert out.read_bytes() == uninterrupted
    assert not out.with_name("out.tif.partial").exists()


KILLED = """
    import os, signal, sys
    sys.path.insert(0, {tests!r})
    from rasters import wobbly
    from slimdiffsr.geo import SceneOptions, upscale_scene

    def watch(progress):
        if progress.chunks_done == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    upscale_scene({src!r}, {dst!r}, wobbly(), SceneOptions(chunk_hr_px=512), on_progress=watch)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_kill_9_costs_no_finished_chunk_and_changes_no_byte(scene: Path) -> None:
    out = scene.with_name("out.tif")
    finish(scene)
    uninterrupted = out.read_bytes()
    out.unlink()
    code = KILLED.format(tests=str(Path(__file__).parent), src=str(scene), dst=str(out))
    process = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=_env())
    assert process.returncode == -signal.SIGKILL
    assert not out.exists()
    report = finish(scene)
    assert 2 <= report.chunks_resumed <= 4
    assert out.read_bytes() == uninterrupted


def _env() -> dict[str, str]:
    import slimdiffsr.geo

    source = Path(slimdiffsr.geo.__file__).parents[2]
    return {**os.environ, "PYTHONPATH": str(source)}


@pytest.mark.parametrize(
    ("change", "word"), [("option", "options"), ("input", "input"), ("model", "model")]
)
def test_a_change_starts_over_and_says_so(scene: Path, change: str, word: str) -> None:
    out = stopped(scene)
    options, network = OPTIONS, wobbly()
    if change == "option":
        options = SceneOptions(chunk_hr_px=512, colour="none")
    elif change == "input":
        write_raster(scene, byte_picture(3, 300, 290, seed=1), nodata=0)
    else:
        network = wobbly(weights_sha256="1" * 64)
    report = upscale_scene(scene, out, network, options)
    assert report.chunks_resumed == 0
    assert "started over" in report.warnings[0]
    assert report.warnings[0].endswith(f"changed: {word}.")


def test_another_format_keeps_the_chunks(scene: Path) -> None:
    stopped(scene)
    report = finish(scene, SceneOptions(chunk_hr_px=512, format="gtiff"))
    assert report.chunks_resumed > 0


def test_a_damaged_chunk_is_made_again(scene: Path) -> None:
    out = stopped(scene)
    kept = sorted(out.with_name("out.tif.partial").glob("chunk-*.tif"))
    kept[0].write_bytes(kept[0].read_bytes()[:-2000])
    kept[1].write_bytes(b"")
    report = finish(scene)
    assert report.chunks_resumed == len(kept) - 2


@pytest.mark.parametrize("content", ["notes.txt", "manifest.json"])
def test_a_foreign_folder_is_left_alone(scene: Path, content: str) -> None:
    folder = scene.with_name("out.tif.partial")
    folder.mkdir()
    (folder / content).write_text('{"name": "an app"}')
    with pytest.raises(OutputError, match="was not made by slimdiffsr"):
        finish(scene)
    assert (folder / content).read_text() == '{"name": "an app"}'


def test_foreign_files_in_our_folder_survive(scene: Path) -> None:
    out = stopped(scene)
    note = out.with_name("out.tif.partial") / "note.txt"
    note.write_text("mine")
    report = finish(scene)
    assert "kept" in report.warnings[0]
    assert note.read_text() == "mine"
    assert [p.name for p in note.parent.iterdir()] == ["note.txt"]


def test_two_runs_for_one_output_exclude_each_other(scene: Path) -> None:
    started, go_on = threading.Event(), threading.Event()
    inner = wobbly()

    def waiting(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        started.set()
        assert go_on.wait(30)
        return np.asarray(inner.predict(batch))

    slow = Network(
        predict=waiting, scale=4, tile_hr_px=64, overlap_hr_px=16,
        model_id="wobbly", weights_sha256="0" * 64,
    )  # fmt: skip
    out = scene.with_name("out.tif")
    first = threading.Thread(target=upscale_scene, args=(scene, out, slow, OPTIONS))
    first.start()
    assert started.wait(30)
    with pytest.raises(OutputError, match=f"process {os.getpid()}"):
        finish(scene)
    go_on.set()
    first.join(60)
    assert out.exists()


def test_the_lock_of_a_dead_process_is_taken_over(scene: Path) -> None:
    out = stopped(scene)
    (out.with_name("out.tif.partial") / "lock").write_text("999999999")
    assert finish(scene).chunks_resumed > 0


def test_a_full_disk_keeps_finished_chunks(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = scene.with_name("out.tif")
    from slimdiffsr.geo import chunks

    written = [0]
    real = chunks._save

    def full(*args: Any) -> None:
        written[0] += 1
        if written[0] > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*args)

    monkeypatch.setattr(chunks, "_save", full)
    with pytest.raises(DiskFullError, match="finished chunks are kept"):
        finish(scene)
    assert not out.exists()
    assert not list(out.with_name("out.tif.partial").glob("*.tmp"))
    monkeypatch.undo()
    assert finish(scene).chunks_resumed == 3


LIMITED = """
    import pathlib, resource, signal, sys
    sys.path.insert(0, {tests!r})
    from rasters import nearest
    from slimdiffsr.errors import DiskFullError
    from slimdiffsr.geo import SceneOptions, upscale_scene

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    done = 0
    for limit in range(10_000, 1_300_000, 70_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        dst = pathlib.Path({dst!r} + str(limit) + ".tif")
        options = SceneOptions(chunk_hr_px=512, creation_options={{"COMPRESS": "NONE"}})
        try:
            upscale_scene({src!r}, dst, nearest(), options)
            done += 1
        except DiskFullError as error:
            assert not dst.exists()
            assert "make room and run the same command again" in str(error)
    print(done)
"""


@pytest.mark.skipif(os.name != "posix", reason="no file size limits on this system")
def test_a_file_that_cannot_grow_is_noticed_wherever_it_stops(tmp_path: Path) -> None:
    # Small limits stop chunks, larger ones the assembly: GDAL meets all, not a stub.
    noise = np.random.default_rng(0).integers(1, 255, (3, 120, 110)).astype(np.uint8)
    src = write_raster(tmp_path / "in.tif", noise)
    code = LIMITED.format(tests=str(Path(__file__).parent), src=str(src), dst=str(tmp_path / "o"))
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=_env(), capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert 0 < int(process.stdout) < 12


def test_a_hopelessly_small_disk_is_said_first(
    scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slimdiffsr.geo.destination.free_bytes", lambda _: 1000)
    with pytest.raises(DiskFullError, match="make room"):
        finish(scene)
    assert [p.name for p in scene.parent.iterdir()] == ["in.tif"]
    monkeypatch.setattr("slimdiffsr.geo.destination.free_bytes", lambda _: 5_000_000)
    assert "may fill up" in finish(scene).warnings[0]


def test_an_error_of_the_network_passes_through(scene: Path) -> None:
    out = scene.with_name("out.tif")
    with pytest.raises(MemoryError):
        upscale_scene(scene, out, stop_after(2, MemoryError("out of memory")), OPTIONS)
    assert [p.name for p in scene.parent.iterdir()] == ["in.tif"]


def test_ctrl_c_before_the_first_chunk_leaves_nothing(scene: Path) -> None:
    network = stop_after(1, KeyboardInterrupt(), nearest())
    with pytest.raises(InterruptedRunError, match="nothing was written"):
        upscale_scene(scene, scene.with_name("out.tif"), network, OPTIONS)
    assert [p.name for p in scene.parent.iterdir()] == ["in.tif"]
