"""Who works on a command's scenes: processes for cores or cards, and what does not fit together."""

from pathlib import Path

import pytest
from rasters import byte_picture, write_raster
from test_cli import fails, run

from slimdiffsr.crews import ModelPlan, cores, devices_of, worker_plans
from slimdiffsr.errors import ConfigError


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert cores() == 1
    monkeypatch.setattr("slimdiffsr.crews.cores", lambda: 16)
    plans = worker_plans(ModelPlan("bicubic", device="cpu"), 5)
    assert [plan.name for plan in plans] == [f"worker {k}" for k in range(1, 6)]
    assert {plan.threads for plan in plans} == {3}
    assert worker_plans(ModelPlan("bicubic", device="cpu"), 1) == []
    assert worker_plans(ModelPlan("bicubic", device="auto"), None) == []


def test_there_is_one_worker_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert devices_of("all") == ["cuda:0", "cuda:1", "cuda:2"]
    plans = worker_plans(ModelPlan(device="cuda:2, cuda:0"), None)
    assert [plan.name for plan in plans] == ["cuda:2", "cuda:0"]
    shared = worker_plans(ModelPlan(device="cuda:1"), 2)
    assert [plan.name for plan in shared] == ["cuda:1 (1)", "cuda:1 (2)"]
    with pytest.raises(ConfigError, match="got 3 workers and cuda:1, cuda:2"):
        worker_plans(ModelPlan(device="cuda:1,cuda:2"), 3)
    with pytest.raises(ConfigError, match="no device 'cuda:3'"):
        worker_plans(ModelPlan(device="cuda:0,cuda:3"), None)
    with pytest.raises(ConfigError, match="got None workers and cpu, cuda:0"):
        worker_plans(ModelPlan(device="cpu,cuda:0"), None)


def test_bad_numbers_are_one_sentence(tmp_path: Path) -> None:
    src = write_raster(tmp_path / "in.tif", byte_picture(3, 20, 20))
    out = tmp_path / "out.tif"
    fails(run("upscale", src, out, "-m", "bicubic", "--workers", 0), "workers must be at least 1")
    fails(run("upscale", src, out, "-m", "bicubic", "--batch", 0), "batch must be at least 1")
    fails(run("upscale", src, out, "--device", "cpu,cpu"), "a device stands twice in 'cpu,cpu'")


@pytest.mark.slow
def test_two_workers_enlarge_several_scenes_to_the_same_bytes(tmp_path: Path) -> None:
    sources = [
        write_raster(tmp_path / f"{k}.tif", byte_picture(3, 200, 150, seed=k)) for k in range(3)
    ]
    common = ("-m", "bicubic", "--device", "cpu", "--chunk", 512)
    assert run("upscale", *sources, tmp_path / "one", *common).exit_code == 0
    result = run("upscale", *sources, tmp_path / "two", *common, "--workers", 2)
    assert result.exit_code == 0, result.stderr
    for path in (tmp_path / "one").iterdir():
        assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes()
