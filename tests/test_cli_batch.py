"""Many inputs in one command: what is taken, what is passed over, and what ends it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rasters import byte_picture, read, write_raster
from test_cli import BICUBIC, SLIMDIFFSR, fails, run

from slimdiffsr.cli.work import plan_work
from slimdiffsr.errors import OutputError, RasterError


def rasters(folder: Path, *names: str) -> list[Path]:
    """Small rasters of these names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_raster(folder / name, byte_picture(3, 9, 9))
    return [folder / name for name in names]


def planned(*paths: object, scale: int = 4, recursive: bool = False) -> Any:
    return plan_work([str(path) for path in paths], f"x{scale}", png=False, recursive=recursive)


def sources(found: Any, folder: Path) -> list[str]:
    return [str(Path(work.source).relative_to(folder)) for work in found.works]


def test_a_folder_enlarged_into_itself_takes_no_result_for_an_input(tmp_path: Path) -> None:
    rasters(tmp_path, "a.tif", "b.tif", "b_x4.tif")
    found = planned(tmp_path, tmp_path)
    assert sources(found, tmp_path) == ["a.tif", "b.tif"]
    assert found.notes == [f"passed over: {tmp_path / 'b_x4.tif'} is what another input becomes"]


def test_results_of_another_scale_in_the_same_folder_are_no_inputs(tmp_path: Path) -> None:
    (a,) = rasters(tmp_path, "a.tif")
    assert run("upscale", a, tmp_path / "a_x2.tif", *BICUBIC, "-s", 2).exit_code == 0
    assert sources(planned(tmp_path, tmp_path), tmp_path) == ["a.tif"]
    # Into another folder they are: that is what was asked for.
    assert sources(planned(tmp_path, tmp_path / "out"), tmp_path) == ["a.tif", "a_x2.tif"]


def test_hidden_files_and_running_work_are_no_inputs(tmp_path: Path) -> None:
    rasters(tmp_path, "a.tif", "out.tif.partial/chunk.tif", ".trash/old.tif")
    (tmp_path / "._a.tif").write_bytes(b"Mac OS X")
    found = planned(tmp_path, tmp_path / "out", recursive=True)
    assert sources(found, tmp_path) == ["a.tif"]
    assert found.notes == []


def test_folders_inside_are_told_or_taken(tmp_path: Path) -> None:
    rasters(tmp_path, "a.tif", "one/a.tif", "one/deep/b.tif", "out/a_x4.tif")
    found = planned(tmp_path, tmp_path / "out")
    assert sources(found, tmp_path) == ["a.tif"]
    assert found.notes == [
        f"passed over: 1 folder was not looked into, in {tmp_path}: --recursive does"
    ]
    found = planned(tmp_path, tmp_path / "out", recursive=True)
    assert sources(found, tmp_path) == ["a.tif", "one/a.tif", "one/deep/b.tif"]
    targets = [str(work.target.relative_to(tmp_path / "out")) for work in found.works]
    assert targets == ["a_x4.tif", "one/a_x4.tif", "one/deep/b_x4.tif"]


def test_an_input_given_twice_is_done_once(tmp_path: Path) -> None:
    (a,) = rasters(tmp_path / "in", "a.tif")
    found = planned(a, tmp_path / "in", tmp_path / "out")
    assert len(found.works) == 1
    assert found.refused == []


@pytest.mark.parametrize("name", ["", " ", "o.nc", "o.tif", "o.jp2"])
def test_outputs_that_are_no_folder(tmp_path: Path, name: str) -> None:
    a, b = rasters(tmp_path, "a.tif", "b.tif")
    with pytest.raises(OutputError):
        planned(a, b, f"{tmp_path}/{name}" if name.strip() else name)


def test_an_empty_output_name_writes_nothing(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fails(run("upscale", scene, "", *BICUBIC), "the output has no name")
    assert [p.name for p in tmp_path.iterdir()] == ["in.tif"]


def test_inputs_that_are_all_missing_leave_no_folder(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    result = run("upscale", tmp_path / "a.tif", tmp_path / "b.tif", out, *BICUBIC)
    assert result.exit_code == 1
    assert result.stderr.count("does not exist") == 2
    assert not list(tmp_path.iterdir())
    fails(run("upscale", tmp_path / "a.tif", f"{out}/", *BICUBIC), "does not exist")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(RasterError, match="cannot be read: Permission denied"):
        planned(tmp_path, tmp_path / "out")


def test_each_line_counts(tmp_path: Path) -> None:
    rasters(tmp_path / "in", "a.tif", "b.tif")
    result = run("upscale", tmp_path / "in", tmp_path / "out", *BICUBIC)
    assert result.exit_code == 0, result.output
    first, second = result.stderr.splitlines()
    assert first.startswith("1 of 2: ")
    assert second.startswith("2 of 2: ")
    again = run("upscale", tmp_path / "in", tmp_path / "out", *BICUBIC)
    assert again.stderr.startswith("1 of 2: kept: ")


def interrupting(number: int, act: Callable[[], None]) -> Callable[..., None]:
    calls = [0]

    def stop(*_: Any, **__: Any) -> None:
        calls[0] += 1
        if calls[0] == number:
            act()

    return stop


def interrupt() -> None:
    raise KeyboardInterrupt


def test_ctrl_c_in_the_third_of_three_tells_of_the_first_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rasters(tmp_path / "in", "a.tif", "b.tif", "c.tif")
    monkeypatch.setattr("slimdiffsr.geo.scene.check_space", interrupting(3, interrupt))
    result = run("upscale", tmp_path / "in", tmp_path / "out", *BICUBIC, "--json")
    assert result.exit_code == 130
    assert "2 of 3 outputs are finished, the same command goes on" in result.stderr
    assert "nothing was written" not in result.stderr
    assert [Path(done["dst"]).name for done in json.loads(result.stdout)] == [
        "a_x4.tif", "b_x4.tif",
    ]  # fmt: skip


def test_memory_that_runs_out_is_one_sentence_and_not_the_end_of_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = rasters(tmp_path / "in", "a.tif", "b.tif")

    def full() -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr("slimdiffsr.geo.scene.check_space", interrupting(1, full))
    result = run("upscale", a, b, tmp_path / "out", *BICUBIC)
    assert result.exit_code == 1
    assert "error: the memory is used up" in result.stderr
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["b_x4.tif"]
    monkeypatch.setattr("slimdiffsr.geo.scene.check_space", interrupting(1, full))
    fails(run("upscale", a, tmp_path / "o.tif", *BICUBIC), "the memory is used up")


@pytest.mark.skipif(os.name != "posix", reason="no SIGTERM on this system")
def test_sigterm_ends_as_ctrl_c_does_with_its_own_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = rasters(tmp_path / "in", "a.tif", "b.tif")
    before = signal.getsignal(signal.SIGTERM)
    terminate = interrupting(2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr("slimdiffsr.geo.scene.check_space", terminate)
    result = run("upscale", a, b, tmp_path / "out", *BICUBIC)
    assert result.exit_code == 143
    assert "1 of 2 outputs are finished, the same command goes on" in result.stderr
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="no SIGTERM on this system")
def test_sigterm_leaves_a_run_that_the_same_command_resumes(tmp_path: Path) -> None:
    src = write_raster(tmp_path / "in.tif", byte_picture(3, 256, 384), photometric="RGB")
    out = tmp_path / "out.tif"
    command = [*SLIMDIFFSR, "upscale", str(src), str(out), "--chunk", "512", "--overlap", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    partial = tmp_path / "out.tif.partial"
    deadline = time.monotonic() + 90
    while not list(partial.glob("chunk-*.tif")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143, stderr
    assert stderr.count("\n") == 1
    assert "finished chunks are kept, and the same command resumes" in stderr
    assert list(partial.glob("chunk-*.tif"))


WHILE_LOADING = """
import os, signal, sys

class Press:
    def find_spec(self, name, *_):
        if name == "{name}":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Press())
sys.argv = ["slimdiffsr", "upscale", {src!r}, {dst!r}]
from slimdiffsr.__main__ import main
main()
"""


@pytest.mark.skipif(os.name != "posix", reason="no SIGINT for one process on this system")
@pytest.mark.parametrize("name", ["typer", "slimdiffsr.cli.show", "numpy"])
def test_ctrl_c_while_it_starts_is_no_traceback(scene: Path, name: str) -> None:
    code = WHILE_LOADING.format(name=name, src=str(scene), dst=str(scene.with_name("o.tif")))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1


# ---------------------------------------------------------------------------------------------
# Standard files that are closed, full or gone


def shell(words: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A command in a shell; its words are $0, $1 and so on."""
    return subprocess.run(
        ["sh", "-c", f"{sys.executable} -m slimdiffsr {words}", *map(str, arguments)],
        capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_what_cannot_be_printed_is_one_sentence() -> None:
    done = shell("--version >/dev/full")
    assert done.returncode == 2
    assert done.stderr == "error: the summary could not be printed: No space left on device\n"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("closing", [">/dev/full", ">&-", "2>&-", "| true"])
def test_the_output_is_there_whatever_becomes_of_the_summary(scene: Path, closing: str) -> None:
    out = scene.with_name("o.tif")
    done = shell(f'upscale -m bicubic --json "$0" "$1" {closing}', scene, out)
    assert "Traceback" not in done.stderr
    assert read(out).shape == (3, 160, 200)
    if closing == "2>&-":
        assert json.loads(done.stdout)[0]["dst"] == str(out)


def test_with_stderr_closed_notes_do_not_go_to_stdout() -> None:
    done = shell("upscale gone.tif o.tif 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_a_missing_input_is_told_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from slimdiffsr.cli import app\n"
        "try: app(['upscale', 'gone.tif', 'o.tif'])\n"
        "except SystemExit as end: assert end.code == 2\n"
        "assert not {'torch', 'rasterio'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "error: gone.tif does not exist\n"
