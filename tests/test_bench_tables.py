"""Cost: the tables, the command, and the scripts around it."""

import importlib.util
import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from slimdiffsr.bench.rows import ROWS
from slimdiffsr.bench.tables import (
    append_records,
    paper_table,
    protocol_lines,
    read_records,
    results_table,
    table_rows,
)
from slimdiffsr.cli import app
from slimdiffsr.errors import DataError

# Tables


def record(row: str, median_s: float, **more: Any) -> dict[str, Any]:
    return {"row": row, "precision": "fp32", "batch": 1, "median_s": median_s, "runs": 9} | more


def cells(text: str, first: str) -> list[str]:
    """The cells of the line that starts with a word."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_papers_table_stands_beside_ours_as_ratios() -> None:
    records = [
        record("base", 2.0, parameters_used=50_000_000, parameters_paper=58_053_402, gmacs=226.7),
        record("sd-50steps", 400.0, parameters_used=900_000_000, extrapolated=True),
        record("esrgan", 3.0, parameters_used=16_697_987) | {"median_s": None, "error": "no luck"},
    ]
    text = paper_table(2, records)
    assert cells(text, "Ours") == [
        "Ours", "0.037", "1.00", "58.05", "1.00", "base", "2,000", "1.00", "50.00", "1.00",
        "58.05", "227",
    ]  # fmt: skip
    diffbir = cells(text, "DiffBIR")
    assert diffbir[1:6] == ["8.637", "233.43", "1717", "29.58", "sd-50steps (same class)"]
    assert diffbir[6:10] == ["400,000†", "200.00", "900.00", "18.00"]
    assert cells(text, "TTST") == ["TTST", "0.218", "5.89", "18.37", "0.32", *["-"] * 7]
    assert cells(text, "ESRGAN")[6:8] == ["-", "-"]
    assert "esrgan: no luck" in text
    assert "† extrapolated" in text


def test_precisions_and_batches_are_not_mixed() -> None:
    records = [
        record("base", 2.0),
        record("tiny", 1.0),
        record("base", 8.0, batch=8),
        record("tiny", 2.0, batch=8),
    ]
    one, eight = results_table(records).split("**fp32, batch 8**")
    assert cells(one, "tiny")[7] == "0.50"
    assert cells(eight, "tiny")[7] == "0.25"


def test_the_protocol_of_several_runs_names_the_load_before_each() -> None:
    about: dict[str, Any] = {
        "device": "a card", "device_type": "cuda", "threads": 2, "cores": 32, "system": "Linux",
        "python": "3", "date": "2026-11-26", "out_px": 512, "input_px": 128, "scale": 4,
        "asked_warmup": 20, "asked_runs": 100,
    }  # fmt: skip
    one, two = (record("base", 1.0, load_average=load, **about) for load in (7.36, 0.5))
    assert "before the run: 7.36" in protocol_lines([one, one])
    assert "before each run: 7.36, 0.5" in protocol_lines([one, two])


@pytest.mark.parametrize("table", [2, 5, 6])
def test_a_table_needs_rows_that_exist_and_ours(table: Any) -> None:
    names = table_rows(table)
    assert set(names) <= set(ROWS)
    assert "base" in names


def test_records_come_back_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "bench.jsonl"
    append_records(path, [record("base", 2.0)])
    append_records(path, [record("tiny", 1.0)])
    assert read_records(path) == [record("base", 2.0), record("tiny", 1.0)]
    path.write_text(path.read_text() + "{broken\n")
    with pytest.raises(DataError, match="line 3"):
        read_records(path)
    with pytest.raises(DataError, match="cannot read"):
        read_records(tmp_path / "none.jsonl")


# The command and the script


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


@pytest.mark.usefixtures("one_thread")
def test_the_command_writes_lines_and_the_table_that_it_prints(tmp_path: Path) -> None:
    lines, table = tmp_path / "a" / "bench.jsonl", tmp_path / "bench.md"
    options = ["--out-px", 64, "--runs", 2, "--warmup", 1, "--no-fresh", "--device", "cpu"]
    done = invoke("--row", "bicubic", *options, "--json", lines, "--markdown", table)
    assert done.exit_code == 0, done.output
    assert cells(done.stdout, "bicubic")[-1] == "2"
    assert table.read_text() in done.stdout
    assert [r["row"] for r in read_records(lines)] == ["bicubic"]
    again = invoke("--from", lines)
    assert again.stdout == done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--table", 3], "1, 2, 5, 6"),
        (["--row", "nothing"], "no row 'nothing'"),
        (["--precision", "half"], "fp32, bf16, fp16"),
        (["--row", "bicubic", "--device", "abacus"], "no device 'abacus'"),
    ],
)
def test_bad_options_are_one_sentence(arguments: list[object], words: str) -> None:
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert words in done.stderr
    assert "Traceback" not in done.output


def load_script(name: str) -> Any:
    path = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_a_part_for_the_accelerator_fails_or_hangs_alone(tmp_path: Path) -> None:
    script = load_script("accelerator")

    def part(code: str) -> Any:
        return script.Part("part", [sys.executable, "-c", code], 1.0, "lines.jsonl")

    assert "failed with status 3" in script.run(part("raise SystemExit(3)"), tmp_path)
    assert "stopped at its limit" in script.run(part("import time; time.sleep(60)"), tmp_path)
    assert "done" in script.run(part("print('{}')"), tmp_path)
    assert (tmp_path / "lines.jsonl").read_text() == "{}\n"


def test_every_part_for_the_accelerator_asks_for_rows_that_exist(tmp_path: Path) -> None:
    script = load_script("accelerator")
    asked: set[str] = set()
    for part in script.parts(tmp_path, "cuda", False):
        asked |= {after for word, after in pairwise(part.command) if word == "--row"}
    assert asked == set(ROWS) - {"compact"}


def test_the_page_of_results_is_filled_between_its_marks(tmp_path: Path) -> None:
    script = load_script("results_page")
    page = "before\n<!-- a -->\nold\n<!-- end a -->\nafter\n"
    filled = script.fill(page, "a", "new \\1 text")
    assert filled == "before\n<!-- a -->\n\nnew \\1 text\n\n<!-- end a -->\nafter\n"
    assert script.fill(filled, "a", "new \\1 text") == filled
    with pytest.raises(SystemExit, match="one block b"):
        script.fill(page, "b", "")


def test_ratios_are_to_ours_of_the_same_precision_and_batch(tmp_path: Path) -> None:
    script = load_script("results_page")
    path = tmp_path / "bench.jsonl"
    half = {"precision": "bf16", "batch": 8}
    append_records(
        path,
        [
            record("base", 2.0), record("kl", 8.0), record("tiny", 1.0), record("esrgan", 0.0),
            record("base", 1.0, **half), record("kl", 3.0, **half),
        ],
    )  # fmt: skip
    text = script.ratios(path)
    assert cells(text, "row") == ["row", "paper", "fp32, batch 1", "bf16, batch 8"]
    assert cells(text, "kl") == ["kl", "5.27", "4.00", "3.00"]
    assert cells(text, "tiny") == ["tiny", "-", "0.50", "-"]
    assert "esrgan" not in text
    assert script.ratios(tmp_path / "none.jsonl") == "Not run yet."


def test_training_steps_become_a_table_and_errors_stay(tmp_path: Path) -> None:
    script = load_script("results_page")
    about = {"device": "a card", "torch": "2", "dtype": "bf16 autocast", "side_px": 512}
    good = about | {
        "stage": "teacher", "batch": 2, "checkpointing": True, "seconds_median": 0.5,
        "seconds_spread": 0.01, "peak_gib": 20.5, "steps_timed": 5,
    }  # fmt: skip
    bad = about | {"stage": "student", "batch": 16, "checkpointing": None, "error": "no memory"}
    path = tmp_path / "steps.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in (good, bad)))
    text = script.training_steps(path)
    assert cells(text, "teacher") == ["teacher", "2", "on", "0.5", "0.01", "20.5", "5"]
    assert cells(text, "student")[3:] == ["-"] * 4
    assert "student, batch 16: no memory" in text
    assert script.training_steps(tmp_path / "none.jsonl") == "Not run yet."
