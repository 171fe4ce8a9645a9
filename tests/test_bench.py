"""Cost: counts against closed forms and the paper, fair turns, failures that stay alone."""

import json
import statistics
import sys
import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimdiffsr.bench import measure, memory
from slimdiffsr.bench.counts import count_macs, count_row, diffusion_parts
from slimdiffsr.bench.diffusion import StableDiffusion
from slimdiffsr.bench.fresh import Task, run_fresh
from slimdiffsr.bench.measure import Cell, quartiles, take_turns, time_once
from slimdiffsr.bench.paper import PAPER_TABLES
from slimdiffsr.bench.protocol import BenchConfig
from slimdiffsr.bench.rows import ROWS, Row, choose_rows
from slimdiffsr.bench.run import bench
from slimdiffsr.bench.tables import shares_table
from slimdiffsr.errors import ConfigError, ModelNotFoundError, ScaleError
from slimdiffsr.method.diffusion import noise_schedule

CPU = torch.device("cpu")


# Counts


@pytest.mark.parametrize(
    ("row", "gmacs", "tolerance"), [("base", 226.7, 0.05), ("tiny", 4.373, 0.005)]
)
def test_the_students_cost_what_is_known(row: str, gmacs: float, tolerance: float) -> None:
    assert count_row(ROWS[row], 4, 512).macs.total / 1e9 == pytest.approx(gmacs, abs=tolerance)


def test_layers_and_attention_are_counted_as_on_paper() -> None:
    conv, linear = nn.Conv2d(6, 8, 3, padding=1, groups=2), nn.Linear(8, 5)

    def work() -> Tensor:
        tokens = conv(torch.zeros(2, 6, 4, 7)).flatten(2).transpose(1, 2)
        scores = tokens @ tokens.transpose(1, 2)
        out: Tensor = linear(scores @ tokens)
        return out

    macs = count_macs(work)
    cells = 2 * 4 * 7
    layers = cells * (9 * (6 // 2) * 8 + 8 * 5)
    assert macs.layers == layers
    assert macs.total == layers + 2 * 2 * (4 * 7) ** 2 * 8


def test_layers_are_what_hooks_on_modules_see() -> None:
    with torch.device("meta"):
        model = ROWS["base"].build(4)
        seen = []

        def hook(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
            weight: Any = module.weight
            channel = 1 if isinstance(module, nn.Conv2d) else -1
            seen.append(out.numel() // out.shape[channel] * weight.numel())

        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(hook)
        with torch.no_grad():
            model(torch.zeros(1, 3, 32, 32))
    assert count_row(ROWS["base"], 4, 128).macs.layers == pytest.approx(sum(seen), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("table", [5, 6])
def test_every_ablation_has_the_papers_number_of_parameters(table: Any) -> None:
    pytest.importorskip("diffusers")
    for paper in PAPER_TABLES[table]:
        assert paper.row is not None
        counted = count_row(ROWS[paper.row], 4, 64).parameters_paper
        assert counted is not None
        # Four digits, which the paper rounds or, once, cuts off.
        assert counted / 1e6 == pytest.approx(paper.parameters_m, rel=2e-4)


def test_table_1_has_the_true_shares_and_the_papers() -> None:
    pytest.importorskip("diffusers")
    parts = diffusion_parts()
    assert parts["UNet"].parameters == 865_910_724
    assert parts["encoder"].parameters + parts["decoder"].parameters == 83_653_863
    unet, vae = shares_table(parts).splitlines()[-2:]
    assert "91.19 %" in unet
    assert "92.02 %" in unet
    assert "8.81 %" in vae
    # The paper's 16 and 84 % leave attention out, as hooks on layers do.
    assert unet.split("|")[5:7] == [" 16 % ", " 16.0 % "]
    assert vae.split("|")[5:7] == [" 84 % ", " 84.0 % "]


class Still(nn.Module):
    """A UNet that always predicts the same noise."""

    def __init__(self, noise: Tensor) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, z: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        return self.noise


def test_a_step_is_that_of_diffusers_sampler() -> None:
    diffusers = pytest.importorskip("diffusers")
    z, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.device("meta"):
        model = StableDiffusion(4)
    model.unet = Still(noise)  # type: ignore[assignment]
    model.schedule, model.prompt = noise_schedule(), torch.zeros(1, 77, 1024)
    sampler = diffusers.DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        timestep_spacing="trailing",
    )
    sampler.set_timesteps(50)
    theirs = sampler.step(noise, 999, z).prev_sample
    torch.testing.assert_close(model.step(z, 999, 979), theirs, rtol=1e-4, atol=1e-4)


def test_many_steps_cost_as_many_unets() -> None:
    pytest.importorskip("diffusers")
    with torch.device("meta"):
        model, rgb = StableDiffusion(4), torch.zeros(1, 3, 16, 16)
    steps = {n: Row(f"{n}", f"{n}", lambda scale: model, "sd", steps=n) for n in (1, 3)}
    one, three = (count_row(steps[n], 4, 64).macs for n in (1, 3))
    unet = count_macs(lambda: model.step(torch.zeros(1, 4, 8, 8, device="meta")))
    assert three.total == one.total + 2 * unet.total
    assert count_macs(lambda: model(rgb, steps=3)) == three


# Timing


def scripted(name: str, seconds: float, order: list[str], fail_at: int | None = None) -> Cell:
    """A cell that takes a known time, notes its turn, and may fail."""

    def sample() -> float:
        order.append(name)
        if order.count(name) == fail_at:
            raise RuntimeError("out of memory\nand a long trace")
        time.sleep(seconds)
        return seconds

    return Cell(Row(name, name, lambda scale: nn.Identity(), name), 1, sample)


def test_rows_take_turns_after_all_are_warm() -> None:
    order: list[str] = []
    cells = [scripted(name, 0.0, order) for name in "ab"]
    take_turns(cells, runs=3, warmup=2)
    assert order == ["a", "a", "b", "b"] + ["a", "b"] * 3
    assert [(cell.warmed, len(cell.seconds)) for cell in cells] == [(2, 3), (2, 3)]


@pytest.mark.parametrize("fail_at", [1, 4])
def test_a_row_that_fails_loses_nothing_of_the_others(fail_at: int) -> None:
    order: list[str] = []
    cells = [scripted("a", 0.0, order, fail_at), scripted("b", 0.0, order)]
    take_turns(cells, runs=4, warmup=2)
    assert cells[0].error == "RuntimeError: out of memory"
    assert len(cells[1].seconds) == 4
    assert cells[1].error is None


def test_a_slow_row_stops_at_its_share_and_a_quick_one_goes_on() -> None:
    order: list[str] = []
    cells = [scripted("slow", 0.05, order), scripted("quick", 0.0, order)]
    take_turns(cells, runs=50, warmup=5, seconds=0.4)
    slow, quick = cells
    assert slow.warmed == 3  # though a fifth of the share is less than one run
    assert 3 <= len(slow.seconds) <= 5
    assert (quick.warmed, len(quick.seconds)) == (5, 50)


def test_a_row_slower_than_its_share_is_timed_once() -> None:
    cell = scripted("slow", 0.02, [])
    take_turns([cell], runs=50, warmup=5, seconds=0.01)
    assert (cell.warmed, len(cell.seconds)) == (1, 1)


@pytest.mark.parametrize(("asked", "made"), [(1, 1), (20, 3)])
def test_a_row_whose_first_run_was_slow_is_warmed_up_as_much_as_any(asked: int, made: int) -> None:
    pauses = iter([0.05])  # then none
    cell = scripted("late", 0.0, [])
    quick = cell.sample

    def sample() -> float:
        time.sleep(next(pauses, 0.0))
        return quick()

    cell.sample = sample
    take_turns([cell], runs=2, warmup=asked, seconds=0.2)
    assert (cell.warmed, len(cell.seconds)) == (made, 2)


def test_the_run_that_measures_memory_is_no_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5 * 2**20)
    order: list[str] = []
    cell = scripted("a", 0.05, order)
    measure.cuda_peak_mib(cell, CPU, before=2**21)
    assert cell.peak_mib == 3.0
    assert (order, cell.warmed, cell.spent_s) == (["a"], 0, 0.0)


def test_quartiles_are_those_of_the_textbook() -> None:
    seconds = [5.0, 1.0, 4.0, 2.0, 3.0, 9.0, 7.0]
    q = quartiles(seconds)
    assert [q.q1, q.median, q.q3] == statistics.quantiles(seconds, n=4, method="inclusive")


def test_the_clock_on_a_cpu_measures_the_run() -> None:
    assert 0.02 <= time_once(lambda: time.sleep(0.02), CPU) < 0.5


class Stepper(StableDiffusion):
    """Stable Diffusion's shape of work in two sleeps: 20 ms a whole run, 5 ms a step."""

    def __init__(self, scale: int) -> None:
        nn.Module.__init__(self)
        self.scale = scale

    def forward(self, rgb_lr: Tensor, steps: int = 1) -> Tensor:
        time.sleep(0.020)
        return rgb_lr

    def step(self, z: Tensor, now: int = 999, then: int = 0) -> Tensor:
        assert z.shape == (2, 4, 8, 8)
        time.sleep(0.005)
        return z


def test_many_steps_on_a_cpu_are_extrapolated_and_say_so() -> None:
    row = Row("many", "many", Stepper, "sd", steps=11)
    stepper = Stepper(4)
    cell = measure.make_cell(row, stepper, stepper, torch.zeros(2, 3, 16, 16))
    assert cell.extrapolated
    assert 0.07 <= cell.sample() < 0.3


# The whole run


@pytest.fixture
def small() -> BenchConfig:
    return BenchConfig(out_px=64, runs=3, warmup=1, batches=(1, 2), fresh=False)


def broken(scale: int) -> nn.Module:
    raise RuntimeError("no such weights")


@pytest.mark.usefixtures("one_thread")
def test_each_row_gives_a_record_for_each_batch_and_precision(small: BenchConfig) -> None:
    rows = [ROWS["tiny"], Row("broken", "broken", broken, "broken"), ROWS["bicubic"]]
    config = BenchConfig(
        **{name: getattr(small, name) for name in ("out_px", "runs", "warmup", "batches", "fresh")},
        precisions=("fp32", "bf16"),
    )
    kept: list[int] = []
    records = bench(rows, config, lambda done: kept.append(len(done)))
    assert kept == [6, 6]
    cells = [(r["precision"], r["row"], r["batch"]) for r in records]
    names = ("tiny", "broken", "bicubic")
    assert cells == [(p, n, b) for p in ("fp32", "bf16") for n in names for b in (1, 2)]
    for record in records:
        if record["row"] == "broken":
            assert record["error"] == "RuntimeError: no such weights"
            assert "median_s" not in record
            continue
        assert record["error"] is None
        assert record["runs"] == 3
        assert 0 < record["q1_s"] <= record["median_s"] <= record["q3_s"]
        made = record["batch"] * 64 * 64 / 1e6
        assert record["mpx_per_s"] == pytest.approx(made / record["median_s"])
        assert record["torch"] == torch.__version__
        assert record["device_type"] == "cpu"
    assert json.loads(json.dumps(records)) == records


class Interrupting(nn.Module):
    """Is stopped by the user in its third run."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    def forward(self, rgb_lr: Tensor) -> Tensor:
        self.runs += 1
        if self.runs == 3:
            raise KeyboardInterrupt
        return rgb_lr


def test_what_an_interrupted_run_has_timed_is_kept() -> None:
    row = Row("stopped", "stopped", lambda scale: Interrupting(), "stopped")
    kept: list[dict[str, Any]] = []
    config = BenchConfig(out_px=64, runs=9, warmup=1, fresh=False, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        bench([row], config, kept.extend)
    # Its first run counts MACs on a copy of its own; the second was the warm-up.
    assert [(r["row"], r["runs"]) for r in kept] == [("stopped", 1)]


def test_a_row_that_does_not_fit_into_memory_says_so(
    small: BenchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**20)
    (first, second) = bench([ROWS["tiny"]], small)
    for record in (first, second):
        assert "tiny needs about" in record["error"]
        assert "0.0 GiB are free" in record["error"]


def test_free_memory_is_less_than_the_machines() -> None:
    psutil = pytest.importorskip("psutil")
    free = memory.free_bytes(CPU)
    assert free is not None
    assert 0 < free <= psutil.virtual_memory().total


def test_a_peer_whose_package_is_missing_names_the_extra(
    small: BenchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    for record in bench([ROWS["esrgan"]], small):
        assert record["error"] == record["count_error"]
        assert "pip install 'slimdiffsr[peers]'" in record["error"]


def test_the_peers_are_the_papers_size() -> None:
    pytest.importorskip("spandrel", exc_type=ImportError)
    counted = {name: count_row(ROWS[name], 4, 64).parameters_used for name in ("esrgan", "swinir")}
    assert counted == {"esrgan": 16_697_987, "swinir": 11_715_559}


@pytest.mark.slow
def test_a_fresh_process_tells_its_cold_start_and_memory() -> None:
    task = Task("compact", None, 4, 64, 1, "fp32", "cpu", threads=1)
    fresh = run_fresh(task, timeout_s=120)
    assert 0.3 < fresh.cold_start_s < 60  # no python imports torch faster
    assert 11_458_122 * 4 / 2**20 < fresh.peak_mib < 1000


def test_a_fresh_process_that_fails_tells_why() -> None:
    task = Task("tiny", None, 2, 64, 1, "fp32", "cpu", threads=1)
    with pytest.raises(ConfigError, match="enlarges 4 or 8 times, got 2"):
        run_fresh(task, timeout_s=120)


@pytest.mark.gpu
def test_on_cuda_events_and_memory_are_of_the_row_alone() -> None:
    config = BenchConfig(device="cuda", runs=5, warmup=2, precisions=("bf16",), fresh=False)
    compact, tiny = bench([ROWS["compact"], ROWS["tiny"]], config)
    assert compact["error"] is None
    assert 11_458_122 * 2 / 2**20 < compact["peak_mib"] < 1000
    assert tiny["peak_mib"] < compact["peak_mib"]
    assert 0 < tiny["median_s"] < 1


# Settings


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"runs": 0}, "at least 1"),
        ({"warmup": 0}, "at least 1"),
        ({"out_px": 100}, "multiple of 64"),
        ({"scale": 3}, "2, 4 or 8"),
        ({"batches": (0,)}, "batch"),
        ({"precisions": ("int8",)}, "fp32, bf16, fp16"),
        ({"max_minutes": 0.0}, "positive"),
    ],
)
def test_a_setting_out_of_range_is_an_error(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        BenchConfig(**values)


@pytest.mark.parametrize(
    ("names", "models", "scale", "error", "words"),
    [
        (["bse"], [], 4, ConfigError, "no row 'bse': there are base"),
        ([], ["nothing.safetensors"], 4, ModelNotFoundError, "nothing.safetensors"),
        ([], ["tiny-x4"], 8, ScaleError, "4 times"),
        (["bicubic"], ["bicubic"], 4, ConfigError, "two rows are called bicubic"),
    ],
)
def test_rows_that_are_not_there_are_found_out_first(
    names: list[str], models: list[str], scale: int, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        choose_rows(names, models, scale)


def test_without_names_all_rows_are_measured() -> None:
    assert [row.name for row in choose_rows([], [], 4)] == list(ROWS)
