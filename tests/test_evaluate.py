from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pairs import nearest, write_pairs
from PIL import Image
from scipy import stats

from slimdiffsr.datasets.images import read_rgb8
from slimdiffsr.errors import DataError, InterruptedRunError, OutputError, ScaleError
from slimdiffsr.evaluate import (
    TRUTH,
    Method,
    Metric,
    PairedFolder,
    Progress,
    Report,
    bootstrap_mean,
    choose_metrics,
    evaluate,
    from_function,
    from_network,
    pool,
    report_json,
    report_markdown,
    write_tables,
)
from slimdiffsr.models.classical import Bicubic, Lanczos

SHARED = Path(__file__).parents[2] / "shared" / "data" / "val"

Rgb8 = NDArray[np.uint8]


def broken_on(width_lr_px: int) -> Callable[[Rgb8], Rgb8]:
    def restore(rgb_lr: Rgb8) -> Rgb8:
        if rgb_lr.shape[1] == width_lr_px:
            raise RuntimeError("out of memory")
        return nearest(rgb_lr)

    return restore


def score(restorers: dict[str, Callable[[Rgb8], Rgb8]], lr: Path, hr: Path) -> Report:
    methods = [from_function(name, restore) for name, restore in restorers.items()]
    return evaluate(methods, PairedFolder.open(lr, hr), choose_metrics())


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return write_pairs(tmp_path)


def test_pairs_match_by_stem_and_the_scale_is_told_by_the_first(
    folders: tuple[Path, Path],
) -> None:
    pairs = PairedFolder.open(*folders)
    assert (pairs.names, pairs.scale) == (("a", "b", "c"), 4)
    for i, name in enumerate(pairs.names):
        lr, hr = pairs.read(name)
        assert hr is not None
        assert (lr.shape, hr.shape) == ((16, 16 + i, 3), (64, 64 + 4 * i, 3))


def test_an_unreadable_first_pair_does_not_hide_the_scale(folders: tuple[Path, Path]) -> None:
    (folders[0] / "a.png").write_text("not an image")
    assert PairedFolder.open(*folders).scale == 4
    for name in ("b", "c"):
        (folders[0] / f"{name}.png").write_text("nor is this")
    with pytest.raises(DataError, match=r"no pair can be read: cannot read the image .*a\.png"):
        PairedFolder.open(*folders)


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


def test_one_bad_image_does_not_lose_the_others_scores(folders: tuple[Path, Path]) -> None:
    damaged = folders[0] / "b.png"
    damaged.write_bytes(damaged.read_bytes()[:100])
    report = score({"nearest": nearest}, *folders)
    assert set(report.scores["nearest"]["psnr_y"]) == {"a", "c"}
    (failure,) = report.failures
    assert (failure.image, failure.model) == ("b", "")
    assert "b.png" in failure.message
    assert "b.png" in report_markdown([report])


def test_one_failing_method_does_not_lose_the_others(folders: tuple[Path, Path]) -> None:
    restorers = {"nearest": nearest, "fragile": broken_on(17), "same size": lambda lr: lr}
    report = score(restorers, *folders)
    assert len(report.scores["nearest"]["ssim_y"]) == 3
    assert set(report.scores["fragile"]["ssim_y"]) == {"a", "c"}
    assert report.estimate("same size", "psnr_y") is None
    messages = {(f.image, f.model): f.message for f in report.failures}
    assert messages["b", "fragile"] == "RuntimeError: out of memory"
    assert "instead of (64, 64, 3)" in messages["a", "same size"]
    assert "| same size | 0 |" in report_markdown([report])


def test_an_interrupted_method_ends_the_run_and_is_no_failure_of_an_image(
    folders: tuple[Path, Path],
) -> None:
    def interrupted(_: Rgb8) -> Rgb8:
        raise InterruptedRunError("stopped")  # what the scene engine makes of Ctrl-C

    with pytest.raises(InterruptedRunError):
        score({"interrupted": interrupted}, *folders)


def test_a_metric_that_fails_or_gives_nan_is_noted_and_the_rest_stands(
    folders: tuple[Path, Path],
) -> None:
    def unwell(_: object) -> float:
        raise ValueError("too small")

    metrics = (
        *choose_metrics(),
        Metric("nan", "lower", "", lambda _: float("nan")),
        Metric("unwell", "lower", "", unwell),
    )
    methods = [from_function("nearest", nearest)]
    report = evaluate(methods, PairedFolder.open(*folders), metrics)
    assert len(report.scores["nearest"]["psnr_y"]) == 3
    assert not report.scores["nearest"]["nan"]
    assert sorted(f.message for f in report.failures if f.image == "a") == [
        "nan: the score is not a number",
        "unwell: ValueError: too small",
    ]


def test_nothing_scored_at_all_is_an_error(folders: tuple[Path, Path]) -> None:
    with pytest.raises(DataError, match=r"nothing could be scored: returned \(16, 16, 3\)"):
        score({"same size": lambda lr: lr}, *folders)
    with pytest.raises(DataError, match="at least one model and one metric"):
        score({}, *folders)
    twice = [from_function("one", nearest)] * 2
    with pytest.raises(DataError, match="model names must differ, got one, one"):
        evaluate(twice, PairedFolder.open(*folders), choose_metrics())


def test_a_model_whose_scale_does_not_fit_the_set_is_an_error(folders: tuple[Path, Path]) -> None:
    eight = Method("eight", lambda rgb, _: rgb, scale=8)
    with pytest.raises(ScaleError, match=r"eight enlarges 8 times, but .* 4x: .*--scale 8"):
        evaluate([eight], PairedFolder.open(*folders), choose_metrics())


def test_the_truth_has_a_row_for_metrics_that_need_no_truth(folders: tuple[Path, Path]) -> None:
    report = score({"nearest": nearest}, *folders)
    assert report.estimate(TRUTH, "psnr_y") is None
    consistency = report.estimate(TRUTH, "consistency")
    assert consistency is not None
    assert consistency.mean == pytest.approx(0.5, abs=0.1)  # the lr files were rounded down
    assert f"| {TRUTH} | 3 |" in report_markdown([report])


def test_a_set_without_truth_has_only_metrics_that_need_none(folders: tuple[Path, Path]) -> None:
    lr_files = PairedFolder.open(*folders).lr_files
    pairs = PairedFolder(lr_files, {}, 4, about={"name": "real"})
    report = evaluate([from_function("nearest", nearest)], pairs, choose_metrics())
    assert [m.name for m in report.measured] == [
        "grid_energy_db",
        "canvas_db",
        "consistency",
        "shift_lr_px",
    ]
    assert TRUTH not in report.scores
    assert "psnr_y" not in report_markdown([report])
    estimate = report.estimate("nearest", "consistency")
    assert estimate is not None
    assert estimate.mean == pytest.approx(0, abs=1e-9)
    assert not report.failures


@pytest.mark.parametrize("name", [TRUTH, "a/b", "", "..", "."])
def test_names_that_cannot_be_a_folder_are_errors(name: str) -> None:
    with pytest.raises(DataError, match="cannot be named"):
        from_function(name, nearest)


def test_a_network_becomes_a_function_of_images_that_rounds_and_clamps() -> None:
    lr = np.array([[[0, 100, 255]]], dtype=np.uint8)
    np.testing.assert_array_equal(from_network(lambda x: x)(lr), lr)
    np.testing.assert_array_equal(from_network(lambda x: 1.5 * x)(lr), [[[0, 86, 255]]])
    with pytest.raises(DataError, match="not finite"):
        from_network(lambda x: x / 0)(lr)


def test_the_bootstrap_interval_is_seeded_and_covers_about_two_standard_errors() -> None:
    values = np.random.default_rng(1).normal(10, 2, 100)
    estimate = bootstrap_mean(values)
    assert estimate == bootstrap_mean(values)
    error = values.std() / 10
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert estimate.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
    assert bootstrap_mean(np.array([3.0])).high == 3


def test_the_bootstrap_interval_is_scipys() -> None:
    values = np.random.default_rng(2).gamma(2, 1, 60)
    estimate = bootstrap_mean(values)
    theirs = stats.bootstrap(  # type: ignore[attr-defined]
        (values,), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    spread = theirs.high - theirs.low
    assert estimate.low == pytest.approx(theirs.low, abs=0.05 * spread)
    assert estimate.high == pytest.approx(theirs.high, abs=0.05 * spread)


def test_tables_are_written_whole_and_agree(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out" / "deeper"
    report = score({"nearest": nearest, "again": nearest}, *folders)
    write_tables(out, [report])
    content = json.loads((out / "report.json").read_text())
    (found,) = content["sets"]
    assert found["means"]["nearest"] == found["means"]["again"]
    assert found["means"]["nearest"]["psnr_y"]["n"] == 3
    assert found["images"]["nearest"]["ssim_y"] == report.scores["nearest"]["ssim_y"]
    assert found["data"]["n"] == "3"
    assert content["metrics"]["psnr_y"]["better"] == "higher"
    assert "torch " in content["protocol"]["versions"]
    with (out / "report.csv").open() as file:
        means = list(csv.DictReader(file))
    assert [row["model"] for row in means] == ["nearest", "again", TRUTH]
    assert float(means[0]["psnr_y_low"]) == found["means"]["nearest"]["psnr_y"]["low"]
    assert means[2]["psnr_y"] == ""
    with (out / "images.csv").open() as file:
        images = list(csv.DictReader(file))
    assert len(images) == 9
    assert float(images[0]["psnr_y"]) == report.scores["nearest"]["psnr_y"]["a"]
    assert "Protocol:" in (out / "report.md").read_text()
    assert sorted(path.name for path in out.iterdir()) == [
        "images.csv", "report.csv", "report.json", "report.md",
    ]  # fmt: skip
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_tables(tmp_path / "file", [report])


def test_the_best_mean_is_bold_unless_two_share_it(folders: tuple[Path, Path]) -> None:
    restorers = {"nearest": nearest, "darker": lambda lr: nearest(lr) // 2}
    text = report_markdown([score(restorers, *folders)])
    line = next(line for line in text.splitlines() if line.startswith("| nearest"))
    assert line.count("**") >= 2
    assert "**" not in report_markdown([score({"one": nearest, "two": nearest}, *folders)])


def test_a_mean_that_beats_the_true_images_is_not_bold(folders: tuple[Path, Path]) -> None:
    metric = Metric("mean", "lower", "", lambda s: float(s.sr.mean()), uses_truth=False)
    methods = [from_function("darker", lambda lr: nearest(lr) // 2)]
    methods.append(from_function("brighter", lambda lr: nearest(lr) // 2 + np.uint8(100)))
    darkest = evaluate(methods, PairedFolder.open(*folders), [metric])
    assert darkest.best(metric) is None
    assert evaluate(methods[1:], PairedFolder.open(*folders), [metric]).best(metric) == "brighter"


def test_a_perfect_method_gives_an_infinite_psnr_that_json_can_hold(
    folders: tuple[Path, Path],
) -> None:
    truths = {hr.shape[1] // 4: hr for hr in map(read_rgb8, folders[1].iterdir())}
    report = score({"oracle": lambda lr: truths[lr.shape[1]]}, *folders)
    means = json.loads(report_json([report]))["sets"][0]["means"]
    assert means["oracle"]["psnr_y"]["mean"] == "inf"
    assert "inf** [inf, inf]" in report_markdown([report])


def test_several_sets_have_a_table_each_and_one_over_all_images(
    folders: tuple[Path, Path],
) -> None:
    pairs = PairedFolder.open(*folders)
    reports = []
    for name, names in (("one", "a"), ("two", "bc")):
        lr, hr = ({n: files[n] for n in names} for files in (pairs.lr_files, pairs.hr_files))
        part = PairedFolder(lr, hr, 4, about={"name": name})
        reports.append(evaluate([from_function("nearest", nearest)], part, choose_metrics()))
    whole = score({"nearest": nearest}, *folders)
    pooled = pool(reports)
    assert pooled.estimate("nearest", "psnr_y") == whole.estimate("nearest", "psnr_y")
    assert set(pooled.scores["nearest"]["psnr_y"]) == {"one/a", "two/b", "two/c"}
    text = report_markdown([*reports, pooled])
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## one", "## two", "## all: one, two",
    ]  # fmt: skip
    sets = json.loads(report_json([*reports, pooled]))["sets"]
    assert [len(s.get("images", {}).get("nearest", {}).get("psnr_y", {})) for s in sets] == [
        1,
        2,
        0,
    ]


def test_a_set_without_truth_is_pooled_where_it_has_scores(folders: tuple[Path, Path]) -> None:
    lr_files = PairedFolder.open(*folders).lr_files
    real = PairedFolder(lr_files, {}, 4, about={"name": "real"})
    methods = [from_function("nearest", nearest)]
    without = evaluate(methods, real, choose_metrics())
    both = [without, evaluate(methods, PairedFolder.open(*folders), choose_metrics())]
    for reports in (both, both[::-1]):
        pooled = pool(reports)
        counts = [pooled.estimate("nearest", name) for name in ("psnr_y", "consistency")]
        assert [estimate.n for estimate in counts if estimate is not None] == [3, 6]
        assert list(pooled.scores) == ["nearest", TRUTH]
        tables = report_markdown([*reports, pooled])
        assert tables.count("| psnr_y ↑ |") == 2


def test_progress_counts_images_times_methods(folders: tuple[Path, Path]) -> None:
    calls: list[Progress] = []
    methods = [from_function("one", nearest), from_function("two", nearest)]
    evaluate(methods, PairedFolder.open(*folders), choose_metrics(), progress=calls.append)
    assert [call.done for call in calls] == list(range(7))
    assert {call.total for call in calls} == {6}
    assert [call.method for call in calls][:3] == ["one", "two", "one"]


@pytest.mark.slow
def test_the_baselines_reach_their_published_figures_on_the_validation_pairs() -> None:
    if not SHARED.exists():
        pytest.skip("the validation pairs are not here")
    published = json.loads((SHARED / "peers.json").read_text())["bicubic"]
    restorers = {"bicubic": from_network(Bicubic(4)), "lanczos": from_network(Lanczos(4))}
    report = score(restorers, SHARED / "lr_x4", SHARED / "hr")
    psnr, ssim = (report.estimate("bicubic", name) for name in ("psnr_y", "ssim_y"))
    assert psnr is not None
    assert ssim is not None
    assert not report.failures
    assert psnr.mean == pytest.approx(published["psnr_y"], abs=0.01)
    assert ssim.mean == pytest.approx(published["ssim_y"], abs=0.002)
    assert psnr.n == 48
