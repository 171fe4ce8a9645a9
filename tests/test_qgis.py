"""The QGIS plugin: its parts that need no QGIS, and all of it in a real one where that is there."""

from __future__ import annotations

import configparser
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import rasterio
from rasters import UTM, byte_picture, read, write_raster

from slimdiffsr.upscale import model_names

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "integrations" / "qgis" / "slimdiffsr"


@pytest.fixture(scope="module")
def command() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plugin_command", PLUGIN / "command.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_python(command: ModuleType, script: str, **how: Any) -> str:
    silent = {"tell": lambda _: None, "progress": lambda _: None, "cancelled": lambda: False}
    result: str = command.run([sys.executable, "-c", script], **{**silent, **how})
    return result


def test_progress_is_read_from_the_commands_lines(command: ModuleType) -> None:
    assert command.share_done("scene.tif: 40 %") == 40
    assert command.share_done("scene.tif: writing, 40 %, 3 of 8 chunks, 2 min left") == 40
    assert command.share_done("2 of 4: b.tif: 50 %, 1 of 2 chunks") == 37.5
    assert command.share_done("note: 40 % of the scene is empty") is None
    assert command.share_done("out.tif: 200 x 160 pixels in 1.0 s") is None


def test_a_failure_is_the_commands_own_sentence(command: ModuleType) -> None:
    with pytest.raises(command.CommandError, match=r"^no such thing$"):
        run_python(
            command, "import sys; print('error: no such thing', file=sys.stderr); sys.exit(2)"
        )
    with pytest.raises(
        command.CommandError, match=r"python\S* failed with status 3: it said nothing"
    ):
        run_python(command, "raise SystemExit(3)")
    with pytest.raises(command.CommandError, match="cannot be started"):
        command.run(["/no/program"], tell=print, progress=print, cancelled=lambda: False)


def test_messages_and_progress_arrive_and_stdout_comes_back(command: ModuleType) -> None:
    told: list[str] = []
    shares: list[float] = []
    script = "import sys; e = sys.stderr; print('a: 5 %', file=e); print('note: x', file=e); print('out')"
    assert run_python(command, script, tell=told.append, progress=shares.append).strip() == "out"
    assert (told, shares) == (["note: x"], [5, 100])


def test_cancel_stops_as_ctrl_c_does(command: ModuleType) -> None:
    script = "import time, sys\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('kept', file=sys.stderr); sys.exit(130)"
    told: list[str] = []
    asked = iter([False] * 8)
    with pytest.raises(command.CancelledError):
        run_python(command, script, tell=told.append, cancelled=lambda: next(asked, True))
    assert told == ["kept"]


def test_the_command_does_not_see_qgis_own_python(command: ModuleType) -> None:
    kept = command.clean_environment(
        {"PYTHONHOME": "x", "PYTHONPATH": "x", "PROJ_LIB": "x", "GDAL_DATA": "x", "QT_PLUGIN_PATH": "x",
         "PATH": "p", "HOME": "h", "CUDA_VISIBLE_DEVICES": "1"}
    )  # fmt: skip
    assert {"PATH", "HOME", "CUDA_VISIBLE_DEVICES"} <= set(kept)
    assert not {"PYTHONHOME", "PYTHONPATH", "PROJ_LIB", "GDAL_DATA", "QT_PLUGIN_PATH"} & set(kept)


def test_the_plugin_offers_the_models_there_are() -> None:
    text = (PLUGIN / "algorithms" / "base.py").read_text()
    offered = (
        text.split("MODELS = (")[1].split(")")[0].replace('"', "").replace("\n", "").split(",")
    )
    assert {name.strip() for name in offered if name.strip()} == set(model_names())


def test_the_zip_is_what_qgis_installs(tmp_path: Path) -> None:
    script = ROOT / "integrations" / "qgis" / "package"
    subprocess.run([sys.executable, script, tmp_path / "plugin.zip"], check=True)
    with zipfile.ZipFile(tmp_path / "plugin.zip") as archive:
        names = set(archive.namelist())
        metadata = configparser.ConfigParser()
        metadata.read_string(archive.read("slimdiffsr/metadata.txt").decode())
    assert {f"slimdiffsr/{p.relative_to(PLUGIN)}" for p in PLUGIN.rglob("*.py")} <= names
    assert {"slimdiffsr/LICENSE", "slimdiffsr/icon.svg"} <= names
    assert not [name for name in names if "__pycache__" in name]
    general = metadata["general"]
    assert (general["name"], general["qgisminimumversion"]) == ("SlimDiffSR", "3.22")
    from importlib.metadata import version

    assert general["version"] == version("slimdiffsr")


# ---------------------------------------------------------------------------------------------
# In QGIS


def qgis_python() -> str:
    """A Python that has QGIS, or skip."""
    for name in ("/usr/bin/python3", "python3"):
        found = shutil.which(name)
        if (
            found
            and subprocess.run([found, "-c", "import qgis.core"], capture_output=True).returncode
            == 0
        ):
            return found
    pytest.skip("no QGIS: on Debian, apt-get install qgis python3-qgis")


def environment(folder: Path) -> dict[str, str]:
    command = Path(sys.executable).parent / "slimdiffsr"
    return {
        **os.environ, "QT_QPA_PLATFORM": "offscreen", "QGIS_CUSTOM_CONFIG_PATH": str(folder / "profile"),
        "XDG_RUNTIME_DIR": str(folder), "QGIS_PLUGINPATH": str(PLUGIN.parent),
        "SLIMDIFFSR_COMMAND": str(command),
    }  # fmt: skip


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What QGIS made of one input, by all algorithms."""
    python = qgis_python()
    folder = tmp_path_factory.mktemp("qgis")
    folder.chmod(0o700)
    words = {"colorinterp": None, "descriptions": ("red", "green", "blue", "nir")}
    scene = write_raster(folder / "scene.tif", byte_picture(4, 300, 300), **words)
    other = write_raster(folder / "other.tif", np.zeros((1, 20, 20), np.complex64))
    done = subprocess.run(
        [python, ROOT / "integrations/qgis/session.py", PLUGIN.parent, scene, other, folder],
        env=environment(folder), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), folder


@pytest.mark.slow
def test_a_layer_is_enlarged_with_the_bands_and_the_style_it_shows(session: Any) -> None:
    found, folder = session
    assert found["whole"]["good"], found["whole"]["error"]
    (layer,) = found["whole"]["layers"]
    assert layer["name"] == "scene x4"
    assert layer["bands"] == [1, 2, 3]  # 4, 1, 2 of the input
    assert layer["red"] == [12, 200]
    assert (layer["crs"], layer["width"]) == ("EPSG:26910", 1200)
    with rasterio.open(folder / "whole.tif") as dataset:
        assert dataset.descriptions == ("nir", "red", "green")
    assert found["whole"]["shares"][-1] == 100


@pytest.mark.slow
def test_an_extent_and_chosen_bands_reach_the_command(session: Any) -> None:
    found, folder = session
    with rasterio.open(folder / "part.tif") as dataset:
        assert (dataset.width, dataset.height) == (80, 60)
        assert dataset.transform == UTM @ UTM.scale(0.25)
    with rasterio.open(folder / "chosen.tif") as dataset:
        assert dataset.count == 4
        assert dataset.tags()["SLIMDIFFSR_BANDS"] == "3,2,1"
    assert found["chosen"]["layers"][0]["bands"] == [4, 1, 2]


@pytest.mark.slow
def test_what_was_cancelled_goes_on_and_ends_the_same(session: Any, tmp_path: Path) -> None:
    found, folder = session
    assert not found["cancelled"]["good"]
    assert "goes on from here" in found["cancelled"]["error"]
    resumed = found["resumed"]
    assert resumed["good"], resumed["error"]
    assert "chunks kept" in " ".join(resumed["told"])
    command = [environment(folder)["SLIMDIFFSR_COMMAND"], "upscale", folder / "scene.tif"]
    subprocess.run([*command, tmp_path / "once.tif", "--chunk", "512", "--quiet"], check=True)
    np.testing.assert_array_equal(read(folder / "long.tif"), read(tmp_path / "once.tif"))


@pytest.mark.slow
def test_errors_are_the_commands_sentences_and_of_many_the_good_ones_are_made(session: Any) -> None:
    found, folder = session
    assert not found["wrong"]["good"]
    assert "9" in found["wrong"]["error"]
    assert "\n" not in found["wrong"]["error"]
    assert found["many"]["good"], found["many"]["error"]
    assert "complex numbers" in " ".join(found["many"]["told"])
    assert found["many"]["results"]["LAYERS"] == [str(folder / "many" / "scene_x4.tif")]
    assert [layer["name"] for layer in found["many"]["layers"]] == ["scene_x4"]


@pytest.mark.slow
def test_a_model_is_written_for_deepness(session: Any) -> None:
    found, folder = session
    if "needs the package" in found["exported"]["error"]:
        pytest.skip("no onnxscript: extra onnx")
    assert found["exported"]["good"], found["exported"]["error"]
    said = {entry.key: entry.value for entry in onnx.load(folder / "tiny.onnx").metadata_props}
    assert json.loads(said["model_type"]) == "Superresolution"
    assert json.loads(said["resolution"]) == 240


@pytest.mark.slow
def test_qgis_process_runs_it_and_says_so_when_there_is_no_command(tmp_path: Path) -> None:
    # Debian's wrapper passes an option that its own program does not know.
    program = shutil.which("qgis_process.bin") or shutil.which("qgis_process")
    if program is None:
        pytest.skip("no qgis_process: on Debian, apt-get install qgis")
    tmp_path.chmod(0o700)
    scene = write_raster(tmp_path / "scene.tif", byte_picture(3, 20, 30), photometric="RGB")
    known = environment(tmp_path)
    subprocess.run(
        [program, "plugins", "enable", "slimdiffsr"], env=known, check=True, capture_output=True
    )
    arguments = [program, "run", "slimdiffsr:superresolve", "--", f"INPUT={scene}", "MODEL=5"]
    done = subprocess.run(
        [*arguments, f"OUTPUT={tmp_path / 'out.tif'}"], env=known, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert read(tmp_path / "out.tif").shape == (3, 80, 120)
    without = {**known, "PATH": "/usr/bin:/bin"}
    del without["SLIMDIFFSR_COMMAND"]
    done = subprocess.run(
        [*arguments, f"OUTPUT={tmp_path / 'b.tif'}"], env=without, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "the slimdiffsr command was not found" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
