"""The one training loop, on accelerate: run, log, validate, save, resume, stop in time.

It knows nothing of any stage: a ``Task`` brings the networks, the optimisers and the update.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from slimdiffsr.errors import OutputError, TrainingError, WeightsError
from slimdiffsr.files.tensors import load_strict
from slimdiffsr.settings.config import LoopConfig
from slimdiffsr.training.failures import explain
from slimdiffsr.training.log import Clock, Logger, peak_memory_gib, pictures_of
from slimdiffsr.training.notices import Notice, Tell, say_nothing
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

Batches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]

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
        """Write pictures, ``out/validation/NNNNNNN*.png``, and return metrics by name."""


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
    unreadable: int = 0  # images that could not be read
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
    tell: Tell = say_nothing,
) -> TrainResult:
    """Train to ``config.steps`` or until the time is up, saved either way.

    Finds the state in ``out`` and goes on from there. Whatever ends a run, the steps done are saved:
    Ctrl-C, SIGTERM, SIGUSR1 and SIGHUP end the step, save and raise KeyboardInterrupt (a second one
    does not wait, unless there are several processes); a data worker that is killed and memory that
    runs out raise TrainingError. Only when a loss or weight is not finite, which raises it too, does
    the last good state stay. Only the main process saves and reports.

    batches: from the steps already done to this process's LR and HR in [-1, 1], for each step that
    is left. files_of: from a step, 1 being the first, to the images in its batch, for the error.
    on_ready: called once it is certain that the run goes on from what is in ``out``, before anything
    is written there. tell: called with what is worth saying besides progress.
    """
    first = resume(task, out / STATE_FILE)
    if on_ready is not None:
        on_ready()
    run = _Run(config, task, out, accelerator, first)
    run.on_progress = on_progress if accelerator.is_main_process else None
    run.tell = tell if accelerator.is_main_process else say_nothing
    run.watch = _Watch(task, accelerator, out, files_of)
    with Ending(accelerator, max_minutes) as ending, contextlib.closing(run.logger):
        try:
            for lr, hr in batches(first):
                with ending.waits():
                    run.update(lr, hr)
                run.report()
                if ending.due(run.step):
                    break
            run.watch.check()
            with ending.waits():
                run.save()
        except (Exception, KeyboardInterrupt) as error:
            kept = run.rescue(error, whole=ending.between_steps)
            explained = explain(error, kept)
            if explained is None:
                raise
            raise explained from error
        ending.tell()
    images = (run.step - first) * config.batch
    return TrainResult(run.step, run.step >= config.steps, images, run.clock.seconds())


class _Run:
    """One call of ``train``: how far it is, and what it does with a step."""

    watch: _Watch
    on_progress: Callable[[Progress], None] | None
    tell: Tell

    def __init__(
        self, config: LoopConfig, task: Task, out: Path, accelerator: Accelerator, first: int
    ) -> None:
        self.config = config
        self.task = task
        self.out = out
        self.accelerator = accelerator
        self.step = first  # updates done
        self.saved = first if (out / STATE_FILE).is_file() else -1
        self.losses: Mapping[str, Tensor] = {}
        self.clock = Clock(first)
        self.logger = Logger(out / "tensorboard", first, accelerator.is_main_process)

    def update(self, lr: Tensor, hr: Tensor) -> None:
        """The next step."""
        factor = learning_rate_factor(self.step, self.config)
        _set_learning_rate(self.task, factor)
        self.losses = self.task.update(lr, hr, self.step + 1)
        self.step += 1
        self.watch.look(self.step, self.losses)

    def report(self) -> None:
        """Log, save and validate, where the step is one at which that is done."""
        config, step = self.config, self.step
        if step % config.log_every == 0 or step == config.steps:
            self._log()
        else:
            self.tell(Notice("step", step, config.steps))
        if step % config.save_every == 0:
            self.watch.check()
            self.save()
        looks = config.validation_images > 0 and step % config.validate_every == 0
        if looks and self.accelerator.is_main_process:
            self._validate()

    def _log(self) -> None:
        self.watch.check()
        losses = _average(self.losses, self.accelerator)
        speed = self.clock.images_per_s(self.step, self.config.batch)
        memory = peak_memory_gib(self.accelerator.device)
        factor = learning_rate_factor(self.step - 1, self.config)
        rates = {f"lr/{name}": factor * lr for name, lr in self.task.base_lr.items()}
        self.logger.write(self.step, {**losses, "images_per_s": speed, **rates})
        if self.on_progress is not None:
            self.on_progress(Progress(self.step, self.config.steps, speed, memory, losses))

    def _validate(self) -> None:
        self.tell(Notice(f"step {self.step}: validating on {self.config.validation_images} images"))
        figures = self.task.validate(self.step, self.out)
        self.logger.write(self.step, figures)
        self.logger.show(self.step, pictures_of(self.out, self.step))
        told = ", ".join(f"{name.removeprefix('val/')} {v:.4g}" for name, v in figures.items())
        self.tell(Notice(f"step {self.step} validated: {told}"))

    def save(self) -> None:
        """Write the state."""
        _save(self.task, self.step, self.out, self.accelerator)
        self.saved = self.step

    def rescue(self, error: BaseException, *, whole: bool) -> str:
        """Save what can be saved when a run ends early. Returns what is kept, for the error.

        whole: no step was broken off. Where an error did that, what the step has done already is
        kept with those before it, and it is done again; a second Ctrl-C keeps the last save alone.
        """
        state = self.out / STATE_FILE
        usable = (whole and isinstance(error, KeyboardInterrupt)) or (
            self.step > 0 and isinstance(error, Exception) and not isinstance(error, TrainingError)
        )
        if self.step > self.saved and usable and self.watch.sound():
            with contextlib.suppress(OutputError, RuntimeError):  # the GPU may answer no more
                self.save()
        if not state.is_file():
            return "nothing was saved yet"
        return f"step {self.saved} is saved in {state}"


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
