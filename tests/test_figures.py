from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from slimdiffsr.errors import DataError
from slimdiffsr.figures.cost import Bubble, draw_cost, read_timings
from slimdiffsr.figures.crops import Comparison, draw_crops
from slimdiffsr.figures.detail import Box, cut, most_detailed
from slimdiffsr.figures.radar import INNER, Spoke, draw_radar


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("unit", [1, 4])
def test_the_most_detailed_square_is_where_the_noise_is(unit: int) -> None:
    rgb = np.full((90, 130, 3), 128, np.uint8)
    rgb[52:76, 100:124] = noise(24, 24)
    box = most_detailed(rgb, 32, unit)
    assert box.side == 32
    assert box.row <= 52 < 76 <= box.row + 32
    assert box.column <= 100 < 124 <= box.column + 32
    assert all(length % unit == 0 for length in box)


@pytest.mark.parametrize("shape", [(3, 40), (40, 3), (1, 1), (5, 5)])
def test_the_most_detailed_square_lies_within_small_images(shape: tuple[int, int]) -> None:
    box = most_detailed(noise(*shape), 16)
    assert cut(noise(*shape), box).shape == (min(16, *shape), min(16, *shape), 3)


def test_a_box_is_found_again_in_a_larger_image() -> None:
    small = noise(10, 12)
    large = small.repeat(4, axis=0).repeat(4, axis=1)
    box = Box(2, 3, 5)
    np.testing.assert_array_equal(cut(large, box.times(4))[::4, ::4], cut(small, box))


def comparison(**more: Any) -> Comparison:
    lr = noise(32, 40)
    sr = lr.repeat(4, axis=0).repeat(4, axis=1)
    results = {"nearest": sr, "grey": sr // 2, "truth": sr}
    return Comparison("place", lr, 4, results, {"grey": "psnr_y 10.00"}, **more)


def test_crops_show_the_marked_place_of_the_input_and_of_each_result() -> None:
    shown = comparison(box=Box(4, 6, 10))
    figure = draw_crops([shown, comparison()])
    axes = {a.get_title(): a for a in figure.axes[: len(figure.axes) // 2]}
    assert next(iter(axes)) == "place"
    (outer, _) = (p for p in axes["place"].patches if isinstance(p, Rectangle))
    assert (outer.get_x() + 0.5, outer.get_y() + 0.5, outer.get_width()) == (24, 16, 40)
    expected = {
        "input": shown.lr[4:14, 6:16],
        "grey": shown.results["grey"][16:56, 24:64],
        "truth": shown.results["truth"][16:56, 24:64],
    }
    for title, pixels in expected.items():
        np.testing.assert_array_equal(axes[title].images[0].get_array(), pixels)
    assert axes["grey"].get_xlabel() == "psnr_y 10.00"


def test_without_a_box_the_busiest_third_of_the_truth_is_magnified() -> None:
    place = comparison().place()
    assert place.side == 128 // 3 // 4
    truth = comparison().results["truth"]
    assert place.times(4) == most_detailed(truth, 128 // 3, unit=4)


def test_bubbles_stand_at_time_and_quality_and_their_areas_are_parameters() -> None:
    bubbles = [
        Bubble("small", 0.3, 0.28, 0.33, 0.1, 1_400_000),
        Bubble("large", 0.2, 0.19, 0.21, 2.0, 56_000_000),
        Bubble("bicubic", 0.7, 0.65, 0.75, 0.003, 0),
    ]
    (axes,) = draw_cost(bubbles, "lpips ↓", "512 x 512 px").axes
    found: list[Any] = [c for c in axes.collections if isinstance(c, PathCollection)]
    places = [tuple(c.get_offsets()[0]) for c in found]
    assert places == [(0.1, 0.3), (2.0, 0.2), (0.003, 0.7)]
    areas = [c.get_sizes()[0] for c in found]
    assert areas[1] / areas[0] == pytest.approx(40)
    assert axes.get_xscale() == "log"
    assert axes.yaxis_inverted()
    labels = [text.get_text() for text in axes.texts]
    assert labels == ["small\n1.4 M", "large\n56 M", "bicubic\nno parameters"]
    assert "512 x 512 px" in axes.get_xlabel()
    (higher,) = draw_cost(bubbles, "psnr ↑", "").axes
    assert not higher.yaxis_inverted()


def test_timings_are_read_from_the_lines_of_bench(tmp_path: Path) -> None:
    def line(row: str, **more: Any) -> str:
        about = {"batch": 1, "precision": "fp32", "median_s": 0.5, "parameters_used": 7}
        return json.dumps({"row": row, "out_px": 512, "device": "a chip", **about, **more})

    path = tmp_path / "bench.jsonl"
    lines = (
        line("a", median_s=0.1), line("a"), line("b", batch=4), line("c", precision="fp16"),
        line("d", median_s=None), line("e", parameters_used=0),
    )  # fmt: skip
    path.write_text("\n".join(lines))
    assert read_timings(path) == ({"a": (0.5, 7), "e": (0.5, 0)}, "512 x 512 px, fp32, a chip")
    assert list(read_timings(path, "fp16")[0]) == ["c"]
    with pytest.raises(DataError, match="no timing at batch 1 and bf16"):
        read_timings(path, "bf16")
    path.write_text("{}")
    with pytest.raises(DataError, match="no JSON lines of bench"):
        read_timings(path)


def test_radar_spokes_run_from_the_worst_to_the_best_model() -> None:
    spokes = [Spoke("psnr", "higher"), Spoke("lpips", "lower", 3), Spoke("same", "lower")]
    models = {"one": [24.0, 0.5, 1.0], "two": [25.0, 0.3, 1.0], "three": [24.5, 0.4, 1.0]}
    figure = draw_radar(spokes, models)
    (axes,) = figure.axes
    radii = np.array([line.get_ydata() for line in axes.lines])[:, :3]
    middle = (INNER + 1) / 2
    expected = np.array([[INNER, INNER, 1], [1, 1, 1], [middle, middle, 1]])
    np.testing.assert_allclose(radii, expected)
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["psnr ↑\n24.00 … 25.00", "lpips ↓\n0.500 … 0.300", "same ↓\n1.00 … 1.00"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["one", "two", "three"]
