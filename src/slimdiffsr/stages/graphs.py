"""CUDA graphs: the passes of a small network as one launch each.

A step of a small network is thousands of short kernels, which a CPU may launch more slowly than a
large accelerator runs them. Recorded once and replayed, the accelerator waits no more.
"""

from __future__ import annotations

import warnings
from typing import Any, cast

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor, nn

from slimdiffsr.errors import ConfigError
from slimdiffsr.stages.run import channels_last

__all__ = ["Recorded", "prepare"]


class Recorded(nn.Module):
    """A network whose forward and backward passes are recorded at the first call, then replayed.

    Anywhere but on CUDA it is the network itself. Each call must bring tensors of the first one's
    shapes and types. Results and gradients live in the recording's own memory, until the next call:
    take copies of what must last longer, and let gradients go after each step
    (``zero_grad(set_to_none=True)``), or the next would be added to itself. Which parameters train
    is settled by the first call. Numbers drawn on the CPU would stay those of the recording: hand
    them over as inputs.
    """

    def __init__(self, network: nn.Module, accelerator: Accelerator) -> None:
        super().__init__()
        self.network = network
        self.accelerator = accelerator
        self.replay: nn.Module | None = None
        self.recorded: list[tuple[torch.Size, torch.dtype]] = []  # what the first call brought

    def forward(self, *inputs: Tensor) -> Any:  # noqa: ANN401  as the network returns
        """As the network's."""
        if self.accelerator.device.type != "cuda":
            return self.network(*inputs)
        brought = [(x.shape, x.dtype) for x in inputs]
        if self.replay is None:
            self.replay, self.recorded = self._record(inputs), brought
        # Replaying copies inputs into the first ones' place, where smaller ones would be repeated.
        assert brought == self.recorded, f"recorded for {self.recorded}, called with {brought}"
        return self.replay(*inputs)

    def _record(self, inputs: tuple[Tensor, ...]) -> nn.Module:
        samples = tuple(x.detach().clone().requires_grad_(x.requires_grad) for x in inputs)
        # A cast that autocast remembers from before would not be part of the recording.
        remembers_nothing = torch.autocast(
            "cuda",
            torch.bfloat16,
            enabled=self.accelerator.mixed_precision == "bf16",
            cache_enabled=False,
        )
        with remembers_nothing, warnings.catch_warnings():
            # Recording asks for gradients on a stream of its own, and accumulates none.
            warnings.filterwarnings("ignore", "The AccumulateGrad node's stream", UserWarning)
            recorded = torch.cuda.make_graphed_callables(
                Plain(self.network), samples, allow_unused_input=True
            )
        return cast(nn.Module, recorded)


class Plain(nn.Module):
    """Recording replaces a module's ``forward``: this one's, and not the network's own."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Any:  # noqa: ANN401  as the network returns
        """As the network's."""
        return self.network(*inputs)


def prepare(
    network: nn.Module, accelerator: Accelerator, *, compiled: bool = False, graphs: bool = False
) -> nn.Module:
    """The network as its run uses it: compiled, or recorded, or shared by the run's processes.

    Raises ConfigError where several processes are to record.
    """
    if accelerator.device.type == "cuda":
        channels_last(network)
    if not graphs:
        prepared: nn.Module = accelerator.prepare(torch.compile(network) if compiled else network)
        return prepared
    if accelerator.num_processes > 1:
        raise ConfigError(
            f"graphs=true needs one process, this run has {accelerator.num_processes}: set "
            "graphs=false"
        )
    return Recorded(network, accelerator)
