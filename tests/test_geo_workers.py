"""Several processes on one scene: the same bytes as one, whatever becomes of them."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasters import byte_picture, wobbly, write_raster

from slimdiffsr.errors import RasterError, WorkerError
from slimdiffsr.geo import (
    Network,
    Progress,
    SceneOptions,
    WorkerPlan,
    Workers,
    open_workers,
    upscale_scene,
)
from slimdiffsr.geo.shares import Shares

OPTIONS = SceneOptions(chunk_hr_px=512, overwrite=True)


def slow(seconds: float = 0.0, die_after: int | None = None, **more: Any) -> Network:
    """The wobbly network, that takes its time and may kill its process or fail."""
    inner = wobbly(**more)
    left = [die_after]

    def predict(tiles: NDArray[np.float32]) -> Any:
        time.sleep(seconds)
        if left[0] is not None:
            left[0] -= 1
            if left[0] < 0:
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return inner.predict(tiles)

    return wobbly(predict=predict, **more)


def plans(count: int, **how: Any) -> list[WorkerPlan]:
    return [WorkerPlan(f"worker {k + 1}", partial(slow, **how), threads=1) for k in range(count)]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raster of nine chunks."""
    values = byte_picture(3, 300, 290)
    values[:, 40:60, 100:] = 0
    folder = tmp_path_factory.mktemp("scene")
    return write_raster(folder / "in.tif", values, nodata=0)


@pytest.fixture(scope="module")
def alone(scene: Path) -> bytes:
    """What one process makes of it."""
    upscale_scene(scene, scene.with_name("alone.tif"), wobbly(), OPTIONS)
    return scene.with_name("alone.tif").read_bytes()


def test_two_workers_make_the_same_bytes_and_serve_several_scenes_at_once(
    scene: Path, alone: bytes, tmp_path: Path
) -> None:
    outs = [tmp_path / f"{k}.tif" for k in range(3)]
    told: list[Progress] = []
    with open_workers(plans(2)) as crew:
        first = upscale_scene(scene, outs[0], crew, OPTIONS, on_progress=told.append)
        threads = [
            threading.Thread(target=upscale_scene, args=(scene, out, crew, OPTIONS))
            for out in outs[1:]
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert [out.read_bytes() == alone for out in outs] == [True] * 3
    assert first.chunks_run == told[-1].chunks_done == 9
    assert first.warnings == ()
    done = [progress.output_px_done for progress in told]
    assert done == sorted(done)
    assert done[-1] == first.plan.output_width_hr_px * first.plan.output_height_hr_px
    assert first.plan.tiles <= first.tiles_run + first.tiles_skipped < 1.5 * first.plan.tiles


def test_a_killed_worker_costs_no_byte(scene: Path, alone: bytes, tmp_path: Path) -> None:
    out = tmp_path / "out.tif"
    killed: list[int] = []

    def watch(progress: Progress) -> None:
        if not killed and progress.chunks_done >= 2:
            killed.append(crew.process_ids()[0])
            os.kill(killed[0], signal.SIGKILL)

    with open_workers(plans(2, seconds=0.002)) as crew:
        report = upscale_scene(scene, out, crew, OPTIONS, on_progress=watch)
    assert out.read_bytes() == alone
    assert report.warnings == ("worker 1 was lost: killed by signal 9.",)


@pytest.mark.slow
def test_a_failing_card_is_told_and_its_chunks_are_made_by_the_other(
    scene: Path, alone: bytes, tmp_path: Path
) -> None:
    crew_plans = [*plans(1, die_after=30), WorkerPlan("cuda:1", slow, 1)]
    with open_workers(crew_plans) as crew:
        report = upscale_scene(scene, tmp_path / "out.tif", crew, OPTIONS)
    assert (tmp_path / "out.tif").read_bytes() == alone
    assert report.warnings[0].startswith("worker 1 was lost: RuntimeError: CUDA error: an illegal")


@pytest.mark.slow
def test_when_all_workers_are_lost_the_same_command_resumes(
    scene: Path, alone: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out.tif"
    with (
        open_workers(plans(2, die_after=200)) as crew,
        pytest.raises(WorkerError, match=r"all workers are lost .*; finished chunks are kept"),
    ):
        upscale_scene(scene, out, crew, OPTIONS)
    assert not out.exists()
    report = upscale_scene(scene, out, wobbly(), OPTIONS)
    assert report.chunks_resumed > 0
    assert out.read_bytes() == alone


def test_an_error_of_the_scene_is_raised_here(tmp_path: Path) -> None:
    src = write_raster(tmp_path / "in.tif", byte_picture(3, 300, 290), compress="deflate")
    whole = src.read_bytes()
    src.write_bytes(whole[:-4000] + bytes(4000))
    with open_workers(plans(2)) as crew, pytest.raises(RasterError, match="damaged"):
        upscale_scene(src, tmp_path / "o.tif", crew, OPTIONS)
    assert [p.name for p in tmp_path.iterdir()] == ["in.tif"]


@pytest.mark.slow
def test_a_worker_that_would_make_other_pixels_is_left_out(
    scene: Path, alone: bytes, tmp_path: Path
) -> None:
    other = WorkerPlan("other", partial(slow, weights_sha256="1" * 64), 1)
    with open_workers([*plans(1), other]) as crew:
        upscale_scene(scene, tmp_path / "out.tif", crew, OPTIONS)
        lost = list(crew._lost)
    assert len(lost) == 1
    assert "would compute other pixels" in lost[0]


COMMAND = """
    import sys
    sys.path.insert(0, {tests!r})
    from test_geo_workers import OPTIONS, plans
    from slimdiffsr.errors import InterruptedRunError
    from slimdiffsr.geo import open_workers, upscale_scene

    if __name__ == "__main__":
        print("started", flush=True)
        try:
            with open_workers(plans(2, seconds=0.004)) as crew:
                told = lambda p: p.chunks_done > 1 and print("working", flush=True)
                upscale_scene({src!r}, {dst!r}, crew, OPTIONS, on_progress=told)
        except InterruptedRunError as error:
            sys.exit("interrupted: " + str(error))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="no groups of processes on this system")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_or_the_end_of_the_command_ends_all_workers(
    scene: Path, alone: bytes, tmp_path: Path, number: signal.Signals
) -> None:
    out, script = tmp_path / "out.tif", tmp_path / "command.py"
    tests = str(Path(__file__).parent)
    script.write_text(textwrap.dedent(COMMAND.format(tests=tests, src=str(scene), dst=str(out))))
    import slimdiffsr.geo

    path = os.pathsep.join([str(Path(slimdiffsr.geo.__file__).parents[2]), tests])
    process = subprocess.Popen(
        [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line == "working\n":
            break
    group = os.getpgid(process.pid)
    os.killpg(group, number) if number == signal.SIGINT else process.kill()
    _, told = process.communicate(timeout=60)
    assert number == signal.SIGKILL or "interrupted: interrupted; " in told
    until = time.monotonic() + 20
    while _alive(group) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _alive(group)
    report = upscale_scene(scene, out, wobbly(), OPTIONS)
    assert report.chunks_resumed > 0
    assert out.read_bytes() == alone


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    return True


def killer(crew: Workers, rng: np.random.Generator) -> Callable[[Progress], None]:
    """A watcher that kills one worker or both, some time after one to three new chunks."""
    begun: list[int] = []
    chunks, wait, victims = rng.integers(1, 4), rng.uniform(0, 0.2), rng.integers(1, 3)

    def watch(progress: Progress) -> None:
        begun.append(progress.chunks_done)
        if progress.stage == "tiles" and begun[-1] - begun[0] >= chunks:
            time.sleep(wait)
            for process in crew.process_ids()[:victims]:
                os.kill(process, signal.SIGKILL)

    return watch


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_kill_9_of_workers_at_random_times_gives_the_same_bytes(
    scene: Path, alone: bytes, tmp_path: Path, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    out = tmp_path / "out.tif"
    while not out.exists():  # each run makes at least one chunk
        with open_workers(plans(2, seconds=0.001)) as crew, suppress(WorkerError):
            upscale_scene(scene, out, crew, OPTIONS, on_progress=killer(crew, rng))
    assert out.read_bytes() == alone


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_shares_give_out_everything_once_unless_a_worker_is_lost(
    count: int, workers: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shares = Shares(count, workers)
    busy: dict[int, int] = {}
    given_out: list[int] = []
    names = list(range(workers))
    while not shares.all_done:
        name = names[rng.integers(len(names))]
        if name in busy and rng.random() < 0.1 and len(names) > 1:
            assert shares.lose(name) == 1
            given_out.remove(busy.pop(name))
            names.remove(name)
        elif name in busy:
            assert shares.finish(name, busy.pop(name))
        elif (given := shares.take(name)) is not None:
            busy[name] = given[0]
            given_out.append(given[0])
    assert sorted(given_out) == list(range(count))
    assert not shares.has_work
