"""One network that learns alone: its optimiser, its average, its descent."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from slimdiffsr.files.stages import read_network
from slimdiffsr.files.tensors import load_strict
from slimdiffsr.settings.config import LoopConfig
from slimdiffsr.stages.graphs import prepare
from slimdiffsr.stages.processes import share_gradients
from slimdiffsr.stages.run import make_optimizer
from slimdiffsr.training.loop import Average

__all__ = ["Learner"]

M = TypeVar("M", bound=nn.Module)
Loss = Callable[..., tuple[Tensor, Mapping[str, Tensor]]]


class Learner(Generic[M]):
    """What a task of the loop needs for its only network; ``kind`` names it, here and on disk.

    ``start``: a file of that kind to take the first weights from. ``forward`` is the network as the
    loop's processes share it, ``bare`` the network itself.
    """

    def __init__(
        self,
        config: LoopConfig,
        kind: str,
        network: M,
        accelerator: Accelerator,
        start: Path | None = None,
    ) -> None:
        self.config = config
        self.accelerator = accelerator
        if start is not None:
            load_strict(network, read_network(start, kind)[0], str(start))
        self.kind = kind
        self.bare = network.to(accelerator.device)
        self.modules: dict[str, nn.Module] = {kind: self.bare}
        self.optimizers: dict[str, Optimizer] = {kind: make_optimizer(config, self.bare)}
        self.base_lr = {kind: config.lr}
        self.averages = {kind: Average(self.bare, config.ema)} if config.ema else {}
        self.forward = prepare(
            self.bare, accelerator, compiled=config.compile, graphs=config.graphs
        )

    def descend(self, loss: Loss, batch: tuple[Tensor, ...], step: int) -> dict[str, Tensor]:
        """One step on a batch, in pieces where the config says so.

        loss: from a piece of each tensor to what to descend on, and terms by name. Returns those,
        averaged over the pieces.
        """
        count = self.config.accumulate
        made = []
        pieces = zip(*(tensor.chunk(count) for tensor in batch), strict=True)
        for number, piece in enumerate(pieces, start=1):
            with share_gradients(self.accelerator, self.forward, now=number == count):
                total, terms = loss(*piece)
                self.accelerator.backward(total / count)
            made.append({name: value.detach() for name, value in terms.items()})
        self.accelerator.clip_grad_norm_(self.bare.parameters(), self.config.grad_clip)
        self.optimizers[self.kind].step()
        self.optimizers[self.kind].zero_grad(set_to_none=True)
        for average in self.averages.values():
            average.update(self.bare, step)
        return {name: torch.stack([terms[name] for terms in made]).mean() for name in made[0]}

    def averaged(self) -> M:
        """The network with its averaged weights, in evaluation mode."""
        network = copy.deepcopy(self.bare).eval()
        if self.averages:
            network.load_state_dict(self.averages[self.kind].weights)
        return network
