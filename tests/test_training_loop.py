from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.accelerator import Accelerator
from students import micro_training, write_images
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from slimdiffsr.errors import DiskFullError, OutputError, TrainingError, WeightsError
from slimdiffsr.settings.config import TrainConfig
from slimdiffsr.training.data import (
    TrainingPairs,
    batch_files,
    training_batches,
)
from slimdiffsr.training.images import find_images
from slimdiffsr.training.loop import (
    STATE_FILE,
    Average,
    Progress,
    TrainResult,
    learning_rate_factor,
    resume,
    train,
)
from slimdiffsr.training.notices import LeftOut, Notice
from slimdiffsr.training.pixels import read_rgb
from slimdiffsr.training.state import load_state, save_state
from slimdiffsr.training.stopping import Ending

pytestmark = pytest.mark.usefixtures("one_thread")


# Learning rate and average


def test_the_learning_rate_warms_up_holds_and_decays_to_its_end() -> None:
    config = micro_training(steps=100, warmup=10, decay_from=40, lr=1e-3, lr_final=1e-4)
    factors = [learning_rate_factor(step, config) for step in range(101)]
    np.testing.assert_allclose(factors[:10], np.arange(1, 11) / 10)
    assert set(factors[10:40]) == {1.0}
    # Half a cosine from 1 at step 40 to 0.1 at step 100.
    expected = [0.55 + 0.45 * math.cos(math.pi * (step - 40) / 60) for step in range(40, 101)]
    np.testing.assert_allclose(factors[40:], expected)


def test_the_learning_rate_is_constant_without_an_end() -> None:
    config = micro_training(steps=100, warmup=0, lr_final=None)
    assert {learning_rate_factor(step, config) for step in range(200)} == {1.0}


def test_the_average_is_the_recurrence_with_a_short_memory_at_first() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(5.0)
    average = Average(model, decay=0.5)
    expected = 5.0
    for step, value in enumerate((1.0, 2.0, 8.0, -3.0), start=1):
        model.weight.data.fill_(value)
        average.update(model, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        assert average.weights["weight"].item() == pytest.approx(expected, abs=1e-5)
    assert model.weight.item() == -3.0


# The loop, with a task of one number


class Counting:
    """Adds up what it is given; fails, or grows an infinite weight, on request."""

    def __init__(self, *, nan_loss_at: int = -1, nan_weight_at: int = -1) -> None:
        self.module = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.module.weight)
        self.modules: dict[str, nn.Module] = {"sum": self.module}
        self.optimizers: dict[str, Optimizer] = {"sum": SGD(self.module.parameters(), 1.0)}
        self.base_lr = {"sum": 2.0}
        self.averages: dict[str, Average] = {}
        self.nan_loss_at = nan_loss_at
        self.nan_weight_at = nan_weight_at
        self.steps: list[int] = []
        self.rates: list[float] = []
        self.validated: list[int] = []
        self.interrupt_at = -1
        self.signals = [signal.SIGINT]

    def update(self, lr: Tensor, hr: Tensor, step: int) -> dict[str, Tensor]:
        assert lr.shape[2:] == (16, 16)
        assert hr.shape[2:] == (64, 64)
        assert -1 <= hr.min() < 0 < hr.max() <= 1
        if step == self.interrupt_at:
            for number in self.signals:
                signal.raise_signal(number)
        self.steps.append(step)
        self.rates.append(self.optimizers["sum"].param_groups[0]["lr"])
        self.module.weight.data += hr.mean() + step
        if step == self.nan_weight_at:
            self.module.weight.data += math.inf
        return {"loss": torch.tensor(math.nan if step == self.nan_loss_at else 1.0)}

    def validate(self, step: int, out: Path) -> dict[str, float]:
        self.validated.append(step)
        return {"val/score": float(step)}

    def weight(self) -> float:
        return self.module.weight.item()


def quarter(hr: Tensor, rngs: list[torch.Generator]) -> Tensor:
    return hr[..., ::4, ::4]


@pytest.fixture
def pairs(tmp_path: Path) -> TrainingPairs:
    write_images(tmp_path / "data", [(80, 96), (64, 64), (128, 64)])
    images = find_images([tmp_path / "data"], 64)
    return TrainingPairs(images, 64, 1, quarter)


def run(
    task: Counting,
    pairs: TrainingPairs,
    out: Path,
    config: TrainConfig | None = None,
    *,
    max_minutes: float | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> TrainResult:
    config = config or micro_training()
    batches = partial(training_batches, config, pairs, device=torch.device("cpu"))
    return train(
        config, task, batches, out, Accelerator(),
        max_minutes=max_minutes, on_progress=on_progress,
        files_of=partial(batch_files, config, pairs),
    )  # fmt: skip


def saved_step(out: Path) -> int:
    step: int = load_state(out / STATE_FILE)["step"]
    return step


def test_a_run_takes_all_steps_in_order_at_the_planned_rates(
    pairs: TrainingPairs, tmp_path: Path
) -> None:
    task, seen = Counting(), list[Progress]()
    config = micro_training()
    result = run(task, pairs, tmp_path / "out", on_progress=seen.append)
    assert task.steps == [1, 2, 3, 4, 5, 6]
    assert task.rates == [2.0 * learning_rate_factor(step, config) for step in range(6)]
    assert task.validated == [3, 6]
    assert (result.step, result.finished, result.images, result.unreadable) == (6, True, 12, 0)
    assert [(p.step, p.steps, dict(p.losses)) for p in seen] == [
        (step, 6, {"loss": 1.0}) for step in task.steps
    ]
    assert all(p.images_per_s > 0 for p in seen)
    assert saved_step(tmp_path / "out") == 6


def test_speed_is_counted_from_the_first_step_of_this_call(
    pairs: TrainingPairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(Counting(), pairs, out, micro_training(steps=2))
    times = iter(range(1000))
    monkeypatch.setattr("slimdiffsr.training.log.time.monotonic", lambda: float(next(times)))
    seen: list[Progress] = []
    run(Counting(), pairs, out, micro_training(log_every=5), on_progress=seen.append)
    # The clock ticks once a reading: at the start, after steps 3 and 4, and for the report.
    assert [(p.step, p.images_per_s) for p in seen] == [(5, 3 * 2 / 3), (6, 2 / 2)]


@pytest.mark.parametrize("pool", [0, 3])
def test_a_run_cut_anywhere_goes_on_as_if_it_had_not_been(
    pairs: TrainingPairs, tmp_path: Path, pool: int
) -> None:
    config = micro_training(pool=pool)
    whole = Counting()
    run(whole, pairs, tmp_path / "whole", config)
    for cut in (1, 2, 5, 6):

        def stop(progress: Progress, at: int = cut) -> None:
            if progress.step == at:
                raise KeyboardInterrupt

        out = tmp_path / f"cut{cut}"
        with pytest.raises(KeyboardInterrupt):
            run(Counting(), pairs, out, config, on_progress=stop)
        assert saved_step(out) == cut
        again = Counting()
        assert run(again, pairs, out, config).finished
        assert again.steps == list(range(cut + 1, 7))
        assert again.weight() == whole.weight()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_a_step_waits_for_its_end_and_saves(
    pairs: TrainingPairs, tmp_path: Path, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    task = Counting()
    task.interrupt_at, task.signals = 3, [number]
    with pytest.raises(KeyboardInterrupt):
        run(task, pairs, tmp_path / "out")
    assert task.steps == [1, 2, 3]
    assert saved_step(tmp_path / "out") == 3
    assert signal.getsignal(number) == before
    whole, rest = Counting(), Counting()
    run(whole, pairs, tmp_path / "whole")
    assert run(rest, pairs, tmp_path / "out").step == 6
    assert rest.weight() == whole.weight()


def test_a_second_ctrl_c_does_not_wait_and_saves_no_half_done_step(
    pairs: TrainingPairs, tmp_path: Path
) -> None:
    task = Counting()
    task.interrupt_at, task.signals = 4, [signal.SIGINT, signal.SIGINT]
    with pytest.raises(KeyboardInterrupt):
        run(task, pairs, tmp_path / "out")
    assert task.steps == [1, 2, 3]
    assert saved_step(tmp_path / "out") == 2  # saved every second step


def test_ctrl_c_while_the_first_images_are_read_saves_step_zero(
    pairs: TrainingPairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "degrade", lambda *_: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run(Counting(), pairs, tmp_path / "out")
    assert saved_step(tmp_path / "out") == 0


def test_a_finished_run_does_nothing_more(pairs: TrainingPairs, tmp_path: Path) -> None:
    run(Counting(), pairs, tmp_path / "out")
    task = Counting()
    result = run(task, pairs, tmp_path / "out")
    assert (task.steps, result.finished, result.images) == ([], True, 0)


def test_time_that_is_up_ends_the_run_saved(pairs: TrainingPairs, tmp_path: Path) -> None:
    task = Counting()
    result = run(task, pairs, tmp_path / "out", max_minutes=0)
    assert (result.step, result.finished, task.steps) == (1, False, [1])
    assert saved_step(tmp_path / "out") == 1


@pytest.mark.parametrize("pool", [0, 3])
@pytest.mark.parametrize("field", ["nan_loss_at", "nan_weight_at"])
def test_what_is_not_finite_stops_the_run_which_names_step_and_files_and_keeps_the_last_good_state(
    pairs: TrainingPairs, tmp_path: Path, field: str, pool: int
) -> None:
    config = micro_training(log_every=5, pool=pool)  # not looked at before it is saved at step 4
    task = Counting(**{field: 3})
    with pytest.raises(TrainingError, match=r"at step 3, whose batch was from .*out") as error:
        run(task, pairs, tmp_path / "out", config)
    names = str(error.value).split("whose batch was from ")[1].split(";")[0].split(", ")
    # The third batch of two, found again by what it looked like.
    batches = list(training_batches(config, pairs, 0, device=torch.device("cpu")))
    for hr in batches[2][1]:
        assert any(cut_from(hr, Path(name)) for name in names)
    assert len(set(names)) == len(names) <= 2
    state = load_state(tmp_path / "out" / STATE_FILE)
    assert state["step"] == 2
    assert torch.isfinite(state["modules"]["sum"]["weight"]).all()
    assert run(Counting(), pairs, tmp_path / "out", config).finished


def cut_from(hr: Tensor, path: Path) -> bool:
    """Whether a crop in [-1, 1] is a part of an image, mirrored or turned."""
    image = read_rgb(path)
    crop = ((hr + 1) * 127.5).round() / 255
    views = [crop, crop.flip(-1), crop.flip(-2), crop.flip(-1, -2)]
    views += [view.transpose(-1, -2) for view in views]
    windows = image.unfold(1, 64, 1).unfold(2, 64, 1)  # (3, y, x, 64, 64)
    return any((windows - view[:, None, None]).abs().amax((0, 3, 4)).min() < 1e-3 for view in views)


def test_an_error_before_the_first_save_says_that_nothing_was_saved(
    pairs: TrainingPairs, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"at step 1.*nothing was saved yet"):
        run(Counting(nan_loss_at=1), pairs, tmp_path / "out")


def test_neither_ctrl_c_nor_the_end_of_time_saves_weights_that_are_not_finite(
    pairs: TrainingPairs, tmp_path: Path
) -> None:
    config = micro_training(log_every=100, save_every=100)
    task = Counting(nan_loss_at=2)
    task.interrupt_at = 4
    with pytest.raises(TrainingError):
        run(task, pairs, tmp_path / "a", config)
    assert not (tmp_path / "a" / STATE_FILE).exists()
    with pytest.raises(TrainingError):
        run(Counting(nan_weight_at=1), pairs, tmp_path / "b", config, max_minutes=0)
    assert not (tmp_path / "b" / STATE_FILE).exists()


def test_unreadable_images_are_told_each_once_with_the_reason(
    pairs: TrainingPairs, tmp_path: Path
) -> None:
    pairs.images.files[0].write_bytes(b"broken")
    told: list[Notice] = []
    left_out = LeftOut(tmp_path / "left-out.txt", told.append)
    config = micro_training()
    batches = training_batches(
        config, pairs, 0, device=torch.device("cpu"), on_passed=left_out.note
    )
    assert len(list(batches)) == 6
    (notice,) = told
    assert notice.text.startswith(f"passed over: cannot read the image {pairs.images.files[0]}: ")
    left_out.note([(f"{n}.png", f"{n}.png is broken") for n in range(9)])
    assert [n.text for n in told[1:]] == [
        "passed over: 0.png is broken", "passed over: 1.png is broken",
        f"more images are passed over: all of them are named in {left_out.file}",
    ]  # fmt: skip
    left_out.write()
    assert len(left_out.file.read_text().splitlines()) == 10


def test_the_state_of_another_kind_of_run_is_refused(pairs: TrainingPairs, tmp_path: Path) -> None:
    run(Counting(), pairs, tmp_path / "out")
    task = Counting()
    task.averages["sum"] = Average(task.module, 0.9)
    with pytest.raises(WeightsError, match=r"averages \[\], this run needs \['sum'\]"):
        run(task, pairs, tmp_path / "out")


def test_resumed_moments_lie_in_memory_as_their_parameters_do(tmp_path: Path) -> None:
    def convolution() -> Counting:
        task, layer = Counting(), nn.Conv2d(3, 4, 3)
        layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        task.modules, task.optimizers = {"sum": layer}, {"sum": Adam(layer.parameters())}
        return task

    saved, resumed = convolution(), convolution()
    saved.modules["sum"](torch.rand(2, 3, 8, 8)).square().sum().backward()
    saved.optimizers["sum"].step()
    state = {
        "modules": {"sum": saved.modules["sum"].state_dict()},
        "optimizers": {"sum": saved.optimizers["sum"].state_dict()},
        "averages": {},
    }
    save_state(tmp_path / STATE_FILE, {"step": 1, **state})
    assert resume(resumed, tmp_path / STATE_FILE) == 1
    pairs = zip(saved.modules["sum"].parameters(), resumed.modules["sum"].parameters(), strict=True)
    for before, after in pairs:
        moments = resumed.optimizers["sum"].state[after]
        assert moments["step"] == 1
        for name in ("exp_avg", "exp_avg_sq"):
            assert moments[name].stride() == after.stride()
            assert torch.equal(moments[name], saved.optimizers["sum"].state[before][name])
            assert moments[name].abs().min() > 0
    weight = next(resumed.modules["sum"].parameters())
    assert not weight.is_contiguous()  # which is what files hold


def scalars(out: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(out / "tensorboard"))  # type: ignore[no-untyped-call]
    events.Reload()  # type: ignore[no-untyped-call]
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)]  # type: ignore[no-untyped-call]
        for tag in events.Tags()["scalars"]  # type: ignore[no-untyped-call]
    }


def test_the_curves_of_a_resumed_run_go_on(pairs: TrainingPairs, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(Counting(), pairs, out, max_minutes=0)
    run(Counting(), pairs, out)
    curves = scalars(out)
    assert curves["loss"] == [(step, 1.0) for step in range(1, 7)]
    assert curves["val/score"] == [(3, 3.0), (6, 6.0)]
    assert [step for step, _ in curves["images_per_s"]] == list(range(1, 7))


class PowerCut(BaseException):
    """Nothing is saved any more."""


def test_steps_logged_after_the_last_save_are_not_in_the_curves_twice(
    pairs: TrainingPairs, tmp_path: Path
) -> None:
    def crash(progress: Progress) -> None:
        if progress.step == 5:
            raise PowerCut

    out = tmp_path / "out"
    with pytest.raises(PowerCut):
        run(Counting(), pairs, out, micro_training(save_every=3), on_progress=crash)
    assert saved_step(out) == 3
    time.sleep(1.1)  # log files are named by the second
    run(Counting(), pairs, out, micro_training(save_every=3))
    assert [step for step, _ in scalars(out)["loss"]] == [1, 2, 3, 4, 5, 6]


# What ends a run early


class Failing(Counting):
    """Fails inside a step, having done its part of it."""

    def __init__(self, error: Exception, at: int) -> None:
        super().__init__()
        self.error, self.at = error, at

    def update(self, lr: Tensor, hr: Tensor, step: int) -> dict[str, Tensor]:
        if step == self.at:
            raise self.error
        return super().update(lr, hr, step)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory"),
            "the GPU ran out of memory; step 2 is saved in",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            "this machine ran out of memory",
        ),
        (MemoryError("Caught MemoryError in DataLoader worker process 0."), "lower workers"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            "a data worker was killed, most often because the machine's memory ran out",
        ),
        (
            RuntimeError(
                "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible"
            ),
            "a data worker found no room in /dev/shm",
        ),
    ],
)
def test_what_fails_for_want_of_memory_is_saved_and_says_what_to_lower(
    pairs: TrainingPairs, tmp_path: Path, error: Exception, words: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises(TrainingError) as caught:
        run(Failing(error, 3), pairs, out, micro_training(save_every=100))
    assert words in str(caught.value)
    assert f"step 2 is saved in {out / STATE_FILE}" in str(caught.value)
    assert saved_step(out) == 2
    again = Counting()
    assert run(again, pairs, out).finished
    assert again.steps == [3, 4, 5, 6]


def test_any_other_error_is_raised_as_it_is_with_the_steps_saved(
    pairs: TrainingPairs, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match="full"):
        run(Failing(OutputError("full"), 5), pairs, tmp_path, micro_training(save_every=100))
    assert saved_step(tmp_path) == 4


def test_an_error_while_validating_keeps_the_steps_since_the_last_save(
    pairs: TrainingPairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(task: Counting, step: int, out: Path) -> dict[str, float]:
        raise DiskFullError("cannot write the picture: no space left")

    monkeypatch.setattr(Counting, "validate", full)
    with pytest.raises(DiskFullError):
        run(Counting(), pairs, tmp_path, micro_training(save_every=100, validate_every=3))
    assert saved_step(tmp_path) == 3


def test_validation_images_0_validates_nothing(pairs: TrainingPairs, tmp_path: Path) -> None:
    task = Counting()
    assert run(task, pairs, tmp_path, micro_training(validation_images=0)).finished
    assert task.validated == []


def test_the_end_of_a_child_process_waits_for_the_end_of_a_step(tmp_path: Path) -> None:
    seen: list[str] = []

    def told(number: int, frame: object) -> None:
        seen.append("told")

    before = signal.signal(signal.SIGCHLD, told)
    try:
        with Ending(Accelerator(), None) as ending:
            with ending.waits():
                signal.raise_signal(signal.SIGCHLD)
                seen.append("step done")
            signal.raise_signal(signal.SIGCHLD)
        assert seen == ["step done", "told", "told"]
        assert signal.getsignal(signal.SIGCHLD) is told
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGHUP"])
def test_schedulers_and_lost_connections_ask_as_ctrl_c_does(
    pairs: TrainingPairs, tmp_path: Path, name: str
) -> None:
    task = Counting()
    task.interrupt_at, task.signals = 3, [getattr(signal, name)]
    with pytest.raises(KeyboardInterrupt):
        run(task, pairs, tmp_path, micro_training(save_every=100))
    assert saved_step(tmp_path) == 3


def test_a_signal_that_is_ignored_stays_so(pairs: TrainingPairs, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        task = Counting()
        task.interrupt_at, task.signals = 3, [signal.SIGHUP]
        assert run(task, pairs, tmp_path).finished
    finally:
        signal.signal(signal.SIGHUP, before)
