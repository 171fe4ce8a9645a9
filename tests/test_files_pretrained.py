"""Where pretrained weights come from: order, pins, layouts, and what is said without them."""

from __future__ import annotations

import dataclasses
import json
import string
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_sd_unet import TINY, diffusers_unet

from slimdiffsr.errors import ChecksumError, ModelNotFoundError, WeightsError
from slimdiffsr.files.pretrained import (
    PROMPT,
    SD_REPOSITORIES,
    SD_SCHEDULER_FILE,
    SD_UNET_FILES,
    TAESD_FILE,
    Repository,
    embed_prompt,
    fetch,
    load_kl,
    load_sd_unet,
    load_taesd,
    prediction_type,
    stable_diffusion,
)
from slimdiffsr.files.tensors import load_strict
from slimdiffsr.models.unet import UNet


@pytest.mark.parametrize("file", SD_UNET_FILES)
def test_weights_load_strictly_from_a_folder_in_diffusers_layout(tmp_path: Path, file: str) -> None:
    theirs = diffusers_unet(dataclasses.replace(TINY, time_width=4 * TINY.widths[0]))
    (tmp_path / "unet").mkdir()
    dtype = torch.float16 if ".fp16" in file else torch.float32
    state = {name: value.to(dtype) for name, value in theirs.state_dict().items()}
    (torch.save if file.endswith(".bin") else save_file)(state, tmp_path / file)
    ours = UNet(dataclasses.replace(TINY, time_width=4 * TINY.widths[0]))
    load_strict(ours, load_sd_unet(tmp_path), str(tmp_path))
    weight = ours.get_parameter("mid_block.attentions.0.cross.out.weight")
    their = theirs.mid_block.attentions[0].transformer_blocks[0].attn2.to_out[0].weight
    assert torch.equal(weight, their.to(dtype).float())


def test_a_folder_without_the_file_says_what_to_download(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"unet/.*stabilityai/sd-turbo"):
        load_sd_unet(tmp_path)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A hub that has only the last repository; returns the names asked for."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked: list[str] = []
    (tmp_path / "there").write_bytes(b"weights")

    def download(repo: str, file: str, revision: str | None = None) -> str:
        asked.append(repo)
        if repo != SD_REPOSITORIES[-1].name:
            raise LocalEntryNotFoundError("not here")
        return str(tmp_path / "there")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked


def test_all_parts_come_from_the_first_repository_there_is(hub: list[str], tmp_path: Path) -> None:
    home = stable_diffusion()
    assert home == SD_REPOSITORIES[-1]
    assert hub == [r.name for r in SD_REPOSITORIES]
    assert fetch(SD_UNET_FILES, home, "it") == tmp_path / "there"
    assert hub[len(SD_REPOSITORIES) :] == [SD_REPOSITORIES[-1].name]  # and no other is asked
    assert stable_diffusion(tmp_path) == tmp_path


def test_no_source_at_all_names_each(hub: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slimdiffsr.files.pretrained.SD_REPOSITORIES", SD_REPOSITORIES[:2])
    with pytest.raises(ModelNotFoundError, match=r"sd-turbo.*sd2-community.*Download one of these"):
        stable_diffusion()


def test_a_pinned_file_that_is_another_is_refused(hub: list[str]) -> None:
    file = SD_UNET_FILES[0]
    pinned = Repository(SD_REPOSITORIES[-1].name, sha256={file: "0" * 64})
    with pytest.raises(ChecksumError, match="delete it"):
        fetch((file,), pinned, "it")


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_prediction_type_is_read_from_the_scheduler(tmp_path: Path, kind: str) -> None:
    (tmp_path / "scheduler").mkdir()
    (tmp_path / SD_SCHEDULER_FILE).write_text(json.dumps({"prediction_type": kind}))
    assert prediction_type(tmp_path) == kind


@pytest.mark.parametrize("text", ["[]", "no json", '{"prediction_type": "sample"}'])
def test_a_wrong_scheduler_config_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "scheduler").mkdir()
    (tmp_path / SD_SCHEDULER_FILE).write_text(text)
    with pytest.raises(WeightsError, match="scheduler"):
        prediction_type(tmp_path)


def test_taesd_loads_from_both_layouts(tmp_path: Path) -> None:
    """diffusers' one file, and upstream's two, whose decoder counts a clamp as its first layer."""
    weights = {
        f"{half}coder.layers.{index}.weight": torch.full((2,), float(index))
        for half in ("en", "de")
        for index in (0, 3)
    }
    save_file(weights, tmp_path / TAESD_FILE)
    ours = load_taesd(tmp_path)
    assert ours.keys() == {f"{half}coder.{i}.weight" for half in ("en", "de") for i in (0, 3)}
    for half, shift in (("en", 0), ("de", 1)):
        save_file(
            {f"{i + shift}.weight": torch.full((2,), float(i)) for i in (0, 3)},
            tmp_path / f"taesd_{half}coder.safetensors",
        )
    upstream = load_taesd(tmp_path)
    assert all(torch.equal(upstream[name], ours[name]) for name in ours)
    assert upstream.keys() == ours.keys()


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("safe", [True, False])
def test_the_autoencoder_loads_from_a_folder(
    tmp_path: Path, variant: str | None, safe: bool
) -> None:
    diffusers = pytest.importorskip("diffusers")
    vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    if variant:
        vae = vae.half()
    vae.save_pretrained(tmp_path / "vae", variant=variant, safe_serialization=safe)
    loaded = load_kl(tmp_path)
    assert all(torch.equal(v, vae.state_dict()[k].float()) for k, v in loaded.state_dict().items())


def test_a_missing_autoencoder_says_what_to_download(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    with pytest.raises(ModelNotFoundError, match=r"vae/.*stabilityai/sd-turbo"):
        load_kl(tmp_path)


@pytest.fixture
def text_folder(tmp_path: Path) -> Path:
    """A tokenizer that spells, and a text encoder of two small layers."""
    transformers = pytest.importorskip("transformers")
    letters = string.ascii_letters + string.digits + string.punctuation
    names = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {name: index for index, name in enumerate(names)}
    transformers.CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(tmp_path / "tokenizer")
    config = transformers.CLIPTextConfig(
        vocab_size=len(names),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=len(names) - 2,
        eos_token_id=len(names) - 1,
    )
    transformers.CLIPTextModel(config).save_pretrained(tmp_path / "text_encoder")
    return tmp_path


def test_the_prompt_is_embedded_once_then_read(text_folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "prompt.safetensors"
    embedding = embed_prompt(home=text_folder, cache=cache)
    assert embedding.shape == (1, 77, 16)
    nowhere = tmp_path / "nowhere"
    assert torch.equal(embed_prompt(PROMPT, nowhere, cache), embedding)
    with pytest.raises(ModelNotFoundError, match="text_encoder"):
        embed_prompt("another sentence", nowhere, cache)
    assert not torch.equal(embed_prompt("a road", text_folder, cache), embedding)
