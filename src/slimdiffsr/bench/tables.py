"""Records as Markdown: one table of everything, and the paper's tables with ours beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from slimdiffsr.bench.counts import Part
from slimdiffsr.bench.paper import PAPER_SHARES, PAPER_TABLES, PaperRow, Table
from slimdiffsr.bench.run import Record
from slimdiffsr.errors import DataError

__all__ = [
    "append_records",
    "markdown_table",
    "paper_table",
    "protocol_lines",
    "read_records",
    "results_table",
    "scenes_table",
    "shares_table",
    "table_rows",
]

OURS = "base"
NONE = "-"


def append_records(path: Path, records: Sequence[Record]) -> None:
    """Add records to a file of JSON lines."""
    with path.open("a", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record) + "\n")


def read_records(path: Path) -> list[Record]:
    """Records of a file of JSON lines. Raises DataError, with the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or "row" not in record:
            raise DataError(f"{path}, line {number}: no record of 'slimdiffsr bench --json'")
        records.append(record)
    return records


def table_rows(table: Table) -> list[str]:
    """Names of the rows that a table of the paper needs; none for Table 1, which is counted."""
    found = [p.row or p.class_row for p in PAPER_TABLES.get(table, ())]
    return [name for name in found if name is not None]


def results_table(records: Sequence[Record]) -> str:
    """All cells: a block for each precision, batch and runtime, ratios to its own ``base``."""
    header = [
        "row", "params M", "paper's M", "GMAC", "median ms", "25 %", "75 %", "x base", "Mpx/s",
        "peak MiB", "cold start s", "runs",
    ]  # fmt: skip
    blocks = []
    for title, group in _groups(records).items():
        ours = _median(_find(group, OURS))
        lines = [_result_line(record, ours) for record in group]
        blocks.append(f"**{title}**\n\n" + markdown_table(header, lines) + _footnotes(group))
    return "\n\n".join(blocks)


def _result_line(r: Record, ours: float | None) -> list[str]:
    median = _show(r.get("median_s"), _ms) + ("†" if r.get("extrapolated") else "")
    return [
        r["row"],
        _show(r.get("parameters_used"), _millions),
        _show(r.get("parameters_paper"), _millions),
        _show(r.get("gmacs"), _short),
        median,
        _show(r.get("q1_s"), _ms),
        _show(r.get("q3_s"), _ms),
        _ratio(r.get("median_s"), ours),
        _show(r.get("mpx_per_s"), _short),
        _show(r.get("peak_mib"), lambda v: f"{v:,.0f}"),
        _show(r.get("cold_start_s"), lambda v: f"{v:.1f}"),
        f"{r.get('runs', 0)}",
    ]


def scenes_table(records: Sequence[Record]) -> str:
    """Whole scenes: the engine beside the bare network with the same runtime and batch."""
    header = [
        "row", "precision", "runtime", "batch", "scene", "engine Mpx/s", "bare Mpx/s",
        "share of the bare tiles", "host MiB", "card MiB", "Ws",
    ]  # fmt: skip
    found = [record for record in records if "scene_px" in record]
    lines = [
        [
            r["row"],
            r["precision"],
            r["runtime"],
            f"{r.get('batch', NONE)}",
            f"{r['scene_px']} x {r['scene_px']}",
            _show(r.get("engine_mpx_per_s"), _short),
            _show(r.get("bare_mpx_per_s"), _short),
            _show(r.get("share_of_bare"), lambda v: f"{100 * v:.0f} %"),
            _show(r.get("host_peak_mib"), lambda v: f"{v:,.0f}"),
            _show(r.get("card_peak_mib"), lambda v: f"{v:,.0f}"),
            _show(r.get("watt_seconds"), _short),
        ]
        for r in found
    ]
    return "**Whole scenes**\n\n" + markdown_table(header, lines) + _footnotes(found)


def paper_table(table: Table, records: Sequence[Record]) -> str:
    """Efficiency columns of Table 2, 5 or 6: the paper's, and ours of one run, both as ratios to ours.

    One block a precision and batch. Rows that have no network here show the paper's figures alone.
    """
    rows = PAPER_TABLES[table]
    own = next(p for p in rows if p.method == "Ours")
    header = [
        "method", "paper: s", "x ours", "paper: M", "x ours", "row here", "ms", "x ours",
        "M used", "x ours", "M as the paper counts", "GMAC",
    ]  # fmt: skip
    blocks = []
    for about, group in _groups(records).items():
        lines = [_paper_line(p, own, group) for p in rows]
        title = f"Table {table}, {about}"
        shown = [r for r in group if r["row"] in table_rows(table)]
        blocks.append(f"**{title}**\n\n" + markdown_table(header, lines) + _footnotes(shown))
    return "\n\n".join(blocks)


def _paper_line(paper: PaperRow, own: PaperRow, group: Sequence[Record]) -> list[str]:
    name = paper.row or paper.class_row
    record = _find(group, name) or {}
    ours = _find(group, OURS) or {}
    shown = NONE if name is None else name + ("" if paper.row else " (same class)")
    median = _show(record.get("median_s"), _ms) + ("†" if record.get("extrapolated") else "")
    return [
        paper.method,
        f"{paper.seconds:.3f}",
        f"{paper.seconds / own.seconds:.2f}",
        f"{paper.parameters_m:g}",
        f"{paper.parameters_m / own.parameters_m:.2f}",
        shown,
        median,
        _ratio(record.get("median_s"), ours.get("median_s")),
        _show(record.get("parameters_used"), _millions),
        _ratio(record.get("parameters_used"), ours.get("parameters_used")),
        _show(record.get("parameters_paper"), _millions),
        _show(record.get("gmacs"), _short),
    ]


def shares_table(parts: dict[str, Part]) -> str:
    """Table 1: shares of UNet and VAE, the paper's and counted; MACs with and without attention."""
    unet, encoder, decoder = parts["UNet"], parts["encoder"], parts["decoder"]
    vae = Part(encoder.parameters + decoder.parameters, encoder.macs.plus(decoder.macs))
    both = {"UNet": unet, "VAE": vae}
    parameters = sum(p.parameters for p in both.values())
    total = unet.macs.total + vae.macs.total
    layers = unet.macs.layers + vae.macs.layers
    header = [
        "component", "paper: params", "params", "M", "paper: MACs", "MACs of layers",
        "MACs with attention", "GMAC with attention",
    ]  # fmt: skip
    lines = [
        [
            name,
            f"{PAPER_SHARES[name][0]:.2f} %",
            f"{100 * part.parameters / parameters:.2f} %",
            _millions(part.parameters),
            f"{PAPER_SHARES[name][1]:.0f} %",
            f"{100 * part.macs.layers / layers:.1f} %",
            f"{100 * part.macs.total / total:.1f} %",
            f"{part.macs.total / 1e9:.0f}",
        ]
        for name, part in both.items()
    ]
    return "**Table 1**\n\n" + markdown_table(header, lines)


def protocol_lines(records: Sequence[Record]) -> str:
    """Machine, versions and protocol of a run, as a list."""
    if not records:
        return ""
    r = records[0]
    versions = [f"{k} {r[k]}" for k in ("slimdiffsr", "torch", "diffusers", "spandrel") if r.get(k)]
    clock = "CUDA events, synchronised" if r["device_type"] == "cuda" else "perf_counter"
    threads = f", {r['threads']} thread{'s' if r['threads'] > 1 else ''} on {r['cores']} cores"
    cuda = f", CUDA {r['cuda']}" if r.get("cuda") else threads
    limit = f", at most {r['max_minutes']:g} min" if r.get("max_minutes") else ""
    lines = [
        f"* {r['device']}{cuda}, {r['system']}, Python {r['python']}, {', '.join(versions)}; "
        f"{r['date']}",
        f"* {r['out_px']}x{r['out_px']} output pixels from {r['input_px']}x{r['input_px']} "
        f"({r['scale']}x), channels last; rows take turns, {clock}; asked for {r['asked_warmup']} "
        f"warm-ups and {r['asked_runs']} runs{limit}",
    ]
    loads = dict.fromkeys(r["load_average"] for r in records if r.get("load_average") is not None)
    if loads:
        before = "the run" if len(loads) == 1 else "each run"
        shown = ", ".join(f"{load:g}" for load in loads)
        lines.append(f"* load average of the machine before {before}: {shown}")
    if r.get("tf32"):
        on = {True: "on", False: "off"}
        tf32 = r["tf32"]
        lines.append(
            f"* TF32 in fp32 rows: convolutions {on[tf32['convolutions']]}, "
            f"matrix products {on[tf32['products']]} (torch's defaults)"
        )
    return "\n".join(lines)


def _groups(records: Sequence[Record]) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        if "scene_px" in record:
            continue
        runtime = record.get("runtime", "torch")
        title = f"{record.get('precision', NONE)}, batch {record.get('batch', 1)}"
        title += "" if runtime == "torch" else f", {runtime}"
        groups.setdefault(title, []).append(record)
    return groups


def _find(group: Sequence[Record], name: str | None) -> Record | None:
    return next((r for r in group if r["row"] == name), None)


def _median(record: Record | None) -> float | None:
    return None if record is None else record.get("median_s")


def _footnotes(group: Sequence[Record]) -> str:
    notes = []
    if any(r.get("extrapolated") for r in group):
        notes.append("† extrapolated: one step measured, the others' time added from the UNet's.")
    for kind in ("error", "fresh_error", "count_error"):
        notes += [f"{r['row']}: {r[kind]}" for r in group if r.get(kind)]
    unique = list(dict.fromkeys(notes))
    return "".join(f"\n\n{note}" for note in unique)


def _ratio(value: float | None, ours: float | None) -> str:
    if value is None or not ours:
        return NONE
    ratio = value / ours
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def _show(value: Any, form: Callable[[Any], str]) -> str:  # noqa: ANN401  any number or None
    return NONE if value is None else form(value)


def _ms(seconds: float) -> str:
    return _short(1000 * seconds)


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f}"


def _short(value: float) -> str:
    """Three digits that matter, without exponents."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def markdown_table(header: list[str], lines: list[list[str]]) -> str:
    """A table whose first column is words and whose others are numbers."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *lines))
