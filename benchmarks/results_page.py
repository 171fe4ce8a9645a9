"""Fill the tables of docs/results/benchmark.md from the JSON lines beside it.

    python benchmarks/results_page.py

reads docs/results/benchmark/cpu.jsonl and, where they are, accelerator/{bench,busy}.jsonl beside it
(of ``slimdiffsr bench --json``; busy as benchmarks/accelerator.py ran it) and accelerator/{fresh,steps}.jsonl
(of benchmarks/accelerator.py), and rewrites what stands between the page's marks. Everything else on
the page is left as it is.
"""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slimdiffsr.bench.counts import diffusion_parts
from slimdiffsr.bench.paper import PAPER_TABLES
from slimdiffsr.bench.tables import (
    markdown_table,
    paper_table,
    protocol_lines,
    read_records,
    results_table,
    shares_table,
)

RESULTS = Path(__file__).parents[1] / "docs" / "results"
NOTHING = "Not run yet."


def papers_tables(path: Path) -> str:
    """The protocol, then Tables 2, 5 and 6 with the batch of 1 of each precision."""
    if not path.is_file():
        return NOTHING
    records = read_records(path)
    one = [r for r in records if r["batch"] == 1]
    return "\n\n".join([protocol_lines(records), *(paper_table(n, one) for n in (2, 5, 6))])


def all_rows(path: Path) -> str:
    return results_table(read_records(path)) if path.is_file() else NOTHING


def ratios(path: Path) -> str:
    """Times as multiples of base's in the same precision and batch, beside the paper's multiples."""
    if not path.is_file():
        return NOTHING
    times: dict[tuple[str, int], dict[str, float]] = {}
    for r in read_records(path):
        if r.get("median_s"):
            times.setdefault((r["precision"], r["batch"]), {})[r["row"]] = r["median_s"]
    papers = {p.row or p.class_row: p.seconds for table in PAPER_TABLES.values() for p in table}
    header = ["row", "paper", *(f"{precision}, batch {batch}" for precision, batch in times)]
    names = dict.fromkeys(name for group in times.values() for name in group)
    lines = [
        [
            name,
            f"{papers[name] / papers['base']:.2f}" if name in papers else "-",
            *(
                f"{g[name] / g['base']:.2f}" if {name, "base"} <= set(g) else "-"
                for g in times.values()
            ),
        ]
        for name in names
    ]
    return markdown_table(header, lines)


def some_rows(path: Path, *names: str) -> str:
    """The protocol and these rows alone; ``base`` should be among them, for the ratios."""
    if not path.is_file():
        return NOTHING
    records = [r for r in read_records(path) if r["row"] in names]
    return "\n\n".join([protocol_lines(records), results_table(records)])


def training_steps(path: Path) -> str:
    """Seconds and memory of full_size.py's lines."""
    if not path.is_file():
        return NOTHING
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    header = ["stage", "batch", "recomputation", "s a step", "spread", "peak GiB", "steps timed"]
    table = markdown_table(header, [step_line(line) for line in lines])
    first = lines[0]
    about = f"{first['device']}, torch {first['torch']}, {first['dtype']}, {first['side_px']} px"
    errors = [f"{x['stage']}, batch {x['batch']}: {x['error']}" for x in lines if "error" in x]
    return "\n\n".join([f"* {about}", table, *errors])


def step_line(line: dict[str, Any]) -> list[str]:
    recomputed = {True: "on", False: "off", None: "-"}[line["checkpointing"]]
    keys = ("seconds_median", "seconds_spread", "peak_gib", "steps_timed")
    return [line["stage"], str(line["batch"]), recomputed, *(str(line.get(k, "-")) for k in keys)]


def fill(page: str, name: str, text: str) -> str:
    """The page with a new text between its two marks of that name."""
    marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    page, found = marked.subn(lambda m: f"{m[1]}\n{text}\n\n{m[2]}", page)
    if found != 1:
        raise SystemExit(f"the page should have one block {name}, but it has {found}")
    return page


def blocks(folder: Path) -> dict[str, Callable[[], str]]:
    device = folder / "accelerator"
    return {
        "table-1": lambda: shares_table(diffusion_parts()),
        "cpu-tables": lambda: papers_tables(folder / "cpu.jsonl"),
        "cpu-rows": lambda: all_rows(folder / "cpu.jsonl"),
        "accelerator-tables": lambda: papers_tables(device / "bench.jsonl"),
        "accelerator-ratios": lambda: ratios(device / "bench.jsonl"),
        "accelerator-rows": lambda: all_rows(device / "bench.jsonl"),
        "accelerator-50-steps": lambda: some_rows(
            device / "busy.jsonl", "base", "sd-1step", "sd-50steps"
        ),
        "accelerator-fresh": lambda: all_rows(device / "fresh.jsonl"),
        "accelerator-steps": lambda: training_steps(device / "steps.jsonl"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, nargs="?", default=RESULTS)
    results = parser.parse_args().results
    path = results / "benchmark.md"
    page = path.read_text(encoding="utf-8")
    for name, make in blocks(results / "benchmark").items():
        page = fill(page, name, make())
    path.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
