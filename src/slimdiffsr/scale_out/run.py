"""A worker from its job's address alone: loads the model, checks that it fits, works."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from slimdiffsr.crews import ModelPlan
from slimdiffsr.geo.job import package_version
from slimdiffsr.scale_out.claims import Claims, Picker
from slimdiffsr.scale_out.jobfile import JobFile, read_job
from slimdiffsr.scale_out.places import open_place
from slimdiffsr.scale_out.request import fit_network, spec_from
from slimdiffsr.scale_out.work import Done, Worker, worker_name

__all__ = ["network_plan", "work_here"]


def network_plan(job: JobFile, device: str) -> ModelPlan:
    """The model that a job asks its workers for, on one of this machine's devices."""
    spec = spec_from(job.spec)
    words = dict(spec.arithmetic)
    wanted = device if device != "auto" else words["device"]
    return ModelPlan(
        job.model,
        scale=spec.scale,
        device=wanted,
        precision=words["precision"],
        runtime=words["runtime"],
        batch=spec.batch,
        colour=job.colour,  # type: ignore[arg-type]  # checked when it was planned
    )


def work_here(
    address: str,
    own: int | None,
    device: str = "auto",
    *,
    help_others: bool = True,
    scratch: Path | None = None,
    on_unit: Callable[[Done], None] | None = None,
) -> Done:
    """Be a worker of the job at an address until nothing is left to do.

    own: the shard to begin with, from 0; None to help wherever there is something. Raises what
    ``Worker.run`` raises, and JobError when this machine's model or arithmetic is another.
    """
    place = open_place(address)
    job = read_job(place, package_version())
    network = fit_network(network_plan(job, device)(), spec_from(job.spec), address)
    me = worker_name()
    rng = np.random.default_rng([ord(letter) for letter in me])
    picker = Picker(job, Claims(place), me, own, rng, help_others)
    with tempfile.TemporaryDirectory(prefix="slimdiffsr-", dir=scratch) as folder:
        return Worker(place, job, network, Path(folder)).run(picker, on_unit)
