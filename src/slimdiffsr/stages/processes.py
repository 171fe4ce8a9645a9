"""Several processes that act as one: what each must know of the others (MS 11)."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor, nn
from torch import distributed as dist

from slimdiffsr.errors import ConfigError
from slimdiffsr.method.distillation import Shares
from slimdiffsr.models.augment import Rows

__all__ = ["join", "rows_of", "share_gradients", "shares_of"]


def join(precision: str) -> Accelerator:
    """This process among those that ``torchrun`` started, or alone. Raises ConfigError."""
    started = int(os.environ.get("WORLD_SIZE", "1"))
    # On CPUs accelerate joins processes only where it is told to stay there.
    on_cpu = started > 1 and not (torch.cuda.is_available() or torch.xpu.is_available())
    accelerator = Accelerator(mixed_precision=precision, cpu=on_cpu)
    if accelerator.num_processes != started:
        raise ConfigError(
            f"{started} processes were started, but {accelerator.num_processes} found together on "
            f"{accelerator.device.type}: start one, or as many as there are GPUs"
        )
    return accelerator


def share_gradients(
    accelerator: Accelerator, network: nn.Module, *, now: bool
) -> AbstractContextManager[Any]:
    """Around forward and backward: whether gradients go to the other processes now, or later.

    They add up where they are until the last piece of a batch takes all of them along.
    """
    return nullcontext() if now else accelerator.no_sync(network)


def shares_of(accelerator: Accelerator) -> Shares:
    """How distillation sees the other processes."""
    if accelerator.num_processes == 1:
        return Shares()
    return Shares(accelerator.process_index, accelerator.num_processes, _Sum.apply)


def rows_of(accelerator: Accelerator, images: int, parts: int = 1) -> Rows:
    """Where this process's images stand in the whole batch, made of ``parts`` equal batches."""
    share = images // parts
    whole = share * accelerator.num_processes
    first = accelerator.process_index * share
    index = [part * whole + first + i for part in range(parts) for i in range(share)]
    return Rows(parts * whole, index)


class _Sum(torch.autograd.Function):
    """The sum over processes, in each of them; gradients are summed likewise."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:  # noqa: ANN401  torch's own context
        total = own.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # noqa: ANN401
        return _Sum.forward(ctx, grads[0])
