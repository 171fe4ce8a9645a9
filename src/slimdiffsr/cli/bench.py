"""The command bench."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from slimdiffsr.cli.show import note
from slimdiffsr.errors import ConfigError, InterruptedRunError, OutputError

if TYPE_CHECKING:
    from slimdiffsr.bench.run import Record

__all__ = ["bench"]

TABLES = (1, 2, 5, 6)


def bench(
    row: Annotated[
        list[str] | None,
        typer.Option(
            help="base, compact, tiny, kl, taesd, no-sap, no-dsc, no-fsc, no-qgam, esrgan, swinir, "
            "sd-1step, sd-50steps, bicubic; repeat. Default: all, or the table's."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="tiny-x4, a .safetensors file, org/name; repeat."),
    ] = None,
    table: Annotated[
        list[int] | None, typer.Option(help="Regenerate a table of the paper: 1, 2, 5, 6; repeat.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto.")] = "auto",
    precision: Annotated[list[str] | None, typer.Option(help="fp32, fp16, bf16; repeat.")] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(help="torch, recorded, compiled, openvino, onnx; repeat. Default: torch."),
    ] = None,
    scene: Annotated[
        int, typer.Option(help="Also whole scenes, of so many output pixels a side.")
    ] = 0,
    batch: Annotated[list[int] | None, typer.Option(help="Images at once; repeat.")] = None,
    out_px: Annotated[int, typer.Option(help="Side of the output image.")] = 512,
    scale: Annotated[int, typer.Option("--scale", "-s", help="2, 4 or 8.")] = 4,
    runs: Annotated[int, typer.Option(help="Timed runs of each row.")] = 100,
    warmup: Annotated[int, typer.Option(help="Runs before those, not timed.")] = 20,
    max_minutes: Annotated[
        float | None, typer.Option(help="Time for the runs of all rows, in equal shares.")
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option(help="Cold start and a CPU's peak memory, in a new process for each row."),
    ] = True,
    json: Annotated[Path | None, typer.Option(help="Add JSON lines to this file.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables to this file.")] = None,
    read: Annotated[
        Path | None, typer.Option("--from", help="Tables of these JSON lines; nothing is run.")
    ] = None,
) -> None:
    """Measure cost: parameters, MACs, latency, throughput, memory, cold start."""
    from slimdiffsr.bench.protocol import BenchConfig

    tables = table or []
    for number in tables:
        if number not in TABLES:
            raise ConfigError(f"--table must be one of {', '.join(map(str, TABLES))}, got {number}")
    config = BenchConfig(
        device=device,
        precisions=cast("Any", tuple(dict.fromkeys(precision or ["fp32"]))),
        batches=tuple(dict.fromkeys(batch or [1])),
        runtimes=cast("Any", tuple(dict.fromkeys(runtime or ["torch"]))),
        scene_px=scene,
        out_px=out_px,
        scale=scale,
        runs=runs,
        warmup=warmup,
        max_minutes=max_minutes,
        fresh=fresh,
    )
    records: list[Record] = []
    if read is not None:
        from slimdiffsr.bench.tables import read_records

        records = read_records(read)
    elif row or model or tables != [1]:
        records = _run(config, _row_names(row, model, tables), model or [], json)
    text = _tables(records, tables, out_px, everything=bool(row or model) or not tables)
    print(text)
    if markdown is not None:
        _write(markdown, text)


def _row_names(row: list[str] | None, model: list[str] | None, tables: list[int]) -> list[str]:
    from slimdiffsr.bench.tables import table_rows

    names = list(row or [])
    if not names:
        names = [name for number in tables for name in table_rows(cast("Any", number))]
    if tables and "base" not in names:
        names.append("base")  # what the ratios are to
    return list(dict.fromkeys(names))


def _run(config: Any, names: list[str], models: list[str], json: Path | None) -> list[Record]:  # noqa: ANN401
    from slimdiffsr.bench.rows import choose_rows
    from slimdiffsr.bench.run import bench as measure
    from slimdiffsr.bench.tables import append_records

    rows = choose_rows(names, models, config.scale)
    if json is not None:
        _write(json, "", append=True)  # found out now, not after the run

    def keep(done: list[Record]) -> None:
        if json is not None:
            append_records(json, done)

    try:
        return measure(rows, config, keep, note)
    except KeyboardInterrupt:
        done = "nothing" if json is None else f"in {json} what was timed"
        raise InterruptedRunError(f"stopped; kept {done}") from None


def _tables(records: list[Record], tables: list[int], out_px: int, *, everything: bool) -> str:
    from slimdiffsr.bench.tables import (
        paper_table,
        protocol_lines,
        results_table,
        scenes_table,
        shares_table,
    )

    parts = [protocol_lines(records)] if records else []
    for number in tables:
        if number == 1:
            from slimdiffsr.bench.counts import diffusion_parts

            parts.append(shares_table(diffusion_parts(out_px)))
        else:
            parts.append(paper_table(cast("Any", number), records))
    if everything:
        parts.append(results_table(records))
    if any("scene_px" in record for record in records):
        parts.append(scenes_table(records))
    return "\n\n".join(parts)


def _write(path: Path, text: str, *, append: bool = False) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a" if append else "w", encoding="utf-8") as file:
            file.write(text + "\n" if text else "")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from None
