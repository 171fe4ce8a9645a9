"""An evaluation that goes on where it was killed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pairs import nearest, write_pairs
from PIL import Image

from slimdiffsr.datasets.images import read_rgb8
from slimdiffsr.evaluate import (
    Method,
    Metric,
    PairedFolder,
    Progress,
    Report,
    Store,
    choose_metrics,
    evaluate,
)
from slimdiffsr.evaluate.run import output_path

Rgb8 = NDArray[np.uint8]


class Counting:
    """A method with an identity that counts how often it is asked."""

    def __init__(self, identity: str = "weights", level: int = 0) -> None:
        self.level = level
        self.calls: list[str] = []
        self.method = Method("counting", self.restore, "a test", identity)

    def restore(self, rgb_lr: Rgb8, image: str) -> Rgb8:
        self.calls.append(image)
        return nearest(rgb_lr) + np.uint8(self.level)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return write_pairs(tmp_path)


def run_stored(folders: tuple[Path, Path], out: Path, counting: Counting, **more: Any) -> Report:
    with Store.open(out / "scores.jsonl") as store:
        metrics = more.pop("metrics", choose_metrics())
        pairs = PairedFolder.open(*folders)
        return evaluate([counting.method], pairs, metrics, store=store, **more)


def test_what_is_scored_is_kept_and_the_same_report_comes_out(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    first, again = Counting(), Counting()
    report = run_stored(folders, tmp_path, first)
    scored: list[str] = []

    def counted(metric: Metric) -> Metric:
        def compute(sample: Any) -> float:
            scored.append(metric.name)
            return metric.compute(sample)

        return dataclasses.replace(metric, compute=compute)

    metrics = [counted(metric) for metric in choose_metrics()]
    assert run_stored(folders, tmp_path, again, metrics=metrics).scores == report.scores
    assert (first.calls, again.calls, scored) == (["a", "b", "c"], [], [])


def test_a_run_that_was_killed_goes_on_even_after_a_torn_line(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    whole = run_stored(folders, tmp_path / "whole", Counting())

    class Killed(BaseException):
        pass

    def kill(progress: Progress) -> None:
        if progress.done == 2:
            raise Killed

    with pytest.raises(Killed):
        run_stored(folders, tmp_path, Counting(), progress=kill)
    store = tmp_path / "scores.jsonl"
    store.write_text(store.read_text()[:-20])  # the last line, a score, is torn
    counting = Counting()
    assert run_stored(folders, tmp_path, counting).scores == whole.scores
    assert "c" in counting.calls
    assert "a" not in counting.calls
    rest = Counting()
    assert run_stored(folders, tmp_path, rest).scores == whole.scores
    assert not rest.calls


def test_changed_weights_data_or_metrics_are_measured_again_and_nothing_else(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    run_stored(folders, tmp_path, Counting())
    other = Counting("other weights", level=1)
    run_stored(folders, tmp_path, other)
    assert other.calls == ["a", "b", "c"]
    Image.fromarray(np.full((16, 17, 3), 9, np.uint8)).save(folders[0] / "b.png")
    changed = Counting()
    run_stored(folders, tmp_path, changed)
    assert changed.calls == ["b"]
    Image.fromarray(np.full((64, 64, 3), 9, np.uint8)).save(folders[1] / "a.tif")
    truth = Counting()
    report = run_stored(folders, tmp_path, truth)
    assert truth.calls == ["a"]  # its output was not saved, so it is made again to be compared
    fresh = run_stored(folders, tmp_path / "fresh", Counting())
    assert report.scores == fresh.scores
    metric = Metric("mean", "higher", "", lambda s: float(s.sr.mean()), uses_truth=False)
    more = Counting()
    run_stored(folders, tmp_path, more, metrics=[*choose_metrics(), metric])
    assert more.calls == ["a", "b", "c"]


def test_failures_are_tried_again(folders: tuple[Path, Path], tmp_path: Path) -> None:
    class Broken(Counting):
        def restore(self, rgb_lr: Rgb8, image: str) -> Rgb8:
            if image == "b":
                raise RuntimeError("out of memory")
            return super().restore(rgb_lr, image)

    assert len(run_stored(folders, tmp_path, Broken()).failures) == 1
    counting = Counting()
    assert not run_stored(folders, tmp_path, counting).failures
    assert counting.calls == ["b"]


def test_saved_outputs_serve_new_metrics_and_are_made_again_when_they_are_not_the_known_ones(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    save_to = tmp_path / "outputs"
    run_stored(folders, tmp_path, Counting(), save_to=save_to)
    saved = output_path(save_to, "counting", "b")
    np.testing.assert_array_equal(read_rgb8(saved), nearest(read_rgb8(folders[0] / "b.png")))
    metric = Metric("mean", "higher", "", lambda s: float(s.sr.mean()), uses_truth=False)
    counting = Counting()
    report = run_stored(folders, tmp_path, counting, save_to=save_to, metrics=[metric])
    assert counting.calls == []
    assert len(report.scores["counting"]["mean"]) == 3
    Image.new("RGB", (68, 64)).save(saved)
    output_path(save_to, "counting", "c").unlink()
    run_stored(folders, tmp_path, counting, save_to=save_to)
    assert counting.calls == ["b", "c"]
    np.testing.assert_array_equal(read_rgb8(saved), nearest(read_rgb8(folders[0] / "b.png")))


def test_methods_without_an_identity_are_never_taken_from_the_store(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    for level in (0, 7):
        counting = Counting("", level)
        report = run_stored(folders, tmp_path, counting)
        assert len(counting.calls) == 3
        estimate = report.estimate("counting", "consistency")
        assert estimate is not None
        assert (estimate.mean > 5) == (level > 0)
