"""Memory does not grow with the scene."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import rasterio
from rasters import UTM, byte_picture

psutil = pytest.importorskip("psutil")

MEASURED = """
    import json, sys, threading, time
    import psutil
    sys.path.insert(0, {tests!r})
    from rasters import nearest
    from slimdiffsr.geo import SceneOptions, upscale_scene

    process = psutil.Process()
    start, peak, over = process.memory_info().rss, 0, threading.Event()

    def watch():
        global peak
        while not over.wait(0.01):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    report = upscale_scene(
        {src!r}, {dst!r}, nearest({scale}, 512, 64), SceneOptions(window={window}, format="gtiff")
    )
    over.set()
    watcher.join()
    print(json.dumps({{"growth": peak - start, "chunks": report.chunks_run}}))
"""


def sparse_scene(path: Path, side: int, dtype: str, filled: int) -> Path:
    """A large scene of mostly zeros, with a picture in its upper left corner."""
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=3, dtype=dtype, tiled=True,
        blockxsize=512, blockysize=512, sparse_ok=True, transform=UTM, crs="EPSG:26910",
    ) as dataset:  # fmt: skip
        scene = byte_picture(3, filled, filled).astype(dtype) * 30
        dataset.write(scene, window=((0, filled), (0, filled)))
    return path


def growth(folder: Path, src: Path, scale: int, window: tuple[int, int, int, int]) -> int:
    import slimdiffsr.geo

    code = MEASURED.format(
        tests=str(Path(__file__).parent), src=str(src), dst=str(folder / "o.tif"), scale=scale,
        window=window,
    )  # fmt: skip
    source = Path(slimdiffsr.geo.__file__).parents[2]
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(source)},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    answer = json.loads(process.stdout.splitlines()[-1])
    assert answer["chunks"] >= 3
    return int(answer["growth"])


@pytest.mark.slow
def test_a_huge_scene_at_8x_stays_below_a_gigabyte(tmp_path: Path) -> None:
    src = sparse_scene(tmp_path / "in.tif", 20_000, "uint16", 600)
    assert growth(tmp_path, src, 8, (0, 0, 1500, 500)) < 1 << 30


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "dtype"), [(2, "float64"), (4, "uint8"), (8, "float32")])
def test_many_chunks_need_no_more(tmp_path: Path, scale: int, dtype: str) -> None:
    src = sparse_scene(tmp_path / "in.tif", 20_000, dtype, 2000)
    side = 2500 * 4 // scale
    assert growth(tmp_path, src, scale, (0, 0, side, side)) < 1 << 30
