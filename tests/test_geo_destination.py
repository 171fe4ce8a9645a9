"""The place of the output: nothing of others is lost, and nothing old clings to the new file."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasters import byte_picture, nearest, read, repeat, write_raster
from test_geo_resume import _env

from slimdiffsr.errors import OutputError
from slimdiffsr.geo import Progress, SceneOptions, upscale_scene

OVERWRITE = SceneOptions(overwrite=True)


def old_output(path: Path) -> list[Path]:
    """A raster with all that may lie beside one."""
    write_raster(path, byte_picture(3, 20, 20, seed=7))
    beside = [
        path.with_name(path.name + ending) for ending in (".aux.xml", ".ovr", ".msk", ".msk.ovr")
    ] + [path.with_suffix(ending) for ending in (".tfw", ".wld", ".prj", ".tab", ".RPB")]
    beside.append(path.with_name(path.stem + "_RPC.TXT"))
    for file in beside:
        file.write_text("old")
    return beside


def test_overwriting_leaves_nothing_of_the_old_output(tmp_path: Path) -> None:
    values = byte_picture(3, 20, 20)
    path = write_raster(tmp_path / "in.tif", values)
    beside = old_output(tmp_path / "o.tif")
    upscale_scene(path, tmp_path / "o.tif", nearest(), OVERWRITE)
    assert not [file for file in beside if file.exists()]
    np.testing.assert_array_equal(read(tmp_path / "o.tif"), repeat(values, 4))


def test_overwriting_keeps_what_another_raster_may_need(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 20, 20))
    write_raster(tmp_path / "o.tif", byte_picture(3, 20, 20))
    (tmp_path / "o.jpg").write_text("another picture")
    (tmp_path / "o.wld").write_text("its world file")
    upscale_scene(path, tmp_path / "o.tif", nearest(), OVERWRITE)
    assert (tmp_path / "o.wld").read_text() == "its world file"


@pytest.mark.parametrize("name", ["o.tif.aux.xml", "o.tif.msk", "o.tif.ovr", "o_RPC.TXT", "o.RPB"])
def test_a_stray_side_file_is_not_taken_for_the_outputs(tmp_path: Path, name: str) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 20, 20))
    (tmp_path / name).write_text("precious")
    with pytest.raises(OutputError, match=f"{name} is there already"):
        upscale_scene(path, tmp_path / "o.tif", nearest())
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["in.tif", name])
    assert (tmp_path / name).read_text() == "precious"


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_inputs_world_file_survives_a_png_of_the_same_name(
    tmp_path: Path, overwrite: bool
) -> None:
    path = tmp_path / "in.bmp"
    values = byte_picture(3, 20, 20)
    rasterio.shutil.copy(
        write_raster(tmp_path / "x.tif", values), path, driver="BMP", WORLDFILE="YES"
    )
    (tmp_path / "x.tif").unlink()
    before = (tmp_path / "in.wld").read_text()
    options = SceneOptions(format="png", overwrite=overwrite)
    with pytest.raises(OutputError, match=r"in\.wld belongs to the input"):
        upscale_scene(path, tmp_path / "in.png", nearest(), options)
    assert (tmp_path / "in.wld").read_text() == before
    assert not (tmp_path / "in.png").exists()
    upscale_scene(path, tmp_path / "in_x4.png", nearest(), options)


def test_a_png_replaces_no_world_file_unless_allowed(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 20, 20))
    (tmp_path / "o.wld").write_text("precious")
    with pytest.raises(OutputError, match=r"o\.wld is there already"):
        upscale_scene(path, tmp_path / "o.png", nearest(), SceneOptions(format="png"))
    assert (tmp_path / "o.wld").read_text() == "precious"


def test_an_output_that_another_made_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 20, 20))
    out = tmp_path / "o.tif"

    def watch(progress: Progress) -> None:
        if progress.stage == "assembling":
            out.write_text("another's")

    with pytest.raises(OutputError, match="made by another while this run worked"):
        upscale_scene(path, out, nearest(), on_progress=watch)
    assert out.read_text() == "another's"
    out.unlink()
    assert upscale_scene(path, out, nearest()).chunks_resumed == 1


@pytest.mark.parametrize("kind", ["device", "pipe", "dangling", "link to a device"])
def test_only_files_are_replaced(tmp_path: Path, kind: str) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 20, 20))
    out = tmp_path / "o.tif"
    if kind == "dangling":
        out.symlink_to("nowhere")
        with pytest.raises(OutputError, match="exists already"):
            upscale_scene(path, out, nearest())
        return
    if kind == "device":
        out = Path("/dev/null")
    elif kind == "pipe":
        os.mkfifo(out)
    else:
        out.symlink_to("/dev/null")
    with pytest.raises(OutputError, match="is a device or a pipe"):
        upscale_scene(path, out, nearest(), OVERWRITE)
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x" * 245 + ".tif", "has 249 bytes"),
        ("ü" * 122 + ".tif", "has 248 bytes"),
        ("o\udcff.tif", "is not UTF-8"),
        ("o\0.tif", "needs a file name"),
        ("", "needs a file name"),
    ],
)
def test_names_that_no_file_can_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 20, 20))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match=words) as error:
        upscale_scene(path, name, nearest())
    str(error.value).encode()
    assert [p.name for p in tmp_path.iterdir()] == ["in.tif"]


def test_a_name_as_long_as_it_may_be(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "in.tif", byte_picture(3, 20, 20), mask=np.ones((20, 20), "u1"))
    name = "x" * 228 + ".tif"
    upscale_scene(path, tmp_path / name, nearest())
    assert (tmp_path / name).exists()


NOBODY = """
    import os, sys
    sys.path.insert(0, {tests!r})
    from rasters import nearest
    from slimdiffsr.errors import SlimDiffSRError
    from slimdiffsr.geo import upscale_scene
    os.setuid(65534)
    try:
        upscale_scene({src!r}, {dst!r}, nearest())
    except SlimDiffSRError as error:
        sys.exit(str(error))
"""


@pytest.mark.skipif(
    not hasattr(os, "setuid") or os.getuid() != 0, reason="only root may become another"
)
@pytest.mark.parametrize("mode", [0o000, 0o444, 0o555])
def test_a_folder_without_permission_is_one_sentence(tmp_path: Path, mode: int) -> None:
    for parent in (tmp_path, *list(tmp_path.parents)[:3]):
        if parent != Path("/tmp"):
            parent.chmod(0o755)
    src = write_raster(tmp_path / "in.tif", byte_picture(3, 20, 20))
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(mode)
    code = NOBODY.format(tests=str(Path(__file__).parent), src=str(src), dst=str(locked / "o.tif"))
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=_env(), capture_output=True, text=True
    )
    assert process.returncode == 1
    assert len(process.stderr.splitlines()) == 1, process.stderr
    assert "locked" in process.stderr
