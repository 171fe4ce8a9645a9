"""Two processes on the CPU make of a batch what one makes of it."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from safetensors.torch import load_file
from students import micro_training, write_images
from teachers import micro_teacher, run_paths, write_base
from test_training_loop import Counting, quarter

from slimdiffsr.errors import ConfigError, TrainingError
from slimdiffsr.files.stages import load_codec
from slimdiffsr.files.teachers import TeacherBase, merge_teacher
from slimdiffsr.settings.config import DistillConfig, StudentLoss
from slimdiffsr.settings.presets import PRESETS
from slimdiffsr.stages import (
    RunPaths,
    train_prior,
    train_student,
    train_teacher,
    train_uncertainty,
)
from slimdiffsr.stages.pretraining import PRIORS, UNCERTAINTIES
from slimdiffsr.stages.processes import join, rows_of
from slimdiffsr.stages.run import start_run
from slimdiffsr.training.data import TrainingPairs, training_batches
from slimdiffsr.training.images import find_images
from slimdiffsr.training.loop import STATE_FILE, Progress, TrainResult, train
from slimdiffsr.training.state import load_state
from slimdiffsr.training.stopping import AGREE_EVERY

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # From Python 3.12 on, where the process has threads; those here hold no locks.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def in_processes(count: int, work: Callable[[int], Any]) -> None:
    """Call ``work`` with 0, 1, ... in as many processes, with torchrun's environment."""
    port = free_port()
    context = multiprocessing.get_context("fork")  # nothing need be imported again

    def enter(rank: int) -> None:
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count),
            "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        torch.set_num_threads(1)
        AcceleratorState._reset_state(reset_partial_state=True)
        work(rank)
        PartialState().destroy_process_group()

    processes = [context.Process(target=enter, args=(rank,)) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * count


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of each stage with one process below ``one``, with two below ``two``."""
    place = tmp_path_factory.mktemp("processes")
    base, paths = write_base(place / "base"), run_paths(place)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    (place / "one").mkdir()
    (place / "two").mkdir()
    run_stages(place / "one", base, paths, place / "merged.safetensors")
    in_processes(2, lambda _: run_stages(place / "two", base, paths, place / "merged.safetensors"))
    torch.set_num_threads(threads)
    return place


def run_stages(out: Path, base: TeacherBase, paths: RunPaths, merged: Path) -> None:
    """All stages at their smallest, and the losses of each step as JSON lines."""
    few: dict[str, Any] = {
        "steps": 2,
        "batch": 2,
        "log_every": 1,
        "save_every": 2,
        "validate_every": 9,
    }
    codec = load_codec("taesd", base.codec_folder)

    def at(stage: str) -> RunPaths:
        return dataclasses.replace(paths, out=out / stage)

    def note(stage: str) -> Callable[[Progress], None]:
        def write(progress: Progress) -> None:
            with (out / f"{stage}.jsonl").open("a") as file:
                file.write(json.dumps(dict(progress.losses)) + "\n")

        return write

    uncertainty = dataclasses.replace(
        UNCERTAINTIES["micro"], **(few | {"batch": 4, "accumulate": 2, "mean_only_steps": 1})
    )
    train_uncertainty(uncertainty, at("uncertainty"), codec, on_progress=note("uncertainty"))
    prior = dataclasses.replace(PRIORS["micro"], **(few | {"batch": 4, "accumulate": 2}))
    train_prior(prior, at("prior"), codec, on_progress=note("prior"))
    teacher = micro_teacher(**(few | {"batch": 4, "accumulate": 2}))
    train_teacher(teacher, at("teacher"), base, on_progress=note("teacher"))
    if not merged.exists():
        merge_teacher(out / "teacher" / "teacher.safetensors", base, merged)
    student = dataclasses.replace(
        PRESETS["micro"], **few, loss=StudentLoss(lpips=0.5, gan=0.1, gan_from=1),
        distill=DistillConfig(samples=256, mmd_weight=10.0), ema=0.9,
    )  # fmt: skip
    imitating = dataclasses.replace(at("student"), teacher=merged)
    train_student(student, imitating, on_progress=note("student"))


WRITTEN = {
    "uncertainty": "estimator.safetensors",
    "prior": "unet.safetensors",
    "teacher": "teacher.safetensors",
    "student": "model.safetensors",
}


@pytest.mark.slow
@pytest.mark.parametrize("stage", WRITTEN)
def test_two_processes_have_the_losses_and_weights_of_one(place: Path, stage: str) -> None:
    one, two = (
        [json.loads(line) for line in (place / run / f"{stage}.jsonl").read_text().splitlines()]
        for run in ("one", "two")
    )
    assert len(one) == len(two) == 2  # the second process reports nothing
    for ours, theirs in zip(two, one, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-7)
    first, second = (load_file(place / run / stage / WRITTEN[stage]) for run in ("one", "two"))
    assert first.keys() == second.keys()
    # Adam's first steps are as long for gradients of rounding size as for others, so single
    # numbers may differ by a step; taken together they do not.
    moved = torch.cat([(first[k] - second[k]).flatten().float() for k in first]).norm()
    all_steps = 2e-3 * sum(v.numel() for v in first.values()) ** 0.5  # two steps of 1e-3
    assert moved < 0.02 * all_steps


def test_shares_make_up_the_rows_of_the_whole() -> None:
    class Second:
        num_processes, process_index = 2, 1

    second: Any = Second()
    # Of four images, true ones before made ones, the second process has the last two of each.
    assert rows_of(second, 4, parts=2) == (8, [2, 3, 6, 7])


def test_processes_stop_at_the_same_step_for_time_signals_and_what_is_not_finite(
    tmp_path: Path,
) -> None:
    config = micro_training(steps=30, save_every=4, validate_every=99, log_every=7)
    write_images(tmp_path / "data", [(80, 80)])
    pairs = TrainingPairs(find_images([tmp_path / "data"], 64), 64, 1, quarter)

    def loop(rank: int) -> None:
        alone = rank == 1  # what only the second process meets
        accelerator = join("no")
        batches = partial(
            training_batches, config, pairs,
            device=accelerator.device, process=rank, processes=2,
        )  # fmt: skip

        def run(name: str, task: Counting, max_minutes: float | None = None) -> TrainResult:
            return train(
                config, task, batches, tmp_path / name, accelerator, max_minutes=max_minutes
            )

        assert run("time", Counting(), 0.0 if alone else 1000.0).step == 1
        asked = Counting()
        asked.interrupt_at = 3 if alone else -1
        with pytest.raises(KeyboardInterrupt):
            run("signal", asked)
        # They agree behind the first two steps, and then, as a step is short, every tenth.
        assert asked.steps == list(range(1, 2 + AGREE_EVERY + 1))
        with pytest.raises(TrainingError, match="at step 6"):
            run("nan", Counting(nan_loss_at=6 if alone else -1))

    in_processes(2, loop)
    steps = {
        name: load_state(tmp_path / name / STATE_FILE)["step"] for name in ("time", "signal", "nan")
    }
    assert steps == {"time": 1, "signal": 2 + AGREE_EVERY, "nan": 4}


def test_processes_that_do_not_find_each_other_and_batches_that_do_not_divide_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "data", [(80, 80)])
    paths = RunPaths(data=(tmp_path / "data",), out=tmp_path / "out")

    def three(rank: int) -> None:
        with pytest.raises(ConfigError, match=r"batch of 4 .* among 3 processes .* multiple of 3"):
            start_run(dataclasses.replace(UNCERTAINTIES["micro"], batch=4), paths)
        torch.distributed.barrier()  # or the first would be gone before the last one joins

    in_processes(3, three)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(ConfigError, match="2 processes were started, but 1 found together"):
        join("no")
