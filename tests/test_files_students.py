from __future__ import annotations

import dataclasses
import errno
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from students import micro_model

from slimdiffsr.errors import (
    ChecksumError,
    ConfigError,
    DiskFullError,
    ModelNotFoundError,
    OutputError,
    ScaleError,
    SlimDiffSRError,
    WeightsError,
)
from slimdiffsr.files.students import BUNDLED, interpolate_models, load_model, resolve, save_model
from slimdiffsr.files.tensors import file_sha256, load_strict, write_atomically
from slimdiffsr.models.student import Student, build_student
from slimdiffsr.settings.presets import tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")


def student(seed: int = 0, **unet: Any) -> Student:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build_student(micro_model(**unet))


def saved(path: Path, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    save_model(path, student(seed), micro_model(), dtype=dtype)
    return path


def header_length(data: bytes) -> int:
    length: int = struct.unpack("<Q", data[:8])[0]
    return length


def with_config(path: Path, **changes: Any) -> Path:
    """Change the config in a weight file and nothing else."""
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
    metadata["config"] = json.dumps({**json.loads(metadata["config"]), **changes})
    save_file(load_file(path), path, metadata)
    return path


# Saving and loading


def test_a_saved_model_comes_back_with_its_config_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "m.safetensors"
    before = student(3)
    digest = save_model(path, before, micro_model(), {"step": "12"})
    loaded = load_model(str(path))
    assert loaded.config == micro_model()
    assert (loaded.model_id, loaded.sha256) == ("micro", digest)
    assert loaded.metadata["step"] == "12"
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())
    for key, value in before.state_dict().items():
        torch.testing.assert_close(loaded.model.state_dict()[key], value, rtol=0, atol=0)


def test_half_precision_on_disk_is_single_precision_in_memory(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.safetensors", dtype=torch.float16)
    assert {v.dtype for v in load_file(path).values()} == {torch.float16}
    before = student().state_dict()
    for key, value in load_model(str(path)).model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[key].half().float())


def test_one_flipped_byte_among_the_tensors_is_found(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.safetensors")
    whole = path.read_bytes()
    start = 8 + header_length(whole)
    for position in (start, (start + len(whole)) // 2, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(ChecksumError, match="damaged"):
            load_model(str(path))


def test_a_damaged_header_is_one_clear_error(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.safetensors")
    whole = path.read_bytes()
    length = header_length(whole)
    damages = {
        "cut in the header": whole[: 8 + length // 2],
        "cut in the tensors": whole[:-5],
        "no length": whole[:3],
        "empty": b"",
        "length too large": b"\xff" * 8 + whole[8:],
        "length too small": struct.pack("<Q", length - 7) + whole[8:],
        "no brace": whole[:8] + b"x" + whole[9:],
        "not UTF-8": whole[:20] + b"\xff" + whole[21:],
        "zeros": whole[:8] + bytes(length) + whole[8 + length :],
    }
    for data in damages.values():
        path.write_bytes(data)
        with pytest.raises(WeightsError, match="not a readable safetensors file"):
            load_model(str(path))


def test_any_damaged_header_byte_gives_our_error_or_the_same_weights(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.safetensors")
    whole = path.read_bytes()
    expected = student().state_dict()
    for position in range(0, 8 + header_length(whole), 97):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        try:
            state = load_model(str(path)).model.state_dict()
        except SlimDiffSRError:
            continue
        assert all(torch.equal(state[key], value) for key, value in expected.items()), position


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, "colour: Unexpected"),
        ({"tile_hr_px": 7}, "tile_hr_px 7"),
        ({"scale": 3}, "3"),
    ],
)
def test_a_config_this_version_cannot_read_is_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = with_config(saved(tmp_path / "m.safetensors"), **changes)
    with pytest.raises(WeightsError, match=message) as caught:
        load_model(str(path))
    assert "m.safetensors" in str(caught.value)


def test_a_file_without_config_says_how_to_import(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file(student().state_dict(), path)
    with pytest.raises(WeightsError, match="import-weights"):
        load_model(str(path))


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_model(path, student(), micro_model(layers=2))
    with pytest.raises(WeightsError, match=r"missing \(unet\.down_blocks\.0\.attentions\.1"):
        load_model(str(path))


def test_long_lists_of_keys_are_cut() -> None:
    with pytest.raises(WeightsError, match=r"missing \(.* and \d+ more\); 0 unexpected"):
        load_strict(student(), {}, "nothing")


def test_the_scale_asked_for_must_be_the_models(tmp_path: Path) -> None:
    path = str(saved(tmp_path / "m.safetensors"))
    assert load_model(path, scale=4).config.scale == 4
    with pytest.raises(ScaleError, match="enlarges 4 times, not 8 times"):
        load_model(path, scale=8)


# Finding


@pytest.mark.parametrize("name", sorted(BUNDLED))
def test_a_bundled_model_loads_and_is_the_published_file(name: str) -> None:
    path = resolve(name)
    assert path.stat().st_size < (5_000_000 if name.startswith("tiny") else 25_000_000)
    loaded = load_model(name)
    assert loaded.sha256 == BUNDLED[name] == file_sha256(path)
    assert loaded.model_id == name
    assert "tensors_sha256" in loaded.metadata
    scale = loaded.config.scale
    with torch.inference_mode():
        grey = loaded.model(torch.zeros(1, 3, 32, 32))
    assert grey.shape == (1, 3, 32 * scale, 32 * scale)
    assert grey.abs().max() < 0.5


def test_another_file_under_a_bundled_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights"
    saved(weights / "tiny-x4.safetensors")
    monkeypatch.setattr("slimdiffsr.files.students.resources.files", lambda package: tmp_path)
    with pytest.raises(ChecksumError, match="not the published tiny-x4"):
        load_model("tiny-x4")
    (weights / "tiny-x4.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match="reinstall"):
        load_model("tiny-x4")


@pytest.mark.parametrize("source", ["tiny-x5", "no/such/file", "gone.safetensors", "a/b.pkl"])
def test_an_unknown_model_lists_what_there_is(source: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(source)
    message = str(caught.value)
    assert repr(source) in message
    assert all(name in message for name in BUNDLED)


def test_a_local_folder_holds_its_model(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.safetensors")
    assert resolve(str(tmp_path)) == path
    assert load_model(str(tmp_path)).config == micro_model()


def test_an_organisation_and_a_name_go_to_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "cached.safetensors")
    asked: list[tuple[str, str, str | None]] = []

    def download(repo: str, filename: str, *, revision: str | None = None) -> str:
        asked.append((repo, filename, revision))
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert load_model("some-org/some.model_2", revision="v1").config == micro_model()
    assert asked == [("some-org/some.model_2", "model.safetensors", "v1")]


def test_a_local_folder_wins_over_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "org" / "name" / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *a, **k: pytest.fail("asked"))
    assert resolve("org/name") == Path("org/name/model.safetensors")


def test_a_hub_that_cannot_be_reached_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    failures = [LocalEntryNotFoundError("offline"), ConnectionError("no route"), OSError("disk")]
    for failure in failures:

        def download(*args: Any, error: Exception = failure, **kwargs: Any) -> str:
            raise error

        monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
        with pytest.raises(
            ModelNotFoundError, match=r"cannot get model\.safetensors of 'org/name'"
        ):
            load_model("org/name")


# Interpolation


def test_interpolation_ends_at_both_models_and_halves_between(tmp_path: Path) -> None:
    start, end = saved(tmp_path / "a.safetensors", 1), saved(tmp_path / "b.safetensors", 2)
    first, second = student(1).state_dict(), student(2).state_dict()
    for amount in (0.0, 0.5, 1.0):
        target = tmp_path / "mixed.safetensors"
        digest = interpolate_models(start, end, amount, target, name="mix", about={"note": "n"})
        mixed = load_model(str(target))
        assert (mixed.model_id, mixed.sha256, mixed.metadata["note"]) == ("mix", digest, "n")
        assert file_sha256(start) in mixed.metadata["interpolated"]
        for key, value in mixed.model.state_dict().items():
            expected = ((1 - amount) * first[key] + amount * second[key]).half().float()
            torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-6)


def test_models_of_different_architecture_have_nothing_between_them(tmp_path: Path) -> None:
    start, end = saved(tmp_path / "a.safetensors"), tmp_path / "b.safetensors"
    other = micro_model(queries=8)
    save_model(end, build_student(other), other)
    target = tmp_path / "mixed.safetensors"
    with pytest.raises(WeightsError, match="misshapen") as caught:
        interpolate_models(start, end, 0.5, target, name="mix", about={})
    assert "a.safetensors" in str(caught.value)
    assert "b.safetensors" in str(caught.value)
    assert not target.exists()


@pytest.mark.parametrize("amount", [-0.1, 1.1, float("nan")])
def test_interpolation_does_not_extrapolate(tmp_path: Path, amount: float) -> None:
    with pytest.raises(ConfigError, match=r"in \[0, 1\]"):
        interpolate_models(tmp_path, tmp_path, amount, tmp_path, name="m", about={})


# Writing


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.ENOSPC, DiskFullError), (errno.EIO, OutputError)]
)
def test_a_write_that_fails_keeps_the_old_file_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"before")

    def full(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(kind, match="previous file is kept"):
        save_model(path, student(), micro_model())
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_is_interrupted_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", b"data")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file" / "m", tmp_path / "file" / "deeper" / "m"):
        with pytest.raises(OutputError, match="cannot write"):
            write_atomically(path, b"data")


def test_a_write_replaces_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"one", b"two"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_the_config_is_saved_with_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    config = dataclasses.replace(tiny_model(4), name="mine")
    save_model(path, build_student(config), config)
    with safe_open(path, framework="pt") as file:
        text = file.metadata()["config"]
    assert json.loads(text)["lean"]["kernel"] == config.lean.kernel
    assert load_model(str(path)).config == config


def test_the_same_model_saved_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_model(4), name="twice")
    model = build_student(config)
    about = {"b": "2", "a": "é", "c": "3"}
    digests = {save_model(tmp_path / f"{n}.safetensors", model, config, about) for n in range(6)}
    assert len(digests) == 1
    assert load_model(str(tmp_path / "0.safetensors")).metadata["a"] == "é"
