"""A training run, as a process, loses nothing: whatever ends it, and on machines that are small."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from students import write_images

from slimdiffsr.training.loop import STATE_FILE
from slimdiffsr.training.state import load_state

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="signals of POSIX"),
]

SETTINGS = (
    "steps=100000", "batch=2", "crop_hr_px=64", "loss.gan=0", "loss.lpips=0", "workers=2",
    "log_every=1", "save_every=100000", "validation_images=0",
)  # fmt: skip
MODULE = [sys.executable, "-m", "slimdiffsr"]


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """A run that saves at its end alone."""
    write_images(tmp_path / "data", [(96, 96), (80, 64)])
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    return [
        "train", "student", "--config", "tiny-x4", "--data", str(tmp_path / "data"),
        "--out", str(tmp_path / "out"), *settings,
    ]  # fmt: skip


class Run:
    """A process of its own group, at some step of its training."""

    def __init__(self, words: list[str], log: Path) -> None:
        self.log = log
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                words, stdout=file, stderr=file, start_new_session=True, env=environment
            )

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for_steps(self) -> None:
        deadline = time.monotonic() + 120
        while not re.search(r"^step \d+ .*images/s", self.said(), re.MULTILINE):
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.1)
        time.sleep(1)

    def workers(self) -> list[Any]:
        processes: Any = psutil
        found: list[Any] = processes.Process(self.process.pid).children(recursive=True)
        return found

    def kill_group(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def ends(self, status: int, within_s: float = 20) -> str:
        assert self.process.wait(within_s) == status, self.said()
        said = self.said()
        assert "Traceback" not in said, said
        return said


@pytest.fixture
def start(tmp_path: Path) -> Iterator[list[Run]]:
    """Runs to end at the latest when the test does."""
    runs: list[Run] = []
    yield runs
    for run in runs:
        if run.process.poll() is None:
            run.kill_group(signal.SIGKILL)
            run.process.wait()


def saved(tmp_path: Path) -> int:
    return int(load_state(tmp_path / "out" / STATE_FILE)["step"])


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP"])
@pytest.mark.parametrize("whom", ["main", "group"])
def test_a_signal_to_the_process_or_to_its_group_saves_and_ends(
    command: list[str], tmp_path: Path, start: list[Run], number: str, whom: str
) -> None:
    run = Run([*MODULE, *command], tmp_path / "log")
    start.append(run)
    run.wait_for_steps()
    workers = run.workers()
    assert len(workers) == 2
    wanted = getattr(signal, number)
    if whom == "group":
        run.kill_group(wanted)
    else:
        run.process.send_signal(wanted)
    assert run.ends(130).endswith("stopped; the same command goes on from here\n")
    assert saved(tmp_path) > 0
    assert not any(worker.is_running() for worker in workers)


def test_a_scheduler_that_kills_after_its_grace_period_finds_the_state_saved(
    command: list[str], tmp_path: Path, start: list[Run]
) -> None:
    # SLURM and "docker stop": SIGTERM, after a while SIGKILL to all that is left.
    run = Run([*MODULE, *command], tmp_path / "log")
    start.append(run)
    run.wait_for_steps()
    run.kill_group(signal.SIGTERM)
    time.sleep(10)
    assert run.process.poll() == 130, run.said()
    first = saved(tmp_path)
    again = Run([*MODULE, *command], tmp_path / "again")
    start.append(again)
    again.wait_for_steps()
    again.kill_group(signal.SIGTERM)
    again.ends(130)
    assert saved(tmp_path) > first


def test_a_worker_that_is_killed_costs_no_step(
    command: list[str], tmp_path: Path, start: list[Run]
) -> None:
    run = Run([*MODULE, *command], tmp_path / "log")
    start.append(run)
    run.wait_for_steps()
    run.workers()[0].kill()
    said = run.ends(2)
    assert (
        "error: a data worker was killed, most often because the machine's memory ran out" in said
    )
    step = saved(tmp_path)
    assert f"step {step} is saved in {tmp_path / 'out' / STATE_FILE}" in said
    last = int(re.findall(r"^step (\d+) ", said, re.MULTILINE)[-1])
    assert step >= last  # lines are thinned out


@pytest.mark.parametrize("whom", ["launcher", "group"])
def test_torchrun_passes_a_signal_on_and_the_processes_save(
    command: list[str], tmp_path: Path, start: list[Run], whom: str
) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    words = [*torchrun, "--nproc-per-node", "2", "-m", "slimdiffsr", *command]
    run = Run(words, tmp_path / "log")
    start.append(run)
    run.wait_for_steps()
    if whom == "group":
        run.kill_group(signal.SIGTERM)
    else:
        run.process.send_signal(signal.SIGTERM)
    run.process.wait(40)  # torchrun shows a traceback of its own
    assert "stopped; the same command goes on from here" in run.said()
    assert saved(tmp_path) > 0


def test_of_several_processes_one_goes_on_without_its_workers(
    command: list[str], tmp_path: Path, start: list[Run]
) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    words = [*torchrun, "--nproc-per-node", "2", "-m", "slimdiffsr", *command]
    run = Run(words, tmp_path / "log")
    start.append(run)
    run.wait_for_steps()
    launched = [process for process in run.workers() if process.ppid() == run.process.pid]
    assert len(launched) == 2
    for process in launched:
        worker, *_ = process.children()
        worker.kill()
    deadline = time.monotonic() + 60
    while "its process makes its samples itself" not in run.said():
        assert run.process.poll() is None, run.said()
        assert time.monotonic() < deadline, run.said()
        time.sleep(0.2)
    time.sleep(3)
    run.process.send_signal(signal.SIGTERM)
    run.process.wait(40)
    assert "stopped; the same command goes on from here" in run.said()
    assert saved(tmp_path) > 0


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="mounting a small /dev/shm needs root and unshare",
)
def test_a_small_dev_shm_is_told_and_training_goes_on(
    command: list[str], tmp_path: Path, start: list[Run]
) -> None:
    script = 'mount -t tmpfs -o size=256k tmpfs /dev/shm && exec "$@"'
    words = ["unshare", "-m", "sh", "-c", script, "sh", *MODULE, *command]
    run = Run(words, tmp_path / "log")
    start.append(run)
    run.wait_for_steps()
    assert re.search(r"/dev/shm has room for 0 MiB, and 2 workers need \d", run.said())
    run.kill_group(signal.SIGTERM)
    run.ends(130)
    assert saved(tmp_path) > 0


def test_memory_that_runs_out_is_one_sentence_behind_the_save(
    command: list[str], tmp_path: Path, start: list[Run]
) -> None:
    first = Run([*MODULE, *command, "--set", "steps=3"], tmp_path / "first")
    start.append(first)
    first.ends(0, 120)
    huge = ["--set", "batch=4096", "--set", "crop_hr_px=64", "--set", "workers=0"]
    limit = f'ulimit -v {6 * 2**20} && exec "$@"'
    run = Run(["bash", "-c", limit, "sh", *MODULE, *command, *huge], tmp_path / "log")
    start.append(run)
    said = run.ends(2, 120)
    assert "error: this machine ran out of memory; step 3 is saved in" in said
    assert "lower batch or crop_hr_px" in said
    assert saved(tmp_path) == 3
