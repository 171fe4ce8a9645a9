"""Ray, for real: a cluster of two nodes on this machine, whose workers and nodes are lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rasters import byte_picture, nearest, write_raster

from slimdiffsr.errors import RasterError, WorkerError
from slimdiffsr.geo import Network, Progress, SceneOptions, upscale_scene
from slimdiffsr.scale_out.ray_crew import RayCrew, RayShare, connect

pytestmark = [
    pytest.mark.slow,
    # Ray leaves sockets and child processes to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning",
                               "ignore::FutureWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]  # fmt: skip
ray = pytest.importorskip("ray", reason="Ray is not here")
OPTIONS = SceneOptions(chunk_hr_px=512, format="gtiff")


@dataclass(frozen=True)
class Slow:
    """The network that repeats pixels, in its own time. Can be handed to another process."""

    seconds: float = 0.1

    def __call__(self) -> Network:
        def predict(batch: NDArray[np.float32]) -> NDArray[np.float32]:
            time.sleep(self.seconds)
            return batch.repeat(4, axis=2).repeat(4, axis=3)

        return nearest(tile_hr_px=256, overlap_hr_px=32, predict=predict)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:  # so that workers find this file
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        yield from _nodes(Cluster)


def _nodes(kind: Any) -> Iterator[Any]:
    nodes = kind(initialize_head=True, head_node_args={"num_cpus": 2})
    nodes.add_node(num_cpus=2)
    with connect(nodes.address):
        yield nodes
    nodes.shutdown()


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "in.tif", byte_picture(3, 520, 500), photometric="RGB")


@pytest.fixture
def alone(scene: Path, tmp_path: Path) -> bytes:
    upscale_scene(scene, tmp_path / "alone.tif", Slow(0)(), OPTIONS)
    return (tmp_path / "alone.tif").read_bytes()


def crew(share: RayShare | None = None, seconds: float = 0.1) -> RayCrew:
    return RayCrew(ray, Slow(seconds), share or RayShare(cpus=1))


def test_ray_makes_the_bytes_that_one_process_makes(
    cluster: Any, scene: Path, alone: bytes, tmp_path: Path
) -> None:
    workers = crew(seconds=0.0)
    seen: list[Progress] = []
    upscale_scene(scene, tmp_path / "out.tif", workers, OPTIONS, on_progress=seen.append)
    workers.close()
    assert (tmp_path / "out.tif").read_bytes() == alone
    assert seen[-1].chunks_done == seen[-1].chunks > 10


def test_a_killed_worker_is_replaced(
    cluster: Any, scene: Path, alone: bytes, tmp_path: Path
) -> None:
    workers = crew(RayShare(cpus=1, workers=3))
    victims = [ray.get(actor.pid.remote()) for actor in workers.actors]

    def kill(progress: Progress) -> None:
        if victims and progress.chunks_done > 2:
            os.kill(victims.pop(), signal.SIGKILL)

    upscale_scene(scene, tmp_path / "out.tif", workers, OPTIONS, on_progress=kill)
    workers.close()
    assert not victims
    assert (tmp_path / "out.tif").read_bytes() == alone


def test_a_node_may_go_in_the_middle(
    cluster: Any, scene: Path, alone: bytes, tmp_path: Path
) -> None:
    third = cluster.add_node(num_cpus=2)
    workers = crew(RayShare(cpus=1, workers=5))
    gone: list[bool] = []

    def remove(progress: Progress) -> None:
        if not gone and progress.chunks_done > 2:
            cluster.remove_node(third, allow_graceful=False)
            gone.append(True)

    upscale_scene(scene, tmp_path / "out.tif", workers, OPTIONS, on_progress=remove)
    workers.close()
    assert gone
    assert (tmp_path / "out.tif").read_bytes() == alone


def test_a_run_that_was_stopped_goes_on(
    cluster: Any, scene: Path, alone: bytes, tmp_path: Path
) -> None:
    def stop(progress: Progress) -> None:
        if progress.chunks_done > 4:
            raise RuntimeError("as if the driver died")

    for seconds, watch in ((0.05, stop), (0.0, None)):
        workers = crew(seconds=seconds)
        try:
            report = upscale_scene(scene, tmp_path / "out.tif", workers, OPTIONS, on_progress=watch)
        except RuntimeError:
            pass
        finally:
            workers.close()
    assert report.chunks_resumed > 4
    assert (tmp_path / "out.tif").read_bytes() == alone


def test_errors_come_back_as_they_are(cluster: Any, scene: Path, tmp_path: Path) -> None:
    workers = crew(seconds=0.0)
    data = scene.read_bytes()

    def damage(progress: Progress) -> None:
        scene.write_bytes(data[: len(data) // 3])

    with pytest.raises(RasterError):
        upscale_scene(scene, tmp_path / "out.tif", workers, OPTIONS, on_progress=damage)
    workers.close()


def test_a_share_that_fits_nowhere_is_said(cluster: Any) -> None:
    with pytest.raises(WorkerError, match="ask for less"):
        RayCrew(ray, Slow(), RayShare(cpus=1, gpus=4))
