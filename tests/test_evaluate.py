from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning
from torch import Tensor

from slimdiffsr.errors import DataError, OutputError
from slimdiffsr.evaluate import (
    TRUTH,
    Metric,
    PairedFolder,
    bootstrap_mean,
    default_metrics,
    evaluate,
    evaluate_folder,
    lpips_metric,
    read_rgb8,
    report_json,
    report_markdown,
    restore_with,
)
from slimdiffsr.models.classical import Bicubic, Lanczos

SHARED = Path(__file__).parents[2] / "shared" / "data" / "val"
SCALE = 4

Rgb8 = NDArray[np.uint8]


def nearest(rgb_lr: Rgb8) -> Rgb8:
    return np.repeat(np.repeat(rgb_lr, SCALE, axis=0), SCALE, axis=1)


def broken_on(width_lr_px: int) -> Callable[[Rgb8], Rgb8]:
    def restore(rgb_lr: Rgb8) -> Rgb8:
        if rgb_lr.shape[1] == width_lr_px:
            raise RuntimeError("out of memory")
        return nearest(rgb_lr)

    return restore


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three pairs, of 16 x 16, 16 x 17 and 16 x 18 input pixels; hr has another file type."""
    rng = np.random.default_rng(0)
    lr_dir, hr_dir = tmp_path / "lr", tmp_path / "hr"
    lr_dir.mkdir()
    hr_dir.mkdir()
    for i, name in enumerate(("a", "b", "c")):
        hr = rng.integers(0, 256, (64, 64 + 4 * i, 3), dtype=np.uint8)
        lr = hr.reshape(16, 4, 16 + i, 4, 3).mean(axis=(1, 3)).astype(np.uint8)
        Image.fromarray(hr).save(hr_dir / f"{name}.tif")
        Image.fromarray(lr).save(lr_dir / f"{name}.png")
    return lr_dir, hr_dir


def test_pairs_match_by_stem_and_the_scale_is_told_by_the_first(
    folders: tuple[Path, Path],
) -> None:
    pairs = PairedFolder.open(*folders)
    assert (pairs.names, pairs.scale) == (("a", "b", "c"), 4)
    for i, name in enumerate(pairs.names):
        lr, hr = pairs.read(name)
        assert (lr.shape, hr.shape) == ((16, 16 + i, 3), (64, 64 + 4 * i, 3))


def test_files_that_are_no_images_are_left_alone(folders: tuple[Path, Path]) -> None:
    (folders[0] / "notes.txt").write_text("not an image")
    (folders[1] / ".hidden.png").write_text("not an image either")
    assert PairedFolder.open(*folders).names == ("a", "b", "c")


def test_a_missing_partner_is_an_error_that_names_the_file(folders: tuple[Path, Path]) -> None:
    (folders[1] / "b.tif").unlink()
    with pytest.raises(DataError, match=r"b\.png has no partner in .*hr"):
        PairedFolder.open(*folders)


def test_folders_that_cannot_be_paired_are_errors(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no such folder"):
        PairedFolder.open(folders[0], tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images in"):
        PairedFolder.open(folders[0], tmp_path / "empty")
    Image.new("RGB", (16, 16)).save(folders[0] / "a.jpg")
    with pytest.raises(DataError, match="two images of one name"):
        PairedFolder.open(*folders)


def test_sizes_that_do_not_fit_are_errors_that_name_the_file(folders: tuple[Path, Path]) -> None:
    with pytest.raises(DataError, match=r"a\.tif is 64 x 64 px, but 2 times .*a\.png is 32 x 32"):
        PairedFolder.open(*folders, scale=2).read("a")
    Image.new("RGB", (15, 16)).save(folders[0] / "a.png")
    with pytest.raises(DataError, match="no whole scale"):
        PairedFolder.open(*folders)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "CMYK"])
def test_images_other_than_8_bit_rgb_or_grey_are_errors_that_name_the_file(
    tmp_path: Path, mode: str
) -> None:
    path = tmp_path / ("odd.tif" if mode == "CMYK" else "odd.png")
    Image.new(mode, (8, 8)).save(path)
    with pytest.raises(DataError, match=r"odd\.\w+ is .*8-bit RGB"):
        read_rgb8(path)


@pytest.mark.parametrize(("driver", "suffix"), [("PNG", "png"), ("GTiff", "tif")])
def test_16_bit_colour_is_an_error_although_pillow_would_read_it(
    tmp_path: Path, driver: str, suffix: str
) -> None:
    path = tmp_path / f"deep.{suffix}"
    with (
        pytest.warns(NotGeoreferencedWarning),
        rasterio.open(
            path, "w", driver=driver, width=8, height=8, count=3, dtype="uint16",
            photometric="RGB",
        ) as dst,
    ):  # fmt: skip
        dst.write(np.full((3, 8, 8), 40000, dtype=np.uint16))
    with pytest.raises(DataError, match="16-bit"):
        read_rgb8(path)


def test_grey_is_repeated_and_a_transparent_colour_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.new("L", (8, 8), 77).save(path)
    assert (read_rgb8(path) == 77).all()
    Image.new("RGB", (8, 8)).save(path, transparency=(0, 0, 0))
    with pytest.raises(DataError, match="transparent"):
        read_rgb8(path)


def test_one_bad_image_does_not_lose_the_others_scores(folders: tuple[Path, Path]) -> None:
    damaged = folders[0] / "b.png"
    damaged.write_bytes(damaged.read_bytes()[:100])
    report = evaluate_folder({"nearest": nearest}, *folders)
    assert set(report.scores["nearest"]["psnr_y"]) == {"a", "c"}
    (failure,) = report.failures
    assert (failure.image, failure.model) == ("b", "")
    assert "b.png" in failure.message
    assert "b.png" in report_markdown(report)


def test_one_failing_restorer_does_not_lose_the_others(folders: tuple[Path, Path]) -> None:
    restorers = {"nearest": nearest, "fragile": broken_on(17), "same size": lambda lr: lr}
    report = evaluate_folder(restorers, *folders)
    assert len(report.scores["nearest"]["ssim_y"]) == 3
    assert set(report.scores["fragile"]["ssim_y"]) == {"a", "c"}
    assert report.estimate("same size", "psnr_y") is None
    messages = {(f.image, f.model): f.message for f in report.failures}
    assert messages["b", "fragile"] == "RuntimeError: out of memory"
    assert "instead of (64, 64, 3)" in messages["a", "same size"]
    assert "| same size | 0 |" in report_markdown(report)


def test_a_metric_that_fails_or_gives_nan_is_noted_and_the_rest_stands(
    folders: tuple[Path, Path],
) -> None:
    def unwell(_: object) -> float:
        raise ValueError("too small")

    metrics = (
        *default_metrics(),
        Metric("nan", "lower", "", lambda _: float("nan")),
        Metric("unwell", "lower", "", unwell),
    )
    report = evaluate({"nearest": nearest}, PairedFolder.open(*folders), metrics)
    assert len(report.scores["nearest"]["psnr_y"]) == 3
    assert not report.scores["nearest"]["nan"]
    assert sorted(f.message for f in report.failures if f.image == "a") == [
        "nan: DataError: the score is not a number",
        "unwell: ValueError: too small",
    ]


def test_nothing_scored_at_all_is_an_error(folders: tuple[Path, Path]) -> None:
    with pytest.raises(DataError, match=r"nothing could be scored: returned \(16, 16, 3\)"):
        evaluate_folder({"same size": lambda lr: lr}, *folders)


def test_the_truth_has_a_row_for_metrics_that_need_no_truth(folders: tuple[Path, Path]) -> None:
    report = evaluate_folder({"nearest": nearest}, *folders)
    assert report.estimate(TRUTH, "psnr_y") is None
    consistency = report.estimate(TRUTH, "consistency")
    assert consistency is not None
    assert consistency.mean == pytest.approx(0.5, abs=0.1)  # the lr files were rounded down
    assert f"| {TRUTH} | 3 |" in report_markdown(report)


@pytest.mark.parametrize("name", [TRUTH, "a/b", "", "..", "."])
def test_names_that_cannot_be_a_folder_are_errors(folders: tuple[Path, Path], name: str) -> None:
    with pytest.raises(DataError, match="cannot be named"):
        evaluate_folder({name: nearest}, *folders)


def test_lpips_comes_in_as_a_function_of_tensors_in_minus_one_to_one() -> None:
    def distance(a: Tensor, b: Tensor) -> Tensor:
        assert a.shape == b.shape == (1, 3, 4, 4)
        return (a - b).abs().mean()

    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    metric = lpips_metric(distance)
    sample: Any = SimpleNamespace(sr=black, truth=white)
    assert metric.compute(sample) == pytest.approx(2)
    assert [m.name for m in default_metrics(distance)] == [
        "psnr_y", "ssim_y", "lpips_squeeze", "grid_energy_db", "consistency",
    ]  # fmt: skip


def test_a_network_becomes_a_restorer_that_rounds_and_clamps() -> None:
    lr = np.array([[[0, 100, 255]]], dtype=np.uint8)
    np.testing.assert_array_equal(restore_with(lambda x: x)(lr), lr)
    np.testing.assert_array_equal(restore_with(lambda x: 1.5 * x)(lr), [[[0, 86, 255]]])


def test_the_bootstrap_interval_is_seeded_and_covers_about_two_standard_errors() -> None:
    values = np.random.default_rng(1).normal(10, 2, 100)
    estimate = bootstrap_mean(values)
    assert estimate == bootstrap_mean(values)
    error = values.std() / 10
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert estimate.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
    assert bootstrap_mean(np.array([3.0])).high == 3


def test_reports_and_outputs_are_written(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out" / "deeper"
    report = evaluate_folder({"nearest": nearest, "again": nearest}, *folders, out_dir=out)
    content = json.loads((out / "report.json").read_text())
    assert content["means"]["nearest"] == content["means"]["again"]
    assert content["means"]["nearest"]["psnr_y"]["n"] == 3
    assert content["images"]["nearest"]["ssim_y"] == report.scores["nearest"]["ssim_y"]
    assert content["protocol"]["pairs"].startswith("3, 4x")
    assert "Protocol:" in (out / "report.md").read_text()
    saved = read_rgb8(out / "outputs" / "nearest" / "b.png")
    np.testing.assert_array_equal(saved, nearest(read_rgb8(folders[0] / "b.png")))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        evaluate_folder({"nearest": nearest}, *folders, out_dir=tmp_path / "file")


def test_a_perfect_restorer_gives_an_infinite_psnr_that_json_can_hold(
    folders: tuple[Path, Path],
) -> None:
    truths = {hr.shape[1] // 4: hr for hr in map(read_rgb8, folders[1].iterdir())}
    report = evaluate_folder({"oracle": lambda lr: truths[lr.shape[1]]}, *folders)
    assert json.loads(report_json(report))["means"]["oracle"]["psnr_y"]["mean"] == "inf"
    assert "inf [inf, inf]" in report_markdown(report)


def test_progress_counts_the_images(folders: tuple[Path, Path]) -> None:
    calls: list[tuple[int, int]] = []
    pairs = PairedFolder.open(*folders)
    evaluate({"nearest": nearest}, pairs, default_metrics(), progress=lambda *c: calls.append(c))
    assert calls == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_the_baselines_reach_their_published_figures_on_the_validation_pairs() -> None:
    if not SHARED.exists():
        pytest.skip("the validation pairs are not here")
    published = json.loads((SHARED / "peers.json").read_text())["bicubic"]
    restorers = {"bicubic": restore_with(Bicubic(4)), "lanczos": restore_with(Lanczos(4))}
    report = evaluate_folder(restorers, SHARED / "lr_x4", SHARED / "hr")
    psnr, ssim = (report.estimate("bicubic", name) for name in ("psnr_y", "ssim_y"))
    assert psnr is not None
    assert ssim is not None
    assert not report.failures
    assert psnr.mean == pytest.approx(published["psnr_y"], abs=0.01)
    assert ssim.mean == pytest.approx(published["ssim_y"], abs=0.002)
    assert psnr.n == 48
