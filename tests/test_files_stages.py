"""UNets, estimators and codecs as files: strictly, and with errors that say what came."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from teachers import write_taesd
from test_sd_unet import TINY, diffusers_unet

from slimdiffsr.errors import ChecksumError, ConfigError, ModelNotFoundError, WeightsError
from slimdiffsr.files import stages
from slimdiffsr.files.pretrained import SD_SCHEDULER_FILE, SD_UNET_FILES, TAESD_FILE
from slimdiffsr.files.stages import (
    ESTIMATOR_FILE,
    UNET_FILE,
    EstimatorSpec,
    build_estimator,
    describe_codec,
    load_codec,
    load_estimator,
    load_unet,
    save_network,
)
from slimdiffsr.files.tensors import file_sha256, load_tensors
from slimdiffsr.models.sd_vae import KLCodec, Taesd
from slimdiffsr.models.spec import UNetSpec
from slimdiffsr.models.unet import UNet
from slimdiffsr.stages.run import fresh

pytestmark = pytest.mark.usefixtures("one_thread")

SPEC = UNetSpec(
    widths=(8, 16), layers=1, mid_width=16, attention="self", head_width=8,
    time_width=16, groups=4, ff_mult=1,
)  # fmt: skip
NARROW = EstimatorSpec(width=8)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def write_unet(path: Path, **about: str) -> UNet:
    unet = fresh(lambda: UNet(SPEC), 1)
    save_network(path, unet, SPEC, "unet", {"prediction": "epsilon", **about})
    return unet


def write_estimator(path: Path, spec: EstimatorSpec = NARROW) -> Any:
    estimator = fresh(lambda: build_estimator(spec), 1)
    save_network(path, estimator, spec, "estimator")
    return estimator


def rewrite(path: Path, **about: str) -> None:
    """The same tensors with other metadata."""
    tensors, metadata = load_tensors(path)
    save_file(tensors, path, {**metadata, **about})


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_unet_comes_back_as_it_was(tmp_path: Path, prediction: str) -> None:
    unet = write_unet(tmp_path / UNET_FILE, prediction=prediction, step="7")
    for path in (tmp_path, tmp_path / UNET_FILE):
        loaded, spec, kind = load_unet(path)
        assert (spec, kind) == (SPEC, prediction)
        assert not loaded.training
        assert not any(p.requires_grad for p in loaded.parameters())
        x, t = draw(2, 4, 8, 8), torch.tensor([3.0, 500.0])
        assert torch.equal(loaded(x, t), unet.eval()(x, t))
    assert load_tensors(tmp_path / UNET_FILE)[1]["step"] == "7"


@pytest.mark.parametrize("spec", [NARROW, EstimatorSpec(width=8, var_channels=1), EstimatorSpec()])
def test_an_estimator_comes_back_as_it_was(tmp_path: Path, spec: EstimatorSpec) -> None:
    estimator = write_estimator(tmp_path / ESTIMATOR_FILE, spec)
    for path in (tmp_path, tmp_path / ESTIMATOR_FILE):
        loaded = load_estimator(path)
        assert not any(p.requires_grad for p in loaded.parameters())
        for ours, theirs in zip(loaded(draw(1, 4, 6, 5)), estimator(draw(1, 4, 6, 5)), strict=True):
            assert torch.equal(ours, theirs)


def test_saving_returns_the_hash_and_takes_another_precision(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    unet = fresh(lambda: UNet(SPEC), 1)
    about = {"prediction": "epsilon"}
    digest = save_network(path, unet, SPEC, "unet", about, torch.bfloat16)
    assert digest == file_sha256(path)
    assert {value.dtype for value in load_file(path).values()} == {torch.bfloat16}
    assert {p.dtype for p in load_unet(path)[0].parameters()} == {torch.float32}
    assert digest == save_network(path, unet, SPEC, "unet", about, torch.bfloat16)


def test_a_unet_must_say_what_it_predicts(tmp_path: Path) -> None:
    path = tmp_path / UNET_FILE
    with pytest.raises(ConfigError, match="must be epsilon or v_prediction, got None"):
        save_network(path, UNet(SPEC), SPEC, "unet")
    assert not path.exists()
    write_unet(path)
    rewrite(path, prediction="x0")
    with pytest.raises(WeightsError, match="got x0"):
        load_unet(path)


def test_a_wrong_file_is_named_with_what_it_holds(tmp_path: Path) -> None:
    unet, estimator = tmp_path / "u.safetensors", tmp_path / "e.safetensors"
    write_unet(unet)
    write_estimator(estimator)
    with pytest.raises(WeightsError, match=r"u\.saf.* of kind estimator, but it holds: unet"):
        load_estimator(unet)
    with pytest.raises(WeightsError, match=r"e\.saf.* of kind unet, but it holds: estimator"):
        load_unet(estimator)
    save_file({"a": draw(2)}, tmp_path / "plain.safetensors")
    with pytest.raises(WeightsError, match="but it holds: no network of ours"):
        load_estimator(tmp_path / "plain.safetensors")
    save_file({"a": draw(2)}, tmp_path / "student.safetensors", {"config": "{}"})
    with pytest.raises(WeightsError, match="but it holds: student"):
        load_unet(tmp_path / "student.safetensors")
    with pytest.raises(WeightsError, match="no weight file"):
        load_estimator(tmp_path / "none.safetensors")
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        load_unet(tmp_path / "text")


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / ESTIMATOR_FILE
    write_estimator(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ChecksumError, match="damaged"):
        load_estimator(path)
    write_estimator(path)
    for spec, words in (
        ("no json", "without a readable spec"),
        ("[]", "without a readable spec"),
        (json.dumps({"width": 8, "depth": 3}), "cannot read: .*depth"),
        (json.dumps({"width": 16}), r"does not fit the model: .*misshapen \("),
    ):
        rewrite(path, spec=spec)
        with pytest.raises(WeightsError, match=words):
            load_estimator(path)


def test_stable_diffusions_own_layout_is_a_unet_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = dataclasses.replace(TINY, time_width=4 * TINY.widths[0])
    monkeypatch.setattr(stages, "SD21", tiny)
    for file in (SD_UNET_FILES[0], SD_SCHEDULER_FILE):
        (tmp_path / file).parent.mkdir()
    with pytest.raises(ModelNotFoundError, match=r"unet/.*stabilityai/sd-turbo"):
        load_unet(tmp_path)
    save_file(diffusers_unet(tiny).state_dict(), tmp_path / SD_UNET_FILES[0])
    (tmp_path / SD_SCHEDULER_FILE).write_text(json.dumps({"prediction_type": "v_prediction"}))
    unet, spec, kind = load_unet(tmp_path)
    assert (spec, kind) == (tiny, "v_prediction")
    assert not any(p.requires_grad for p in unet.parameters())


# Codecs


def test_taesd_loads_strictly_from_both_layouts(tmp_path: Path) -> None:
    folder = write_taesd(tmp_path / "upstream")
    codec = load_codec("taesd", folder)
    assert isinstance(codec, Taesd)
    assert not any(p.requires_grad for p in codec.parameters())
    other = tmp_path / "diffusers"
    other.mkdir()
    theirs = {k.replace("coder.", "coder.layers.", 1): v for k, v in codec.state_dict().items()}
    save_file(theirs, other / TAESD_FILE)
    again = load_codec("taesd", other)
    rgb = draw(1, 3, 16, 24).clamp(-1, 1)
    assert torch.equal(codec.encode(rgb), again.encode(rgb))
    assert codec.decode(codec.encode(rgb)).shape == rgb.shape
    assert describe_codec(codec) == describe_codec(again)
    assert describe_codec(codec)["codec"] == "taesd"


def test_a_wrong_taesd_says_what_does_not_fit(tmp_path: Path) -> None:
    folder = write_taesd(tmp_path / "taesd")
    tensors = load_file(folder / "taesd_encoder.safetensors")
    tensors.pop("0.weight")
    save_file({**tensors, "99.bias": draw(3)}, folder / "taesd_encoder.safetensors")
    with pytest.raises(
        WeightsError, match=r"TAESD from .*1 missing \(encoder\.0\.weight\); 1 unexpected \(enc"
    ):
        load_codec("taesd", folder)
    (folder / "taesd_decoder.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"no weight file .*taesd_decoder"):
        load_codec("taesd", folder)
    with pytest.raises(ModelNotFoundError, match="madebyollin/taesd"):
        load_codec("taesd", tmp_path)
    with pytest.raises(ConfigError, match="codec must be 'taesd' or 'kl', got 'vq'"):
        load_codec("vq", tmp_path)  # type: ignore[arg-type]


def test_stable_diffusions_autoencoder_is_a_codec(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4).save_pretrained(
        tmp_path / "vae"
    )
    codec = load_codec("kl", tmp_path)
    assert isinstance(codec, KLCodec)
    assert not codec.training
    assert not any(p.requires_grad for p in codec.parameters())
    assert describe_codec(codec)["codec"] == "kl"
