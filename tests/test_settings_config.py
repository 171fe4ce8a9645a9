from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from slimdiffsr.errors import ConfigError
from slimdiffsr.settings.config import (
    Blur,
    ModelConfig,
    Noise,
    Recipe,
    Resize,
    Stage,
    StudentLoss,
    TrainConfig,
    UNetConfig,
    override,
    parse,
    read_toml,
    to_dict,
)
from slimdiffsr.settings.presets import PRESETS

BASE = {"name": "base-x4", "scale": 4}
TINY = {
    "name": "t", "scale": 4, "kind": "tiny", "decoder_widths": (8, 8, 8),
    "unet": {"norm": "pixel", "window_px": 8}, "overlap_hr_px": 64,
}  # fmt: skip
RUN = {"model": BASE}

# A config, one wrong value, and words that the message must hold: the key and what came.
REFUSED: list[tuple[type, dict[str, Any], str, str]] = [
    (UNetConfig, {"widths": (36, 640)}, "widths.0", "36"),
    (UNetConfig, {"widths": (320, 0)}, "widths.1", "0"),
    (UNetConfig, {"widths": (320,)}, "widths.1", "required"),
    (UNetConfig, {"mid_width": -8}, "mid_width", "-8"),
    (UNetConfig, {"widths": (40, 64)}, "40 is not divisible", "32 groups"),
    (UNetConfig, {"mid_width": 648}, "648 is not divisible", "32 groups"),
    (UNetConfig, {"layers": 0}, "layers", "0"),
    (UNetConfig, {"norm": "batch"}, "norm", "batch"),
    (UNetConfig, {"groups": 0}, "groups", "0"),
    (UNetConfig, {"ff_mult": 0}, "ff_mult", "0"),
    (UNetConfig, {"queries": 0}, "queries", "0"),
    (UNetConfig, {"squeeze": 0}, "squeeze", "0"),
    (UNetConfig, {"window_px": 2}, "window_px", "2"),
    (UNetConfig, {"window_px": 7}, "window_px", "7"),
    (ModelConfig, {**BASE, "scale": 3}, "scale", "3"),
    (ModelConfig, {"scale": 4}, "name", "required"),
    (ModelConfig, {**BASE, "kind": "huge"}, "kind", "huge"),
    (ModelConfig, {**BASE, "tile_hr_px": 500}, "tile_hr_px", "500"),
    (ModelConfig, {**BASE, "tile_hr_px": 0}, "tile_hr_px", "0"),
    (ModelConfig, {**BASE, "overlap_hr_px": -8}, "overlap_hr_px", "-8"),
    (ModelConfig, {**BASE, "overlap_hr_px": 264}, "overlap_hr_px", "264"),
    (ModelConfig, {**BASE, "overlap_hr_px": 60}, "overlap_hr_px", "60"),
    (ModelConfig, {**TINY, "stem_width": 0}, "stem_width", "0"),
    (ModelConfig, {**TINY, "decoder_widths": (8, 8)}, "3 decoder_widths", "(8, 8)"),
    (ModelConfig, {**TINY, "decoder_widths": (8, 8, 0)}, "decoder_widths.2", "0"),
    (ModelConfig, {**TINY, "scale": 8, "overlap_hr_px": 128}, "4 decoder_widths", "(8, 8, 8)"),
    (Blur, {"sigma": (1.5, 0.2)}, "sigma", "(1.5, 0.2)"),
    (Blur, {"sigma": (0.0, 1.0)}, "sigma", "(0.0, 1.0)"),
    (Blur, {"sigma": (0.2, float("nan"))}, "sigma", "nan"),
    (Blur, {"sizes": (7, 8)}, "sizes", "(7, 8)"),
    (Blur, {"sizes": (1,)}, "sizes", "(1,)"),
    (Blur, {"sizes": (23,)}, "sizes", "(23,)"),
    (Blur, {"sizes": ()}, "sizes", "()"),
    (Blur, {"kinds": ("iso",)}, "kind_prob", "6 for 1 kinds"),
    (Blur, {"kinds": ("round",), "kind_probs": (1.0,)}, "kinds.0", "round"),
    (Blur, {"kinds": ("iso",), "kind_probs": (0.9,)}, "kind_probs", "(0.9,)"),
    (Blur, {"kinds": (), "kind_probs": ()}, "kind_probs", "()"),
    (Blur, {"kinds": ("iso", "aniso"), "kind_probs": (1.5, -0.5)}, "kind_probs", "-0.5"),
    (Blur, {"beta_generalized": (0.0, 1.0)}, "beta_generalized", "(0.0, 1.0)"),
    (Blur, {"beta_plateau": (1.0, 11.0)}, "beta_plateau", "(1.0, 11.0)"),
    (Blur, {"prob": 1.1}, "prob", "1.1"),
    (Blur, {"sinc_prob": -0.1}, "sinc_prob", "-0.1"),
    (Resize, {"probs": (0.5, 0.5, 0.5)}, "probs", "(0.5, 0.5, 0.5)"),
    (Resize, {"factor": (0.01, 1.0)}, "factor", "(0.01, 1.0)"),
    (Noise, {"sigma": (1.0, 256.0)}, "sigma", "(1.0, 256.0)"),
    (Noise, {"poisson_scale": (2.0, 1.0)}, "poisson_scale", "(2.0, 1.0)"),
    (Noise, {"gaussian_prob": 2.0}, "gaussian_prob", "2.0"),
    (Noise, {"grey_prob": -1.0}, "grey_prob", "-1.0"),
    (Stage, {"jpeg_quality": (0.0, 95.0)}, "jpeg_quality", "(0.0, 95.0)"),
    (Recipe, {"final_sinc_prob": 1.5}, "final_sinc_prob", "1.5"),
    (Recipe, {"scale": 5}, "scale", "5"),
    (Recipe, {"first": {"blur": {"prob": 3.0}}}, "first.blur.prob", "3.0"),
    (StudentLoss, {"l1": -1.0}, "l1", "-1.0"),
    (StudentLoss, {"lpips": float("nan")}, "lpips", "nan"),
    (StudentLoss, {"gan": float("inf")}, "gan", "inf"),
    (StudentLoss, {"gan_kind": "wgan"}, "gan_kind", "wgan"),
    (StudentLoss, {"gan_from": -1}, "gan_from", "-1"),
    (StudentLoss, {"perceptual_from": -1}, "perceptual_from", "-1"),
    (TrainConfig, {**RUN, "recipe": {"scale": 8}}, "scale", "(8, 4)"),
    (TrainConfig, {**RUN, "crop_hr_px": 500}, "crop_hr_px", "500"),
    (TrainConfig, {**RUN, "precision": "fp64"}, "precision", "fp64"),
    (TrainConfig, {**RUN, "betas": (0.9, 1.0)}, "betas.1", "1.0"),
    (TrainConfig, {**RUN, "ema": 1.0}, "ema", "1.0"),
    (TrainConfig, {**RUN, "lr": 0.0}, "lr", "0.0"),
    (TrainConfig, {**RUN, "lr_adversary": -1.0}, "lr_adversary", "-1.0"),
    (TrainConfig, {**RUN, "lr_final": -1.0}, "lr_final", "-1.0"),
    (TrainConfig, {**RUN, "grad_clip": 0.0}, "grad_clip", "0.0"),
    (TrainConfig, {**RUN, "weight_decay": -1.0}, "weight_decay", "-1.0"),
    *[
        (TrainConfig, {**RUN, key: 0}, key, "0")
        for key in (
            "steps", "batch", "crop_hr_px", "discriminator_width", "log_every", "save_every",
            "validate_every",
        )
    ],
    *[
        (TrainConfig, {**RUN, key: -1}, key, "-1")
        for key in ("warmup", "decay_from", "seed", "workers", "pool")
    ],
]  # fmt: skip


@pytest.mark.parametrize(("kind", "values", "key", "came"), REFUSED)
def test_a_wrong_value_is_refused_and_named(
    kind: type, values: dict[str, Any], key: str, came: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(kind, values)
    message = str(caught.value)
    assert kind.__name__ in message
    assert key in message
    assert came in message


def test_a_config_made_directly_checks_itself_too() -> None:
    with pytest.raises(ValidationError, match="crop_hr_px 100 is no multiple"):
        TrainConfig(model=ModelConfig(name="b", scale=4), crop_hr_px=100)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"modle": BASE, "model": BASE}, "modle"),
        ({"model": {**BASE, "unet": {"width": 1}}}, "model.unet.width"),
        ({"model": BASE, "recipe": {"first": {"blur": {"sigmas": 1}}}}, "recipe.first.blur.sigmas"),
    ],
)
def test_an_unknown_key_is_named_with_its_path(values: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}: Unexpected keyword"):
        parse(TrainConfig, values)


def test_all_wrong_keys_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(TrainConfig, {"model": BASE, "steps": "many", "bacth": 3})
    assert "steps" in str(caught.value)
    assert "'many'" in str(caught.value)
    assert "bacth" in str(caught.value)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_survives_the_round_trip_through_json(name: str) -> None:
    text = json.dumps(to_dict(PRESETS[name]))
    assert parse(TrainConfig, json.loads(text)) == PRESETS[name]


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_is_called_after_its_model_and_scale(name: str) -> None:
    model = PRESETS[name].model
    # What follows the scale says how it is trained.
    assert re.match(r"[a-z]+(-x\d)?", name)[0] == model.name.removesuffix("-faithful")  # type: ignore[index]
    assert f"x{model.scale}" in name or name == "micro"


def test_configs_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PRESETS["tiny-x4"].steps = 3  # type: ignore[misc]


def test_the_recipe_holds_the_papers_values() -> None:
    recipe = Recipe()
    assert recipe.first.blur.sigma == (0.2, 1.5)
    assert recipe.second.blur.sigma == (0.2, 1.0)
    assert (recipe.first.blur.prob, recipe.second.blur.prob) == (1.0, 0.5)
    assert recipe.first.blur.kind_probs == (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    assert (recipe.first.resize.probs, recipe.first.resize.factor) == ((0.2, 0.7, 0.1), (0.3, 1.5))
    assert recipe.second.resize.probs == (0.3, 0.4, 0.3)
    assert recipe.second.resize.factor == (0.6, 1.2)
    assert (recipe.first.noise.sigma, recipe.second.noise.sigma) == ((1, 15), (1, 12))
    assert recipe.first.noise.poisson_scale == (0.05, 2.0)
    assert recipe.second.noise.poisson_scale == (0.05, 1.0)
    assert (recipe.first.jpeg_quality, recipe.second.jpeg_quality) == ((60, 95), (60, 100))
    assert recipe.final_sinc_prob == 0.8


# Overriding


def test_a_toml_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "change.toml"
    file.write_text(
        "steps = 7\n[recipe.second.blur]\nsigma = [0.3, 0.9]\n[model]\nname = 'größer'\n",
        encoding="utf-8",
    )
    before = PRESETS["tiny-x4"]
    after = override(before, read_toml(file))
    expected = to_dict(before)
    expected["steps"] = 7
    expected["recipe"]["second"]["blur"]["sigma"] = (0.3, 0.9)
    expected["model"]["name"] = "größer"
    assert to_dict(after) == expected


def test_assignments_win_over_the_file_and_the_last_wins(tmp_path: Path) -> None:
    file = tmp_path / "change.toml"
    file.write_text("steps = 7\nseed = 8\n")
    after = override(PRESETS["tiny-x4"], read_toml(file), ("steps=9", "steps = 10"))
    assert (after.steps, after.seed) == (10, 8)


def test_assignments_reach_nested_keys_and_read_toml_or_plain_text() -> None:
    after = override(
        PRESETS["tiny-x4"],
        assignments=(
            "model.unet.queries=8",
            "recipe.first.blur.sigma=[0.5, 0.6]",
            "loss.gan_kind=bce_s",
            "flip_all=false",
            "model.name=a=b",
        ),
    )
    assert after.model.unet.queries == 8
    assert after.recipe.first.blur.sigma == (0.5, 0.6)
    assert after.loss.gan_kind == "bce_s"
    assert not after.flip_all
    assert after.model.name == "a=b"


def test_overriding_leaves_the_original_as_it_was() -> None:
    before = to_dict(PRESETS["tiny-x4"])
    override(PRESETS["tiny-x4"], assignments=("model.unet.queries=8",))
    assert to_dict(PRESETS["tiny-x4"]) == before


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("stepz=3", "stepz: Unexpected"),
        ("model.unet.widht=3", "model.unet.widht: Unexpected"),
        ("steps", "expected key=value, got 'steps'"),
        ("steps=soon", "steps.*got 'soon'"),
        ("model=5", "model.*got 5"),
        ("=5", "Unexpected"),
    ],
)
def test_a_wrong_assignment_is_named(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override(PRESETS["tiny-x4"], assignments=(assignment,))


@pytest.mark.parametrize("content", [b"steps = ", b"name = '\xff\xfe'"])
def test_a_file_that_is_not_toml_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"cannot read the config file .*bad\.toml"):
        override(PRESETS["tiny-x4"], read_toml(file))


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_toml(tmp_path / "none.toml")


# Tiling


@pytest.mark.parametrize(
    ("values", "multiple"),
    [
        ({**BASE, "scale": 2}, 8),
        (BASE, 4),
        ({**BASE, "scale": 8}, 2),
        (TINY, 16),
        ({**TINY, "unet": {"norm": "pixel"}}, 4),
        ({**BASE, "unet": {"window_px": 4}}, 8),  # TAESD's 8 x 4 cells make 32 HR pixels
    ],
)
def test_inputs_must_hold_whole_cells_and_windows(values: dict[str, Any], multiple: int) -> None:
    assert parse(ModelConfig, values).multiple_lr_px == multiple


@pytest.mark.parametrize(
    ("tile_hr_px", "overlap_hr_px", "window_px", "fits"),
    [
        (512, 64, 8, True),  # 128 and 112 LR pixels: multiples of 16
        (512, 0, 8, True),
        (512, 32, 8, False),  # 120 apart
        (512, 32, 4, True),
        (512, 32, 12, False),  # 120 apart, but 128 long: windows of 24 do not fill a tile
        (576, 96, 12, True),
    ],
)
def test_tiles_are_anchored_to_the_pooling_windows(
    tile_hr_px: int, overlap_hr_px: int, window_px: int, fits: bool
) -> None:
    values = {
        **TINY,
        "tile_hr_px": tile_hr_px,
        "overlap_hr_px": overlap_hr_px,
        "unet": {"norm": "pixel", "window_px": window_px},
    }
    if fits:
        parse(ModelConfig, values)
        return
    with pytest.raises(ConfigError, match=f"anchored.*multiples of {2 * window_px}"):
        parse(ModelConfig, values)


def test_a_model_that_pools_over_the_tile_may_overlap_freely() -> None:
    assert parse(ModelConfig, {**BASE, "overlap_hr_px": 72}).overlap_hr_px == 72
