"""How near the engine comes to the bare network on one device, in one run, as JSON lines.

    python benchmarks/engine_rate.py --device cuda                       # about two minutes
    python benchmarks/engine_rate.py --device cuda --runtime compiled    # cold: some minutes more
    python benchmarks/engine_rate.py --device cpu --small                # a trial

Prints the measured ceiling of matrix products; the bare network's rate by runtime and batch; the
engine's on a generated uint8 RGB scene as COG with overviews, start-up not counted, and its share
of the best bare rate; what a lone eager batch spends by kernel. Weights do not matter: base has
fresh ones.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
import torch
from torch import nn

from slimdiffsr import Upscaler, geo
from slimdiffsr.bench.counts import count_macs
from slimdiffsr.bench.rows import ROWS
from slimdiffsr.runtime.cache import Cache
from slimdiffsr.runtime.choose import Runtimes
from slimdiffsr.runtime.devices import pick_precision
from slimdiffsr.runtime.guarded import GuardedRuntime
from slimdiffsr.runtime.protocol import Runtime

SCALE, TILE_HR_PX = 4, 512
SIDE_LR_PX = TILE_HR_PX // SCALE
OVERLAPS_HR_PX = {"tiny": 64, "compact": 128, "base": 128}


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def build(name: str) -> nn.Module:
    """A network with fresh weights, small enough that half precision stays finite."""
    with torch.device("cpu"):
        model = ROWS[name].build(SCALE)
    return model.eval().requires_grad_(False)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_s(run: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Median time of a run, for so long; on a card of eight that are queued together."""
    run()
    wait(device)
    together = 8 if device.type == "cuda" else 1
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < until:
        start = time.perf_counter()
        for _ in range(together):
            run()
        wait(device)
        times.append((time.perf_counter() - start) / together)
    return statistics.median(times)


def ceiling(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Floating point operations a second of a square matrix product."""
    a = torch.randn(side, side, device=device).to(dtype)
    b = torch.randn(side, side, device=device).to(dtype)
    return 2 * side**3 / median_s(lambda: a @ b, device, 0.5)


def bare(runtime: Runtime) -> Runtime:
    return runtime.inner if isinstance(runtime, GuardedRuntime) else runtime


def rates(
    name: str, model: nn.Module, args: argparse.Namespace, peak_flops: float
) -> dict[tuple[str, int], float]:
    """Milliseconds a tile of each runtime and batch."""
    device = torch.device(args.device)
    precision = pick_precision(args.precision, device)
    macs = count_macs(lambda: model(torch.zeros(1, 3, SIDE_LR_PX, SIDE_LR_PX))).total
    found: dict[tuple[str, int], float] = {}
    for kind in args.runtime:
        runtime = bare(Runtimes(build(name), device, precision, kind, Cache()).for_tiles())
        for batch in args.batch:
            tiles = torch.rand(batch, 3, SIDE_LR_PX, SIDE_LR_PX, device=device) * 2 - 1
            start = time.perf_counter()
            try:
                runtime(tiles)
                wait(device)
                ready_s = time.perf_counter() - start
                tile_s = median_s(lambda t=tiles, r=runtime: r(t), device, args.seconds) / batch
            except (RuntimeError, torch.OutOfMemoryError) as error:
                say(network=name, runtime=kind, batch=batch, error=str(error).splitlines()[0][:200])
                continue
            found[kind, batch] = 1000 * tile_s
            say(
                network=name, runtime=kind, precision=precision, batch=batch,
                ms_a_tile=round(1000 * tile_s, 4), mpx_per_s=round(TILE_HR_PX**2 / 1e6 / tile_s, 2),
                share_of_ceiling=round(2 * macs / tile_s / peak_flops, 4),
                first_call_s=round(ready_s, 2),
            )  # fmt: skip
        runtime.close()
    return found


def write_scene(path: Path, side_lr_px: int) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 200, (3, side_lr_px // 16 + 1, side_lr_px // 16 + 1), dtype=np.uint8)
    smooth = coarse.repeat(16, 1).repeat(16, 2)[:, :side_lr_px, :side_lr_px]
    values = smooth + rng.integers(0, 40, smooth.shape, dtype=np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", width=side_lr_px, height=side_lr_px, count=3, dtype="uint8",
        tiled=True, crs="EPSG:32633", transform=rasterio.Affine.scale(10, -10),
    ) as dataset:  # fmt: skip
        dataset.write(values)


def engine(
    name: str, model: nn.Module, kind: str, batch: int, args: argparse.Namespace, best_ms: float
) -> None:
    """The engine on scenes of several sizes, with the runtime and batch that ran best bare."""
    overlap_hr_px = OVERLAPS_HR_PX[name]
    spec = geo.NetworkSpec(
        scale=SCALE, tile_hr_px=TILE_HR_PX, overlap_hr_px=overlap_hr_px, model_id=name
    )
    upscaler = Upscaler(model, spec, device=args.device, precision=args.precision, runtime=kind)
    runtime = upscaler.runtimes.for_tiles()
    runtime.batch = batch
    runtime.warm_up(batch, SIDE_LR_PX, SIDE_LR_PX)
    for side_hr_px in args.scene:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            src, dst = Path(folder) / "in.tif", Path(folder) / "out.tif"
            write_scene(src, side_hr_px // SCALE)
            if side_hr_px == args.scene[0]:  # start-up: pinned memory, kernels of the blending
                upscaler.upscale_scene(src, dst, geo.SceneOptions(overwrite=True))
            report = upscaler.upscale_scene(src, dst, geo.SceneOptions(overwrite=True))
        mpx = side_hr_px**2 / 1e6
        bare_s = report.tiles_run * best_ms / 1000
        say(
            network=name, engine=kind, batch=batch, scene_hr_px=side_hr_px, tiles=report.tiles_run,
            seconds=round(report.seconds, 3), mpx_per_s=round(mpx / report.seconds, 2),
            # Of the same tiles, and of the same pixels as if none overlapped.
            share_of_bare_tiles=round(bare_s / report.seconds, 4),
            share_of_bare_mpx=round(
                mpx / report.seconds / (TILE_HR_PX**2 / 1e3 / best_ms), 4
            ),
            warnings=list(report.warnings),
        )  # fmt: skip
    upscaler.runtimes.close()


def profile(name: str, model: nn.Module, args: argparse.Namespace) -> None:
    """Where one eager batch goes, by kernel."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as watch

    device = torch.device(args.device)
    runtime = bare(
        Runtimes(model, device, pick_precision(args.precision, device), "torch").for_tiles()
    )
    tiles = torch.rand(args.batch[-1], 3, SIDE_LR_PX, SIDE_LR_PX, device=device) * 2 - 1
    for _ in range(2):
        runtime(tiles)
    cuda = device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with watch(activities=kinds) as seen:
        runtime(tiles)
        wait(device)
    if cuda:
        kernels: dict[str, list[float]] = {}
        for event in seen.events():
            if event.device_type == torch.autograd.DeviceType.CUDA:
                kernels.setdefault(event.name, []).append(event.device_time_total)
    else:
        kernels = {e.key: [e.self_cpu_time_total] for e in seen.key_averages()}
    total = sum(map(sum, kernels.values())) or 1.0
    ranked = sorted(kernels.items(), key=lambda item: -sum(item[1]))
    for kernel, times in ranked[: args.kernels]:
        say(
            network=name, kernel=kernel[:110], calls=len(times),
            ms=round(sum(times) / 1000, 3), share=round(sum(times) / total, 4),
        )  # fmt: skip
    say(network=name, kernels_ms_a_tile=round(total / 1000 / len(tiles), 4))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--network", nargs="+", default=["tiny", "compact", "base"])
    parser.add_argument("--runtime", nargs="+", default=None)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--scene", nargs="*", type=int, default=[4096, 8192], help="output pixels")
    parser.add_argument("--seconds", type=float, default=0.7, help="for each bare rate")
    parser.add_argument("--kernels", type=int, default=14, help="of the profile; 0: none")
    parser.add_argument("--folder", type=Path, help="for the scenes")
    parser.add_argument("--small", action="store_true", help="a trial on small sizes")
    args = parser.parse_args()
    if args.runtime is None:
        args.runtime = ["torch", "recorded"] if args.device.startswith("cuda") else ["torch"]
    if args.small:
        args.network, args.batch, args.scene, args.seconds = ["tiny"], [1, 2], [1024], 0.1
    return args


def main() -> None:
    args = arguments()
    device = torch.device(args.device)
    cuda = device.type == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    say(
        machine=torch.cuda.get_device_name(device) if cuda else platform.processor(),
        cores=torch.get_num_threads(), torch=torch.__version__, python=platform.python_version(),
        gdal=rasterio.__gdal_version__,
    )  # fmt: skip
    peak = ceiling(device, dtype, 8192 if cuda else 512)
    say(ceiling_tflops=round(peak / 1e12, 3), of=str(dtype))
    for name in args.network:
        found = rates(name, build(name), args, peak)
        if not found:
            continue
        (kind, batch), best_ms = min(found.items(), key=lambda item: item[1])
        say(network=name, best=kind, batch=batch, ms_a_tile=round(best_ms, 4))
        if args.scene:
            engine(name, build(name), kind, batch, args, best_ms)
        if args.kernels:
            profile(name, build(name), args)
    if cuda:
        say(peak_gib=round(torch.cuda.max_memory_allocated(device) / 2**30, 2))


if __name__ == "__main__":
    main()
