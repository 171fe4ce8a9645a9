"""The store of chunks: what counts as done, what a power cut leaves, and inputs that change."""

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasters import byte_picture, nearest, write_raster
from test_geo_resume import OPTIONS, finish, scene, stopped

from slimdiffsr.errors import OutputError, RasterError
from slimdiffsr.geo import Progress, upscale_scene
from slimdiffsr.geo.chunks import ChunkStore, Stripe
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.inputs import look_at

__all__ = ["scene"]


def partial(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


def chunks_of(out: Path) -> list[Path]:
    return sorted(partial(out).glob("chunk-*.tif"))


# ---------------------------------------------------------------------------------------------
# Done means there, and as it was written


def flip(chunks: list[Path]) -> None:
    content = bytearray(chunks[0].read_bytes())
    content[len(content) // 2] ^= 1
    chunks[0].write_bytes(content)


def swap(chunks: list[Path]) -> None:
    first, second = chunks[0].read_bytes(), chunks[1].read_bytes()
    chunks[0].write_bytes(second)
    chunks[1].write_bytes(first)


def empty(chunks: list[Path]) -> None:
    chunks[0].write_bytes(b"")


def cut(chunks: list[Path]) -> None:
    chunks[0].write_bytes(chunks[0].read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "lost"),
    [(flip, 1), (swap, 2), (empty, 1), (cut, 1)],
    ids=["flipped", "swapped", "empty", "cut"],
)
def test_a_chunk_that_is_not_as_it_was_written_is_made_again(
    scene: Path, damage: Callable[[list[Path]], None], lost: int
) -> None:
    finish(scene)
    whole = scene.with_name("out.tif").read_bytes()
    scene.with_name("out.tif").unlink()
    out = stopped(scene)
    kept = chunks_of(out)
    damage(kept)
    report = finish(scene)
    assert report.chunks_resumed == len(kept) - lost
    assert out.read_bytes() == whole


@pytest.mark.parametrize("content", ["null", "", "\0\0\0\0", '{"slimdif', None])
def test_what_a_power_cut_leaves_of_the_manifest_costs_no_chunk(
    scene: Path, content: str | None
) -> None:
    out = stopped(scene)
    kept = chunks_of(out)
    manifest = partial(out) / "manifest.json"
    if content is None:
        manifest.unlink()
    else:
        manifest.write_text(content)
    report = finish(scene)
    assert report.chunks_resumed == len(kept)
    assert report.warnings == ()


@pytest.mark.parametrize("content", ["[1, 2]", "hello", '"text"', "3"])
def test_a_manifest_of_another_program_is_left_alone(scene: Path, content: str) -> None:
    folder = partial(scene.with_name("out.tif"))
    folder.mkdir()
    (folder / "manifest.json").write_text(content)
    with pytest.raises(OutputError, match="was not made by slimdiffsr"):
        finish(scene)
    assert (folder / "manifest.json").read_text() == content


def after_chunks(count: int, act: Callable[[], None]) -> Callable[[Progress], None]:
    """A watcher that does something once, when so many chunks are done."""
    waiting = [act]

    def watch(progress: Progress) -> None:
        if progress.chunks_done >= count and waiting:
            waiting.pop()()

    return watch


@pytest.mark.parametrize("what", ["chunk", "folder", "home"])
def test_what_is_deleted_under_a_run_is_one_sentence(tmp_path: Path, what: str) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 300, 290))
    home = tmp_path / "home"
    home.mkdir()
    out = home / "out.tif"

    def delete() -> None:
        if what == "chunk":
            chunks_of(out)[0].unlink()
        else:
            lost = partial(out) if what == "folder" else home
            lost.rename(tmp_path / "moved")  # deleting would race with the writer

    with pytest.raises(OutputError, match="was deleted or moved while it was written") as error:
        upscale_scene(path, out, nearest(), OPTIONS, on_progress=after_chunks(5, delete))
    assert "\n" not in str(error.value)
    assert not out.exists()
    home.mkdir(exist_ok=True)
    assert upscale_scene(path, out, nearest(), OPTIONS).chunks_run == {"chunk": 1}.get(what, 9)


def _write_some(store: ChunkStore, header: Any, regions: list[Region]) -> None:
    for region in regions:
        value = region.row + region.col
        pixels = np.full((region.height, region.width), value % 251, np.uint8)
        store.write(region, header, iter([Stripe(band, 0, pixels) for band in (1, 2, 3)]))


def test_several_processes_write_chunks_of_one_job_also_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers: list[Any] = []
    real = ChunkStore.write

    def watched(store: ChunkStore, region: Region, header: Any, *more: Any) -> None:
        headers.append(header)
        real(store, region, header, *more)

    monkeypatch.setattr(ChunkStore, "write", watched)
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 20, 20))
    upscale_scene(path, tmp_path / "out.tif", nearest(), OPTIONS)
    monkeypatch.undo()
    store = ChunkStore(tmp_path, "0123456789abcdef", look_at(str(path), []))
    regions = [Region(512 * k, 0, 512, 512) for k in range(6)]
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_write_some, args=(store, headers[0], order))
        for order in (regions, regions[::-1])
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert all(store.is_done(region) for region in regions)
    assert store.count() == 6
    assert not list(tmp_path.glob("*.tmp"))
    with rasterio.open(store.chunk_path(regions[3])) as dataset:
        assert (dataset.read() == 512 * 3 % 251).all()


# ---------------------------------------------------------------------------------------------
# The input stays what it was, or nothing comes of it


def with_mask(tmp_path: Path) -> tuple[Path, Path]:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 300, 290))
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False),  # type: ignore[no-untyped-call]
        rasterio.open(path, "r+") as dataset,
    ):
        dataset.write_mask(np.full((300, 290), 255, np.uint8))
    return path, tmp_path / "in.tif.msk"


def as_vrt(tmp_path: Path) -> tuple[Path, Path]:
    path = write_raster(tmp_path / "source.tif", byte_picture(3, 300, 290))
    rasterio.shutil.copy(path, tmp_path / "inner.vrt", driver="VRT")
    text = (tmp_path / "inner.vrt").read_text().replace("source.tif", "inner.vrt")
    (tmp_path / "in.vrt").write_text(text)
    return tmp_path / "in.vrt", path


def plain(tmp_path: Path) -> tuple[Path, Path]:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 300, 290))
    return path, path


def rewrite(path: Path) -> None:
    """Other bytes in place; a mask stays readable."""
    content = bytearray(path.read_bytes())
    if path.suffix == ".msk":
        content.append(0)
    else:
        content[-1000] ^= 255
    with path.open("r+b") as file:
        file.write(content)


@pytest.mark.parametrize("make", [plain, as_vrt, with_mask])
def test_an_input_that_changes_under_a_run_never_ends_well(
    tmp_path: Path, make: Callable[[Path], tuple[Path, Path]]
) -> None:
    path, changing = make(tmp_path)
    out = tmp_path / "out.tif"
    watch = after_chunks(4, lambda: rewrite(changing))
    with pytest.raises(RasterError, match=f"{changing} was changed while it was read"):
        upscale_scene(path, out, nearest(), OPTIONS, on_progress=watch)
    assert not out.exists()


@pytest.mark.parametrize("make", [plain, as_vrt, with_mask])
def test_an_input_that_changed_between_two_runs_starts_over(
    tmp_path: Path, make: Callable[[Path], tuple[Path, Path]]
) -> None:
    path, changing = make(tmp_path)
    out = tmp_path / "out.tif"
    stop = after_chunks(4, lambda: _raise(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        upscale_scene(path, out, nearest(), OPTIONS, on_progress=stop)
    assert chunks_of(out)
    rewrite(changing)
    report = upscale_scene(path, out, nearest(), OPTIONS)
    assert report.chunks_resumed == 0
    assert report.warnings[0].endswith("changed: input.")


def _raise(error: BaseException) -> None:
    raise error


def test_a_change_at_the_last_moment_is_seen_by_the_bytes(tmp_path: Path) -> None:
    # Written in place after the last chunk, with the time of change set back.
    path, _ = plain(tmp_path)

    def forge() -> None:
        before = path.stat()
        rewrite(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def watch(progress: Progress) -> None:
        if progress.stage == "assembling":
            forge()

    with pytest.raises(RasterError, match="was changed while it was read"):
        upscale_scene(path, tmp_path / "out.tif", nearest(), OPTIONS, on_progress=watch)
    assert not (tmp_path / "out.tif").exists()


def test_a_new_time_alone_keeps_the_chunks(scene: Path) -> None:
    stopped(scene)
    os.utime(scene, (1, 1))
    assert finish(scene).chunks_resumed > 0


def test_files_are_found_inside_archives_vrts_and_beside(tmp_path: Path) -> None:
    vrt, _ = as_vrt(tmp_path)
    (tmp_path / "source.tif.msk").write_bytes(b"x")
    names = {Path(file.path).name for file in look_at(str(vrt), []).files}
    assert names == {"in.vrt", "inner.vrt", "source.tif", "source.tif.msk"}
    for name in (
        f"/vsizip/{tmp_path}/source.tif/inside.tif",
        f"/vsizip/{{{tmp_path}/source.tif}}/x",
    ):
        assert [Path(f.path).name for f in look_at(name, [name]).files][:1] == ["source.tif"]


def test_a_large_file_is_known_by_samples_and_what_the_disk_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slimdiffsr.geo.inputs._WHOLE_BYTES", 1 << 20)
    path = tmp_path / "big.tif"
    path.write_bytes(os.urandom(5 << 20))
    before = look_at(str(path), [])
    assert before.files[0].modified_ns is not None
    assert json.loads(json.dumps(before.facts())) == before.facts()
    before.check_unchanged(thoroughly=True)
    with path.open("r+b") as file:
        file.write(b"other")
    os.utime(path, ns=(0, before.marks[0][1]))
    before.check_unchanged()
    with pytest.raises(RasterError, match="was changed"):
        before.check_unchanged(thoroughly=True)
