"""What a job asks for, and whether a worker can give it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slimdiffsr.crews import ModelPlan
from slimdiffsr.errors import ConfigError, JobError
from slimdiffsr.geo.spec import Network, NetworkSpec, SceneOptions

__all__ = [
    "Request",
    "declared_spec",
    "fit_network",
    "options_from",
    "options_to",
    "spec_from",
    "spec_to",
]

_CUDA_BATCH = 8
_ALIKE = ("runtime", "precision")  # words of the arithmetic that must be the same everywhere


@dataclass(frozen=True, slots=True)
class Request:
    """Model and options of a job: the same for every scene.

    model: as ``Upscaler.from_pretrained`` takes it, also on the workers' machines. spec: how scenes
    are cut for it, and the arithmetic that all workers must have: runtime, precision, kind of
    device (``cpu`` or ``cuda``; cards of different names may share a job).
    """

    model: str
    spec: NetworkSpec
    options: SceneOptions
    colour: str = "low-frequency"


def shared_arithmetic(spec: NetworkSpec) -> tuple[tuple[str, str], ...]:
    """The arithmetic that the workers of a job have in common."""
    words = dict(spec.arithmetic)
    kind = "cpu" if words.get("device", "cpu").startswith("cpu") else "cuda"
    return (*((name, words.get(name, "")) for name in _ALIKE), ("device", kind))


def fit_network(network: Network, spec: NetworkSpec, where: str) -> Network:
    """A worker's network with the job's batches and name for its arithmetic.

    Raises JobError when it is another model, or computes in another way.
    """
    for name in ("model_id", "weights_sha256", "scale", "tile_hr_px"):
        if getattr(network, name) != getattr(spec, name):
            raise JobError(
                f"{where} is for the model {spec.model_id} ({spec.weights_sha256[:12]}...), and "
                f"this worker has {network.model_id} ({network.weights_sha256[:12]}...): give it "
                "the same weights"
            )
    here, wanted = dict(shared_arithmetic(network)), dict(spec.arithmetic)
    for name, value in wanted.items():
        if here[name] != value:
            raise JobError(
                f"{where} is for the {name} {value}, and this worker has {here[name]}: start it "
                f"with --{name} {value}, or plan a job for {here[name]}"
            )
    return dataclasses.replace(network, batch=spec.batch, arithmetic=spec.arithmetic)


def spec_to(spec: NetworkSpec) -> dict[str, Any]:
    """As JSON can hold it."""
    return {f.name: getattr(spec, f.name) for f in dataclasses.fields(NetworkSpec)}


def spec_from(values: Mapping[str, Any]) -> NetworkSpec:
    """Back from JSON."""
    arithmetic = tuple((str(name), str(value)) for name, value in values["arithmetic"])
    return NetworkSpec(**{**values, "arithmetic": arithmetic})


def options_to(options: SceneOptions) -> dict[str, Any]:
    """As JSON can hold it; what differs from the defaults."""
    default = SceneOptions()
    values = {f.name: getattr(options, f.name) for f in dataclasses.fields(SceneOptions)}
    return {name: value for name, value in values.items() if value != getattr(default, name)}


def options_from(values: Mapping[str, Any]) -> SceneOptions:
    """Back from JSON, which turns tuples into lists."""
    tuples: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    return SceneOptions(**tuples)


def declared_spec(
    model: str, scale: int | None, device: str, precision: str, runtime: str, colour: str
) -> NetworkSpec:
    """How a job's scenes are cut, and the arithmetic that its workers must have.

    For ``cpu`` what is best on this machine; ``cuda`` needs no card here, and ``auto`` then means
    recorded passes in bf16, eight tiles at a time. Raises what ``Upscaler.from_pretrained`` raises,
    and ConfigError for another device.
    """
    if device not in ("cpu", "cuda"):
        raise ConfigError(f"the device of a job's workers is cpu or cuda, got {device!r}")
    plan = ModelPlan(model, scale=scale, device="cpu", colour=colour)  # type: ignore[arg-type]
    if device == "cpu":
        network = dataclasses.replace(plan, precision=precision, runtime=runtime)()
        batch, arithmetic = network.batch, shared_arithmetic(network)
    else:
        network, batch = plan(), _CUDA_BATCH
        words = {"runtime": runtime, "precision": precision}
        best = {"runtime": "recorded", "precision": "bf16"}
        chosen = {k: best[k] if v == "auto" else v for k, v in words.items()}
        arithmetic = (*chosen.items(), ("device", "cuda"))
    names = [f.name for f in dataclasses.fields(NetworkSpec)]
    values = {name: getattr(network, name) for name in names}
    return NetworkSpec(**{**values, "batch": batch, "arithmetic": arithmetic})
