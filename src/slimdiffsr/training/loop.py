"""The one training loop, on accelerate: run, log, validate, save, resume, stop in time.

It knows nothing of any stage: a ``Task`` brings the networks, the optimisers and the update.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from torch.utils.tensorboard import SummaryWriter

from slimdiffsr.errors import OutputError, TrainingError, WeightsError
from slimdiffsr.files.tensors import load_strict
from slimdiffsr.settings.config import LoopConfig
from slimdiffsr.training.state import load_state, save_state
from slimdiffsr.training.stopping import Ending

__all__ = [
    "STATE_FILE",
    "Average",
    "Batches",
    "Progress",
    "Task",
    "TrainResult",
    "bare",
    "learning_rate_factor",
    "resume",
    "train",
]

Batches = Callable[[int], Iterator[tuple[Tensor, Tensor, Tensor]]]

STATE_FILE = "state.safetensors"
MOST_NAMES = 16


class Task(Protocol):
    """What a stage hands to the loop."""

    modules: dict[str, nn.Module]  # all that is saved, by name
    optimizers: dict[str, Optimizer]
    base_lr: dict[str, float]
    averages: dict[str, Average]

    def update(self, lr: Tensor, hr: Tensor, step: int) -> dict[str, Tensor]:
        """One optimisation step. lr, hr: RGB in [-1, 1]. Returns losses by name."""

    def validate(self, step: int, out: Path) -> dict[str, float]:
        """Write pictures below ``out`` and return metrics by name."""


class Average:
    """Exponential moving average of a network's weights."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {k: v.detach().float().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Blend in the weights of now; early steps count more, so that the start is forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        ours = list(self.weights.values())
        theirs = [v.float() for v in model.state_dict().values()]
        torch._foreach_lerp_(ours, theirs, 1 - decay)


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a call of ``train`` ended."""

    step: int
    finished: bool
    images: int
    seconds: float
    unreadable: int  # images that could not be read
    too_small: int = 0  # images smaller than the crop
    changed: tuple[str, ...] = ()  # settings that a resumed run had otherwise before


@dataclass(frozen=True, slots=True)
class Progress:
    """What the caller may show: the step, images per second, GPU memory, the newest losses."""

    step: int
    steps: int
    images_per_s: float
    memory_gib: float
    losses: Mapping[str, float] = field(default_factory=dict)


def learning_rate_factor(step: int, config: LoopConfig) -> float:
    """Linear warm-up, constant, and from ``decay_from`` a cosine down to ``lr_final``."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.lr_final is None or step < config.decay_from:
        return 1.0
    done = (step - config.decay_from) / max(1, config.steps - config.decay_from)
    final = config.lr_final / config.lr
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def train(
    config: LoopConfig,
    task: Task,
    batches: Batches,
    out: Path,
    accelerator: Accelerator,
    *,
    max_minutes: float | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    files_of: Callable[[int], Sequence[Path]] | None = None,
    on_ready: Callable[[], None] | None = None,
) -> TrainResult:
    """Train to ``config.steps`` or until the time is up, saved either way.

    Finds the state in ``out`` and goes on from there. Raises TrainingError when a loss or weight is
    not finite; the last good state stays on disk. Ctrl-C and SIGTERM end the step, save and raise
    KeyboardInterrupt; a second one does not wait, unless there are several processes. Only the main
    process saves and reports.

    batches: from the steps already done to this process's LR and HR in [-1, 1], and how many
    unreadable images were passed over, for each step that is left. files_of: from a step, 1 being
    the first, to the images in its batch, for the error. on_ready: called once it is certain that
    the run goes on from what is in ``out``, before anything is written there.
    """
    first = step = resume(task, out / STATE_FILE)  # step: updates done
    if on_ready is not None:
        on_ready()
    clock = _Clock(accelerator.device, first)
    logger = _Logger(out / "tensorboard", first, accelerator.is_main_process)
    watch = _Watch(task, accelerator, out, files_of)
    show = on_progress if accelerator.is_main_process else None
    skipped = 0
    with Ending(accelerator, max_minutes) as ending, contextlib.closing(logger):
        try:
            for lr, hr, passed_over in batches(first):
                with ending.waits():
                    skipped += int(passed_over.sum())
                    _set_learning_rate(task, learning_rate_factor(step, config))
                    losses = task.update(lr, hr, step + 1)
                    step += 1
                    watch.look(step, losses)
                if step % config.log_every == 0 or step == config.steps:
                    watch.check()
                    progress = clock.progress(step, config, _average(losses, accelerator))
                    logger.write(step, progress.losses, progress.images_per_s)
                    if show is not None:
                        show(progress)
                if step % config.save_every == 0:
                    watch.check()
                    _save(task, step, out, accelerator)
                if step % config.validate_every == 0 and accelerator.is_main_process:
                    logger.write(step, task.validate(step, out))
                if ending.due(step):
                    break
        except KeyboardInterrupt:
            if ending.between_steps and watch.sound():
                _save(task, step, out, accelerator)
            raise
        watch.check()
        with ending.waits():
            _save(task, step, out, accelerator)
        ending.tell()
    unreadable = int(accelerator.reduce(torch.tensor(skipped, device=accelerator.device)))
    images = (step - first) * config.batch
    return TrainResult(step, step >= config.steps, images, clock.seconds(), unreadable)


def _average(losses: Mapping[str, Tensor], accelerator: Accelerator) -> dict[str, float]:
    """Over the processes, whose shares of a batch are equally large."""
    means = accelerator.reduce(torch.stack([v.float() for v in losses.values()]), "mean")
    return dict(zip(losses, means.tolist(), strict=True))


class _Watch:
    """Finds the first step whose losses or weights were not finite.

    It looks at each step without reading the result, which would make the CPU wait for the GPU, and
    reads it when asked to ``check``.
    """

    def __init__(
        self,
        task: Task,
        accelerator: Accelerator,
        out: Path,
        files_of: Callable[[int], Sequence[Path]] | None,
    ) -> None:
        self.weights = [p for module in task.modules.values() for p in module.parameters()]
        self.accelerator = accelerator
        self.out = out
        self.files_of = files_of
        self.first_bad = torch.tensor(math.inf, device=accelerator.device)

    @torch.no_grad()
    def look(self, step: int, losses: Mapping[str, Tensor]) -> None:
        """Note whether a step's losses and the weights behind it are finite."""
        # A finite loss can have a gradient that is not; the norm of all weights shows it.
        numbers = torch.stack([*losses.values(), get_total_norm(self.weights)])
        bad = torch.where(torch.isfinite(numbers).all(), math.inf, float(step))
        self.first_bad = torch.minimum(self.first_bad, bad)

    def sound(self) -> bool:
        """Whether all was finite in this process."""
        return math.isinf(float(self.first_bad))

    def check(self) -> None:
        """Raise TrainingError, in all processes, if in any of them something was not finite."""
        step = float(self.accelerator.gather(self.first_bad.reshape(1)).min())
        if math.isinf(step):
            return
        state = self.out / STATE_FILE
        kept = f"the last good state is in {state}" if state.is_file() else "nothing was saved yet"
        raise TrainingError(
            f"a loss or weight was not finite at step {int(step)}{self._name_files(int(step))}; "
            f"{kept}: lower the learning rate and run the command again"
        )

    def _name_files(self, step: int) -> str:
        files = [] if self.files_of is None else list(dict.fromkeys(map(str, self.files_of(step))))
        if not files:
            return ""
        more = f" and {len(files) - MOST_NAMES} more" if len(files) > MOST_NAMES else ""
        return f", whose batch was from {', '.join(files[:MOST_NAMES])}{more}"


def _set_learning_rate(task: Task, factor: float) -> None:
    for name, optimizer in task.optimizers.items():
        for group in optimizer.param_groups:
            group["lr"] = task.base_lr[name] * factor


def _save(task: Task, step: int, out: Path, accelerator: Accelerator) -> None:
    if not accelerator.is_main_process:
        return
    modules = {name: bare(module).state_dict() for name, module in task.modules.items()}
    save_state(
        out / STATE_FILE,
        {
            "step": step,
            "modules": modules,
            "optimizers": {name: o.state_dict() for name, o in task.optimizers.items()},
            "averages": {name: average.weights for name, average in task.averages.items()},
        },
    )


def resume(task: Task, path: Path) -> int:
    """Fill a task from a saved state. Returns the steps already done; 0 without a file."""
    if not path.is_file():
        return 0
    state: dict[str, Any] = load_state(path)
    for kind in ("modules", "optimizers", "averages"):
        saved, wanted = sorted(state.get(kind, {})), sorted(getattr(task, kind))
        if saved != wanted:
            raise WeightsError(
                f"{path} was saved by another kind of run: it has the {kind} {saved}, this run "
                f"needs {wanted}; choose another output folder"
            )
    for name, module in task.modules.items():
        load_strict(bare(module), state["modules"][name], f"{path} ({name})")
    for name, optimizer in task.optimizers.items():
        # The state brings the settings it was saved with; those of this run hold.
        ours = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
        optimizer.load_state_dict(state["optimizers"][name])
        for group, settings in zip(optimizer.param_groups, ours, strict=True):
            group.update(settings)
        _lay_out_alike(optimizer)
    for name, average in task.averages.items():
        for key, value in average.weights.items():
            value.copy_(state["averages"][name][key])
    return int(state["step"])


def _lay_out_alike(optimizer: Optimizer) -> None:
    # Files hold plain layouts; a fused step wants the moments in that of their parameter.
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.dim() > 0:
                state[key] = torch.empty_like(parameter).copy_(value)


def bare(module: nn.Module) -> nn.Module:
    """The network without the wrappers of several processes and of compilation."""
    inner = getattr(module, "module", module)
    inner = getattr(inner, "_orig_mod", inner)
    return inner if isinstance(inner, nn.Module) else module


class _Clock:
    """Wall time, and images per second since the last report."""

    def __init__(self, device: torch.device, first_step: int) -> None:
        self.device = device
        self.start = self.last = time.monotonic()
        self.last_step = first_step

    def progress(self, step: int, config: LoopConfig, losses: dict[str, float]) -> Progress:
        now = time.monotonic()
        speed = (step - self.last_step) * config.batch / max(1e-9, now - self.last)
        self.last, self.last_step = now, step
        memory = (
            torch.cuda.max_memory_allocated(self.device) / 2**30
            if self.device.type == "cuda"
            else 0.0
        )
        return Progress(step, config.steps, speed, memory, losses)

    def seconds(self) -> float:
        return time.monotonic() - self.start


class _Logger:
    """TensorBoard on the main process, silent elsewhere. Raises OutputError."""

    def __init__(self, folder: Path, first_step: int, active: bool) -> None:
        self.folder = folder
        with self._whole():
            self.writer = SummaryWriter(str(folder), purge_step=first_step + 1) if active else None

    def write(
        self, step: int, values: Mapping[str, float], images_per_s: float | None = None
    ) -> None:
        if self.writer is None:
            return
        if images_per_s is not None:
            values = {**values, "images_per_s": images_per_s}
        with self._whole():
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # all that counts is reported where it is saved
            if self.writer is not None:
                self.writer.close()

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"cannot write logs into {self.folder}: {error.strerror}") from None
