"""Tiles cover a scene, blend to one, and never depend on what part of it is asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimdiffsr.errors import TilingError
from slimdiffsr.geo.grid import Region, TileGrid, blend_weights, chunk_regions, reflect_index


@st.composite
def grids(draw: st.DrawFn) -> TileGrid:
    tile = draw(st.integers(2, 24))
    overlap = draw(st.integers(0, tile // 2))
    offset = st.integers(0, tile - overlap - 1)
    scene = Region(0, 0, draw(st.integers(1, 90)), draw(st.integers(1, 90)))
    return TileGrid(scene, tile, overlap, (draw(offset), draw(offset)))


@settings(deadline=None)  # a busy machine is no defect
@given(grids(), st.integers(1, 3))
def test_weights_of_all_tiles_add_up_to_one_everywhere(grid: TileGrid, scale: int) -> None:
    total = np.zeros((grid.scene_lr.height * scale, grid.scene_lr.width * scale))
    for tile in grid.touching(grid.scene_lr):
        rows, cols = blend_weights(grid.tile_lr_px * scale, grid.overlap_lr_px * scale, tile.inner)
        tile_hr = tile.region_lr.times(scale)
        part = tile_hr.clipped(grid.scene_lr.times(scale))
        weights = rows[:, None] * cols[None]
        total[part.slices(grid.scene_lr.times(scale))] += weights[part.slices(tile_hr)]
    np.testing.assert_allclose(total, 1, atol=1e-6)


@settings(deadline=None)  # a busy machine is no defect
@given(grids(), st.data())
def test_tiles_touching_a_region_are_those_that_share_a_pixel(
    grid: TileGrid, data: st.DataObject
) -> None:
    scene = grid.scene_lr
    col = data.draw(st.integers(0, scene.width - 1))
    row = data.draw(st.integers(0, scene.height - 1))
    width = data.draw(st.integers(1, scene.width - col))
    region = Region(col, row, width, data.draw(st.integers(1, scene.height - row)))
    everything = [grid.tile(r, c) for r in range(grid.rows) for c in range(grid.columns)]
    sharing = [t for t in everything if t.region_lr.clipped(region).pixels]
    assert grid.touching(region) == sharing


@settings(deadline=None)  # a busy machine is no defect
@given(st.integers(0, 700), st.integers(1, 1300), st.integers(1, 1300))
def test_chunks_cover_a_window_once(col: int, width: int, height: int) -> None:
    window = Region(col, 3, width, height)
    count = np.zeros((height, width), int)
    for chunk in chunk_regions(window, 512):
        count[chunk.slices(window)] += 1
    assert (count == 1).all()


@settings(deadline=None)  # a busy machine is no defect
@given(st.integers(-40, 40), st.integers(1, 60), st.integers(1, 25))
def test_reflection_is_numpys(start: int, size: int, length: int) -> None:
    before, after = max(0, -start), max(0, start + size - length)
    padded = np.pad(np.arange(length), (before, after), mode="reflect")
    expected = padded[start + before : start + before + size]
    np.testing.assert_array_equal(reflect_index(start, size, length), expected)


def test_weights_fall_to_nearly_nothing_at_inner_edges() -> None:
    rows, cols = blend_weights(512, 64, (True, False, True, True))
    assert cols[0] < 1e-3
    assert cols[-1] < 1e-3
    assert rows[0] == 1
    assert rows[-1] < 1e-3
    assert (rows[64:-64] == 1).all()


def test_covering_a_finer_region() -> None:
    assert Region(5, 8, 3, 1).cover(4) == Region(1, 2, 1, 1)
    assert Region(4, 8, 8, 5).cover(4) == Region(1, 2, 2, 2)


@pytest.mark.parametrize(
    ("overlap", "offset"), [(-1, (0, 0)), (9, (0, 0)), (4, (12, 0)), (4, (0, -1))]
)
def test_numbers_that_do_not_fit_are_refused(overlap: int, offset: tuple[int, int]) -> None:
    with pytest.raises(TilingError, match="got"):
        TileGrid(Region(0, 0, 50, 50), 16, overlap, offset)


@settings(deadline=None)  # a busy machine is no defect
@given(grids())
def test_outer_tiles_stick_out_of_the_scene_unless_one_tile_just_covers_it(grid: TileGrid) -> None:
    scene, edge = grid.scene_lr, grid.overlap_lr_px
    first, last = grid.tile(0, 0).region_lr, grid.tile(grid.rows - 1, grid.columns - 1).region_lr
    sides = (
        (grid.columns, scene.col - first.col, last.col_end - scene.col_end),
        (grid.rows, scene.row - first.row, last.row_end - scene.row_end),
    )
    for count, before, after in sides:
        if count > 1:
            assert min(before, after) >= edge
        else:
            assert min(before, after) >= 0
