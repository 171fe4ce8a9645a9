"""Whether several cards make the bytes of one, also when workers are killed; JSON lines.

python benchmarks/several_cards.py --devices cuda:0,cuda:1 --side 2048
python benchmarks/several_cards.py --devices cpu --workers 2 --side 400 --chunk 512
"""

import argparse
import hashlib
import json
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

from scene_rate import write_scene

from slimdiffsr import geo
from slimdiffsr.crews import ModelPlan, open_crew
from slimdiffsr.errors import WorkerError


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def killer(crew: geo.Workers, after_chunks: int, victims: int) -> Callable[[geo.Progress], None]:
    """A watcher that kills some workers, once, when so many chunks are done."""
    killed: list[int] = []

    def watch(progress: geo.Progress) -> None:
        if progress.chunks_done >= after_chunks and not killed:
            killed.extend(crew.process_ids()[:victims])
            for process in killed:
                os.kill(process, signal.SIGKILL)

    return watch


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="tiny-x4")
    parser.add_argument("--devices", default="cuda:0,cuda:1")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--side", type=int, default=2048, help="input pixels along a side")
    parser.add_argument("--chunk", type=int, default=1024)
    options = parser.parse_args()
    scene_options = geo.SceneOptions(chunk_hr_px=options.chunk, overwrite=True)
    first = options.devices.split(",")[0]
    with tempfile.TemporaryDirectory() as name:
        src, out = write_scene(Path(name) / "in.tif", options.side), Path(name) / "out.tif"
        with open_crew(ModelPlan(options.model, device=first)) as alone:
            report = geo.upscale_scene(src, out, alone, scene_options)
        wanted = sha(out)
        print(json.dumps({"alone_s": round(report.seconds, 2), "sha256": wanted}), flush=True)
        plan = ModelPlan(options.model, device=options.devices)
        with open_crew(plan, options.workers) as crew:
            assert isinstance(crew, geo.Workers)
            report = geo.upscale_scene(src, out, crew, scene_options)
            print(json.dumps({"crew_s": round(report.seconds, 2), "same": sha(out) == wanted}))
            watch = killer(crew, report.chunks_run // 3, 1)
            report = geo.upscale_scene(src, out, crew, scene_options, on_progress=watch)
        print(json.dumps({"one_killed": report.warnings, "same": sha(out) == wanted}), flush=True)
        with open_crew(plan, options.workers) as crew:
            assert isinstance(crew, geo.Workers)
            watch = killer(crew, report.chunks_run // 2, 99)
            try:
                geo.upscale_scene(src, out, crew, scene_options, on_progress=watch)
            except WorkerError as error:
                print(json.dumps({"all_killed": str(error)}), flush=True)
        with open_crew(plan, options.workers) as crew:
            report = geo.upscale_scene(src, out, crew, scene_options)
        line = {"resumed": report.chunks_resumed, "run": report.chunks_run}
        print(json.dumps({**line, "same": sha(out) == wanted}), flush=True)


if __name__ == "__main__":
    main()
