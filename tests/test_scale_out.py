"""Jobs for many machines: the same bytes as one machine makes, whatever becomes of the workers."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasters import UTM, byte_picture, read, write_raster
from typer.testing import CliRunner

from slimdiffsr.cli import app
from slimdiffsr.crews import ModelPlan
from slimdiffsr.errors import ConfigError, JobError, SlimDiffSRError
from slimdiffsr.geo import SceneOptions, upscale_scene
from slimdiffsr.geo.grid import Region
from slimdiffsr.geo.job import package_version
from slimdiffsr.scale_out.claims import Claims, Picker, Taken, Wait
from slimdiffsr.scale_out.costs import cost_of
from slimdiffsr.scale_out.finish import finish_job
from slimdiffsr.scale_out.jobfile import JobFile, read_job, read_part
from slimdiffsr.scale_out.order import ordered_chunks
from slimdiffsr.scale_out.places import FolderPlace, open_place
from slimdiffsr.scale_out.planning import equal_shards, plan_job
from slimdiffsr.scale_out.request import Request, declared_spec, fit_network
from slimdiffsr.scale_out.run import work_here
from slimdiffsr.scale_out.status import look_at_job

CHUNK = 512


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("scenes")
    return [
        write_raster(
            folder / f"scene{k}.tif", byte_picture(3, 200 + 40 * k, 260, seed=k),
            photometric="RGB", transform=UTM @ UTM.translation(260 * k, 0),
        )
        for k in range(3)
    ]  # fmt: skip


def plan(folder: Path, scenes: list[Path], **more: Any) -> JobFile:
    spec = declared_spec("bicubic", 4, "cpu", "auto", "auto", "low-frequency")
    request = Request("bicubic", spec, SceneOptions(chunk_hr_px=CHUNK))
    sources = [(str(scene), f"{scene.stem}_x4.tif") for scene in scenes]
    place = FolderPlace(str(folder / "job"))
    return plan_job(place, sources, str(folder / "out"), request, **{"shards": 2, **more})


def alone(scene: Path, target: Path) -> Path:
    spec = declared_spec("bicubic", 4, "cpu", "auto", "auto", "low-frequency")
    network = replace(ModelPlan("bicubic", scale=4, device="cpu")(), arithmetic=spec.arithmetic)
    upscale_scene(scene, target, network, SceneOptions(chunk_hr_px=CHUNK))
    return target


def place_of(folder: Path) -> FolderPlace:
    return FolderPlace(str(folder / "job"))


def finish(folder: Path, **more: Any) -> Any:
    return finish_job(place_of(folder), read_job(place_of(folder), package_version()), **more)


def test_a_job_makes_the_bytes_that_one_machine_makes(scenes: list[Path], tmp_path: Path) -> None:
    job = plan(tmp_path, scenes)
    address = str(tmp_path / "job")
    first = work_here(address, 0, help_others=False)
    assert 0 < first.units < job.units
    assert "not made yet" in next(iter(finish(tmp_path).failures.values()))
    work_here(address, 1, help_others=False)
    assert look_at_job(place_of(tmp_path), job).is_complete
    done = finish(tmp_path)
    assert not done.failures
    for scene in scenes:
        made = tmp_path / "out" / f"{scene.stem}_x4.tif"
        assert made.read_bytes() == alone(scene, tmp_path / "alone.tif").read_bytes()
        os.unlink(tmp_path / "alone.tif")
    assert not list(place_of(tmp_path).keys("chunks/"))
    assert not list((tmp_path / "out").glob("*.partial"))
    with rasterio.open(tmp_path / "out" / "mosaic.vrt") as mosaic:
        assert mosaic.width == 3 * 260 * 4
        assert (mosaic.read(1)[:800, :1040] == read(tmp_path / "out/scene0_x4.tif")[0, :800]).all()
    assert finish(tmp_path).outputs == done.outputs  # again: everything is there


def test_a_worker_helps_where_another_never_came(scenes: list[Path], tmp_path: Path) -> None:
    job = plan(tmp_path, scenes[:1], shards=3)
    done = work_here(str(tmp_path / "job"), 2)
    assert done.units == job.units


def test_a_damaged_chunk_is_made_again(scenes: list[Path], tmp_path: Path) -> None:
    plan(tmp_path, scenes[:1])
    work_here(str(tmp_path / "job"), None)
    chunk = sorted((tmp_path / "job/chunks/0000000").glob("*.tif"))[2]
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    assert "1 chunks were damaged" in finish(tmp_path).failures[str(scenes[0])]
    assert work_here(str(tmp_path / "job"), None).chunks == 1
    assert not finish(tmp_path).failures


def test_an_input_that_fails_stops_no_other(scenes: list[Path], tmp_path: Path) -> None:
    text = tmp_path / "text.tif"
    text.write_text("no raster")
    vanishing = write_raster(tmp_path / "vanishing.tif", byte_picture(3, 64, 64))
    job = plan(tmp_path, [text, scenes[0], vanishing])
    assert job.failed == 1
    vanishing.write_bytes(b"gone")
    done = work_here(str(tmp_path / "job"), None)
    assert len(done.failures) == 3  # tried three times, then set aside
    found = look_at_job(place_of(tmp_path), job)
    assert found.units_set_aside == 1
    assert found.is_complete
    assert {failure.src for failure in found.failures} == {str(text), str(vanishing)}
    finished = finish(tmp_path)
    assert finished.outputs == ["scene0_x4.tif"]
    assert finished.failures.keys() == {str(text), str(vanishing)}


def test_a_changed_input_is_noticed(scenes: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy.tif"
    copy.write_bytes(scenes[0].read_bytes())
    plan(tmp_path, [copy])
    write_raster(copy, byte_picture(3, 200, 260, seed=9), photometric="RGB")
    done = work_here(str(tmp_path / "job"), 0, help_others=False)
    assert all("not what it was" in words for words in done.failures)


def test_a_plan_is_never_changed_and_goes_on(scenes: list[Path], tmp_path: Path) -> None:
    first = plan(tmp_path, scenes)
    assert plan(tmp_path, scenes) == first
    with pytest.raises(JobError, match="another job"):
        plan(tmp_path, scenes[:1])
    (tmp_path / "job" / "job.json").unlink()  # as after a crash before the end
    with pytest.raises(JobError, match="not planned to its end"):
        read_job(place_of(tmp_path), package_version())
    assert plan(tmp_path, scenes) == first


def test_a_job_of_another_version_or_a_damaged_one_is_refused(
    scenes: list[Path], tmp_path: Path
) -> None:
    plan(tmp_path, scenes[:1])
    with pytest.raises(JobError, match="use that version"):
        read_job(place_of(tmp_path), "9.9")
    path = tmp_path / "job" / "job.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(JobError, match="damaged"):
        read_job(place_of(tmp_path), package_version())


def test_a_worker_of_another_model_or_arithmetic_is_refused(tmp_path: Path) -> None:
    spec = declared_spec("bicubic", 4, "cpu", "auto", "auto", "low-frequency")
    network = ModelPlan("bicubic", scale=4, device="cpu")()
    assert fit_network(network, spec, "job").arithmetic == spec.arithmetic
    with pytest.raises(JobError, match="is for the model bicubic"):
        fit_network(ModelPlan("lanczos", scale=4, device="cpu")(), spec, "job")
    cards = replace(
        spec, arithmetic=(("runtime", "recorded"), ("precision", "bf16"), ("device", "cuda"))
    )
    with pytest.raises(JobError, match="start it with --"):
        fit_network(network, cards, "job")


@given(works=st.lists(st.integers(1, 100), min_size=1, max_size=60), shards=st.integers(1, 20))
def test_shards_are_contiguous_and_as_equal_as_units_allow(works: list[int], shards: int) -> None:
    bounds = equal_shards(works, shards)
    assert len(bounds) == shards + 1
    assert bounds[0] == 0
    assert bounds[-1] == len(works)
    assert list(bounds) == sorted(bounds)
    for start, end in itertools.pairwise(bounds):
        assert sum(works[start:end]) <= sum(works) / shards + max(works)


@given(width=st.integers(1, 900), height=st.integers(1, 900), col=st.integers(0, 50))
def test_chunks_in_order_are_all_chunks_and_fours_are_squares(
    width: int, height: int, col: int
) -> None:
    region = Region(col, 7, width, height)
    chunks = ordered_chunks(region, 100)
    assert len(set(chunks)) == len(chunks)
    assert sum(chunk.pixels for chunk in chunks) == region.pixels
    if width >= 200 and height >= 200:
        square = chunks[:4]
        assert {(c.col - col, c.row - 7) for c in square} == {
            (0, 0),
            (100, 0),
            (0, 100),
            (100, 100),
        }


def small_job(units: int, shards: int) -> JobFile:
    bounds = tuple(units * k // shards for k in range(shards + 1))
    return JobFile(
        version="", model="", spec={}, options={}, colour="", output="", unit_chunks=1,
        shards=bounds, parts=(), scenes=1, failed=0, chunks=units, pixels_hr=units,
    )  # fmt: skip


def picker(job: JobFile, folder: Path, name: str, own: int | None, **more: Any) -> Picker:
    claims = Claims(FolderPlace(str(folder)))
    return Picker(job, claims, name, own, np.random.default_rng(0), **more)


def take_all(one: Picker, now_s: float = 0.0) -> Iterator[Taken]:
    while isinstance(taken := one.choose(now_s), Taken):
        yield taken


def test_two_workers_share_and_do_nothing_twice(tmp_path: Path) -> None:
    job = small_job(20, 2)
    a, b = picker(job, tmp_path, "a", 0), picker(job, tmp_path, "b", 0)  # the same shard, twice
    taken: list[int] = []
    for _ in range(10):
        for one in (a, b):
            choice = one.choose(0.0)
            assert isinstance(choice, Taken)
            taken.append(choice.unit)
            one.claims.mark_done(choice.shard, choice.unit, {})
    assert sorted(taken) == list(range(20))
    assert a.choose(0.0) is None


def test_what_was_dropped_is_doubted_only_after_a_while(tmp_path: Path) -> None:
    job = small_job(3, 1)
    dead, alive = picker(job, tmp_path, "dead", 0), picker(job, tmp_path, "alive", 0)
    lost = dead.choose(0.0)
    assert isinstance(lost, Taken)
    for taken in take_all(alive):
        alive.claims.mark_done(taken.shard, taken.unit, {})
        alive.took(10.0)
    waiting = alive.choose(20.0)
    assert isinstance(waiting, Wait)
    assert waiting.seconds == pytest.approx(10.0)
    again = alive.choose(31.0)
    assert again == Taken(lost.unit, lost.shard, 2)
    alive.claims.mark_done(lost.shard, lost.unit, {})
    assert alive.choose(31.0) is None


def test_a_worker_alone_with_its_shard_leaves_the_others_be(tmp_path: Path) -> None:
    one = picker(small_job(20, 4), tmp_path, "one", 1, help_others=False)
    units = []
    for taken in take_all(one):
        units.append(taken.unit)
        one.claims.mark_done(taken.shard, taken.unit, {})
    assert units == list(range(5, 10))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), deaths=st.floats(0, 0.4))
def test_everything_is_done_whoever_dies(
    seed: int, deaths: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = np.random.default_rng(seed)
    job, folder = small_job(12, 3), tmp_path_factory.mktemp("claims")
    now_s, done = 0.0, set()
    for round_number in range(200):
        one = picker(job, folder, f"w{round_number}", int(rng.integers(3)))
        one.took(1.0)
        while True:
            now_s += 1.0
            choice = one.choose(now_s)
            if choice is None or isinstance(choice, Wait):
                now_s += 10.0
                break
            if rng.random() < deaths:
                break
            one.claims.mark_done(choice.shard, choice.unit, {})
            done.add(choice.unit)
        if choice is None:
            break
    aside = {u for u, n in Claims(FolderPlace(str(folder))).claimed().items() if n >= 8}
    assert done | aside == set(range(12))


def test_a_folder_puts_once_and_lists_what_is_there(tmp_path: Path) -> None:
    place = FolderPlace(str(tmp_path))
    assert place.put("a/b.1", b"x")
    assert not place.put("a/b.1", b"y")
    assert place.get("a/b.1") == b"x"
    assert place.put("a/b.1", b"z", replace=True)
    assert place.get("a/b.1") == b"z"
    assert list(place.keys("a/")) == ["a/b.1"]
    place.delete("a/b.1")
    assert not place.has("a/b.1")
    assert list(place.keys("nothing/")) == []


def test_unknown_places_are_named() -> None:
    with pytest.raises(ConfigError, match="s3://"):
        open_place("ftp://host/folder")


def test_costs_are_arithmetic(scenes: list[Path], tmp_path: Path) -> None:
    job = plan(tmp_path, scenes)
    costs = cost_of(job, mpx_per_s=2.0, price_an_hour=3.6)
    px = sum(16 * (200 + 40 * k) * 260 for k in range(3))
    assert costs.pixels_hr == px
    assert costs.machine_hours == pytest.approx(px / 2e6 / 3600)
    assert costs.money == pytest.approx(px / 2e6 / 1000)
    assert costs.bytes_read == sum(scene.stat().st_size for scene in scenes)
    with pytest.raises(ConfigError, match="rate"):
        cost_of(job, 0.0)


def run(*words: object, env: dict[str, str] | None = None) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words], env=env)


def test_the_commands(scenes: list[Path], tmp_path: Path) -> None:
    job, out = tmp_path / "job", tmp_path / "out"
    listed = tmp_path / "inputs.txt"
    listed.write_text(f"{scenes[1]}\n")
    planned = run(
        "plan", scenes[0], out, "--job", job, "--inputs", listed, "--shards", 2, "-m", "bicubic",
        "--chunk", CHUNK, "--rate", 10, "--price", 2, "--json",
    )  # fmt: skip
    assert planned.exit_code == 0, planned.output
    assert json.loads(planned.stdout)["inputs"] == 2
    assert run("work", job, "--shard", "2/3").exit_code == JobError.exit_status
    assert run("work", job, "--shard", "2/2").exit_code == JobError.exit_status
    assert run("work", job, "--shard", "one").exit_code == ConfigError.exit_status
    environment = {"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_MIN": "3"}
    assert run("work", job, "--only-own", env=environment).exit_code == 0
    half = json.loads(run("status", job, "--json").stdout)
    assert half["shards_left"] == [0]
    assert run("finish", job).exit_code == 6
    assert run("work", job, env={"JOB_COMPLETION_INDEX": "0"}).exit_code == 0
    assert "units done" in run("status", job).stdout
    finished = run("finish", job, "--json")
    assert finished.exit_code == 0
    assert sorted(json.loads(finished.stdout)["outputs"]) == ["scene0_x4.tif", "scene1_x4.tif"]
    missing = run("status", tmp_path / "nothing")
    assert missing.exit_code == JobError.exit_status
    assert "slimdiffsr plan" in missing.stderr


def test_the_list_of_scenes_streams_in_parts(
    scenes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slimdiffsr.scale_out.planning.PART_SCENES", 2)
    monkeypatch.setattr("slimdiffsr.scale_out.jobfile.PART_SCENES", 2)
    job = plan(tmp_path, scenes)
    assert len(job.parts) == 2
    assert [scene.number for scene in read_part(place_of(tmp_path), 1)] == [2]
    units = list(job.find_units(place_of(tmp_path), range(job.units)))
    assert [unit.number for unit in units] == list(range(job.units))
    assert {unit.scene.number for unit in units} == {0, 1, 2}
    with pytest.raises(SlimDiffSRError):
        list(read_part(place_of(tmp_path), 5))
