from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from learned import random_dists, write_dists
from numpy.typing import NDArray
from patterns import pattern, reduced, results
from safetensors.torch import load_file, save_file
from scipy.signal.windows import hann
from students import random_lpips, write_lpips
from torch import Tensor
from typer.testing import CliRunner

from slimdiffsr.cli import app
from slimdiffsr.datasets.images import to_signed
from slimdiffsr.errors import ConfigError, ModelNotFoundError, WeightsError
from slimdiffsr.evaluate import METRIC_NAMES, Metric, Sample, choose_metrics
from slimdiffsr.evaluate.distances import dists_metric, import_dists, lpips_metric
from slimdiffsr.evaluate.iqa import IQA_NAMES, iqa_metric, licence_note
from slimdiffsr.models.dists import DISTS

GOLDEN = json.loads((Path(__file__).parent / "golden" / "metrics.json").read_text())

Rgb8 = NDArray[np.uint8]

pytestmark = pytest.mark.usefixtures("one_thread")

TRUST = (
    "grid_energy_db", "canvas_db", "spectrum_gap_db", "consistency", "shift_lr_px",
    "mean_drift_pct", "contrast_drift_pct", "improvement", "omission", "hallucination",
)  # fmt: skip


def sample(sr: Rgb8, hr: Rgb8) -> Sample:
    return Sample(sr, hr, reduced(hr, 4), 4)


def names(metrics: tuple[Metric, ...]) -> tuple[str, ...]:
    return tuple(metric.name for metric in metrics)


def noisy(image: Rgb8, sigma: float) -> Rgb8:
    noise = np.random.default_rng(3).normal(scale=sigma, size=image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


# Choosing


def test_without_names_there_are_psnr_ssim_and_what_keeps_them_honest() -> None:
    assert names(choose_metrics()) == ("psnr_y", "ssim_y", *TRUST)
    assert {metric.name for metric in choose_metrics() if not metric.uses_truth} == {
        "grid_energy_db", "canvas_db", "consistency", "shift_lr_px",
    }  # fmt: skip


def test_learned_distances_join_where_their_weights_are_given(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    write_lpips(folder / "lpips_squeeze.safetensors")
    write_dists(folder / "dists.safetensors")
    found = choose_metrics(weights=folder)
    assert names(found) == ("psnr_y", "ssim_y", "lpips_squeeze", "dists", *TRUST)
    assert all(len(m.weights) == 64 for m in found if m.name in ("lpips_squeeze", "dists"))
    alex = write_lpips(tmp_path / "any name.safetensors", "alex")
    assert names(choose_metrics(lpips=alex)) == ("psnr_y", "ssim_y", "lpips_alex", *TRUST)


def test_chosen_metrics_come_in_their_order_and_trust_always_follows(tmp_path: Path) -> None:
    lpips = write_lpips(tmp_path / "lpips.safetensors")
    chosen = choose_metrics(["lpips_squeeze", "psnr_y", "omission", "psnr_y"], lpips=lpips)
    assert names(chosen) == ("lpips_squeeze", "psnr_y", *TRUST)
    assert set(names(chosen)) <= set(METRIC_NAMES)


def test_each_metric_says_how_it_measures_and_gives_one_number() -> None:
    hr = pattern(96, 128)
    for metric in choose_metrics():
        value = metric.compute(sample(results(hr, 4)["checkered"], hr))
        assert np.isfinite(value), metric.name
        assert len(metric.about) > 20
        assert metric.better in ("higher", "lower")


def test_the_three_shares_are_of_the_sample_that_is_asked_for() -> None:
    hr = pattern(96, 128)
    made = [sample(sr, hr) for sr in results(hr, 4).values()]
    shares = [m for m in choose_metrics() if m.name in TRUST[-3:]]
    totals = [sum(m.compute(one) for m in shares) for one in made]
    assert totals == pytest.approx([1.0] * len(made))
    first, second = shares[0].compute(made[0]), shares[0].compute(made[1])
    assert first != second
    assert shares[0].compute(made[0]) == first


def test_an_unknown_name_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no metric 'psnr': choose of psnr_y, ssim_y"):
        choose_metrics(["psnr"])


def test_missing_weights_are_errors_that_name_file_and_command(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"import-lpips lpips_vgg\.safetensors --net vgg"):
        choose_metrics(["lpips_vgg"], weights=tmp_path)
    with pytest.raises(WeightsError, match="slimdiffsr import-dists"):
        choose_metrics(["dists"])
    with pytest.raises(WeightsError, match="no folder of weights"):
        choose_metrics(weights=tmp_path / "nowhere")
    with pytest.raises(WeightsError, match="no weight file"):
        choose_metrics(lpips=tmp_path / "nothing.safetensors")


def test_weights_of_something_else_are_errors_that_name_the_file(tmp_path: Path) -> None:
    other = tmp_path / "dists.safetensors"
    save_file({"alpha": torch.zeros(2)}, other)
    with pytest.raises(WeightsError, match=r"dists\.safetensors does not fit"):
        choose_metrics(weights=tmp_path)
    with pytest.raises(WeightsError, match="holds no LPIPS"):
        choose_metrics(lpips=other)
    other.unlink()
    write_lpips(tmp_path / "lpips_vgg.safetensors", "squeeze")
    with pytest.raises(WeightsError, match="holds lpips_squeeze: rename"):
        choose_metrics(["lpips_vgg"], weights=tmp_path)


# LPIPS and DISTS as metrics


def test_lpips_as_a_metric_is_the_network_on_rgb_in_minus_one_to_one(tmp_path: Path) -> None:
    metric = lpips_metric(write_lpips(tmp_path / "lpips.safetensors"))
    hr = pattern(48, 64)
    sr = results(hr, 4)["darker"]
    scaled = [torch.from_numpy(x / 127.5 - 1).permute(2, 0, 1)[None].float() for x in (sr, hr)]
    assert metric.compute(sample(sr, hr)) == pytest.approx(float(random_lpips()(*scaled)))
    assert metric.compute(sample(hr, hr)) == 0
    assert metric.compute(sample(hr, sr)) == pytest.approx(metric.compute(sample(sr, hr)), abs=1e-7)
    values = [metric.compute(sample(noisy(hr, s), hr)) for s in (0, 5, 15, 40)]
    assert values == sorted(values)


@pytest.fixture(scope="module")
def dists() -> DISTS:
    model = DISTS()
    model.load_state_dict(random_dists())
    return model.eval().requires_grad_(False)


def plain_dists(weights: dict[str, Tensor], a: Tensor, b: Tensor) -> float:
    """DISTS step by step after the paper, in float64; a, b: (1, 3, h, w) in [0, 1]."""
    w = {name: value.double() for name, value in weights.items()}
    window = torch.from_numpy(np.outer(hann(5), hann(5))[1:-1, 1:-1])
    window = window / window.sum()

    def features(image: Tensor) -> list[Tensor]:
        mean, spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        x = (image - mean[None, :, None, None]) / spread[None, :, None, None]
        found, index = [image], 0
        for group, convolutions in enumerate((2, 2, 3, 3, 3)):
            if group:
                channels = [F.conv2d(c[:, None] ** 2, window[None, None], stride=2, padding=1)
                            for c in x.unbind(1)]  # fmt: skip
                x = torch.sqrt(torch.cat(channels, 1) + 1e-12)
                index += 1
            for _ in range(convolutions):
                name = f"features.{index}"
                x = F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=1).clamp(min=0)
                index += 2
            found.append(x)
        return found

    score, place = 0.0, 0
    total = float(w["alpha"].sum() + w["beta"].sum())
    for fa, fb in zip(features(a.double()), features(b.double()), strict=True):
        for x, y in zip(fa[0], fb[0], strict=True):
            x, y = x.numpy().ravel(), y.numpy().ravel()
            covariance = np.cov(x, y, bias=True)
            means = (2 * x.mean() * y.mean() + 1e-6) / (x.mean() ** 2 + y.mean() ** 2 + 1e-6)
            spread = (2 * covariance[0, 1] + 1e-6) / (np.trace(covariance) + 1e-6)
            score += float(w["alpha"][0, place, 0, 0]) * means / total
            score += float(w["beta"][0, place, 0, 0]) * spread / total
            place += 1
    return 1 - score


def test_dists_equals_a_plain_reference(dists: DISTS) -> None:
    hr = pattern(45, 38, seed=1)
    a, b = to_signed(noisy(hr, 20)), to_signed(hr)
    expected = plain_dists(random_dists(), (a + 1) / 2, (b + 1) / 2)
    assert float(dists(a, b)) == pytest.approx(expected, abs=1e-5)
    assert 0.001 < expected < 1


def test_dists_equals_pyiqas_on_stored_examples(dists: DISTS) -> None:
    hr = pattern(96, 128, seed=4)
    for key, sr in results(hr, 4).items():
        found = float(dists(to_signed(sr), to_signed(hr)))
        assert found == pytest.approx(
            GOLDEN["dists"]["values"][key], abs=GOLDEN["dists"]["tolerance"]
        )


def test_dists_is_zero_for_equal_images_symmetric_and_grows_with_noise(dists: DISTS) -> None:
    hr = pattern(64, 64, seed=2)
    b = to_signed(hr)
    values = [float(dists(to_signed(noisy(hr, s)), b)) for s in (0, 5, 15, 40)]
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert values == sorted(values)
    a = to_signed(noisy(hr, 15))
    assert float(dists(a, b)) == pytest.approx(float(dists(b, a)), abs=1e-6)


def test_dists_weights_are_joined_from_the_authors_file_and_vggs(tmp_path: Path) -> None:
    vgg = write_lpips(tmp_path / "lpips_vgg.safetensors", "vgg")
    own = {name: value for name, value in random_dists().items() if name in ("alpha", "beta")}
    torch.save(own, tmp_path / "weights.pt")
    command = ["import-dists", str(tmp_path / "weights.pt"), str(vgg)]
    result = CliRunner().invoke(app, [*command, str(tmp_path / "dists.safetensors")])
    assert result.exit_code == 0
    made, features = load_file(tmp_path / "dists.safetensors"), load_file(vgg)
    assert torch.equal(made["alpha"], own["alpha"])
    assert torch.equal(made["features.28.weight"], features["features.28.weight"])
    assert dists_metric(tmp_path / "dists.safetensors").weights in result.stdout
    again = CliRunner().invoke(app, [*command, str(tmp_path / "dists.safetensors")])
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr


def test_dists_weights_that_do_not_fit_are_errors(tmp_path: Path) -> None:
    squeeze = write_lpips(tmp_path / "lpips.safetensors")
    torch.save({"alpha": torch.zeros(1), "beta": torch.zeros(1)}, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match="missing"):
        import_dists(tmp_path / "weights.pt", squeeze, tmp_path / "out.safetensors")
    with pytest.raises(ModelNotFoundError, match="no weight file"):
        import_dists(tmp_path / "none.pt", squeeze, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


# pyiqa, of which only our side can be tested here


class FakePyiqa(types.ModuleType):
    """Answers with the mean of what it is given, and remembers what it was asked for."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__("pyiqa")
        self.error = error
        self.asked: list[tuple[str, str]] = []

    def create_metric(self, name: str, device: torch.device) -> Any:
        sys.stdout.write("Loading pretrained model\n")  # as the real one does
        if self.error is not None:
            raise self.error
        self.asked.append((name, device.type))
        return lambda rgb: rgb.mean()


@pytest.fixture
def pyiqa(monkeypatch: pytest.MonkeyPatch) -> FakePyiqa:
    fake = FakePyiqa()
    monkeypatch.setitem(sys.modules, "pyiqa", fake)
    monkeypatch.setattr("slimdiffsr.evaluate.iqa.version", lambda _: "9.9")
    return fake


def test_pyiqas_metrics_see_rgb_from_0_to_1_and_carry_their_licence(
    pyiqa: FakePyiqa, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = choose_metrics(IQA_NAMES)[: len(IQA_NAMES)]
    assert names(metrics) == ("niqe", "musiq", "maniqa", "clipiqa")
    assert [m.better for m in metrics] == ["lower", "higher", "higher", "higher"]
    assert pyiqa.asked == [(name, "cpu") for name in IQA_NAMES]
    grey = np.full((8, 8, 3), 51, dtype=np.uint8)
    for metric in metrics:
        assert metric.compute(Sample(grey, None, grey, 1)) == pytest.approx(0.2)
        assert not metric.uses_truth
        assert "pyiqa 9.9 (PolyForm Noncommercial 1.0.0: no commercial use)" in metric.about
    assert capsys.readouterr().out == ""
    note = licence_note(metrics)
    assert note is not None
    assert note.startswith("niqe, musiq, maniqa, clipiqa: by pyiqa, under PolyForm Noncommercial")
    assert licence_note(choose_metrics()) is None


def test_without_pyiqa_the_error_names_the_extra_and_its_licence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(ConfigError, match=r"niqe needs .*Noncommercial.*\[iqa-noncommercial\]"):
        choose_metrics(["niqe"])


def test_weights_that_pyiqa_cannot_get_are_an_error_that_names_the_file(
    pyiqa: FakePyiqa,
) -> None:
    pyiqa.error = OSError("no route to host")
    with pytest.raises(WeightsError, match=r"musiq.*musiq_koniq_ckpt.*no route to host"):
        iqa_metric("musiq")
