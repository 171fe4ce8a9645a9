from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.accelerator import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file, save_file
from teachers import ESTIMATOR, micro_teacher, pair, run_paths, write_base
from torch import Tensor, nn

from slimdiffsr.errors import ChecksumError, ConfigError, WeightsError
from slimdiffsr.files.pretrained import PROMPT
from slimdiffsr.files.stages import build_estimator, load_estimator, load_unet, save_network
from slimdiffsr.files.teachers import (
    Adaptation,
    TeacherBase,
    build_teacher,
    load_teacher,
    merge_teacher,
)
from slimdiffsr.method.losses import total_variation
from slimdiffsr.method.teacher import Teacher
from slimdiffsr.models.lora import load_trainable, trainable_tensors
from slimdiffsr.models.sd_vae import KLCodec
from slimdiffsr.models.spec import PredictorSpec
from slimdiffsr.settings.config import StudentLoss
from slimdiffsr.stages import RunPaths
from slimdiffsr.stages.run import fresh
from slimdiffsr.stages.teacher import TeacherTask, train_teacher
from slimdiffsr.stages.teacher_config import TeacherConfig
from slimdiffsr.training.loop import STATE_FILE, Progress

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("teacher")


@pytest.fixture(scope="module")
def base(place: Path) -> TeacherBase:
    return write_base(place / "base")


@pytest.fixture(scope="module")
def paths(place: Path) -> RunPaths:
    return run_paths(place)


@pytest.fixture(scope="module")
def finished(paths: RunPaths, base: TeacherBase) -> tuple[RunPaths, list[Progress]]:
    """A whole run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seen: list[Progress] = []
    assert train_teacher(micro_teacher(), paths, base, on_progress=seen.append).finished
    torch.set_num_threads(threads)
    return paths, seen


def adapted(base: TeacherBase, config: TeacherConfig) -> Teacher:
    teacher = fresh(lambda: build_teacher(base, config.predictor), config.seed)
    adaptation = Adaptation(config.predictor, config.unet_rank, config.decoder_rank)
    adaptation.apply(teacher, torch.Generator().manual_seed(0))
    return teacher


def make_task(base: TeacherBase, paths: RunPaths, **changes: Any) -> tuple[TeacherTask, Teacher]:
    config = micro_teacher(**changes)
    teacher = adapted(base, config)
    return TeacherTask(config, paths, teacher, Accelerator()), teacher


def batch(count: int = 2) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(4)
    hr = torch.rand(count, 3, 64, 64, generator=rng) * 2 - 1
    return nn.functional.avg_pool2d(hr, 4), hr


def test_what_should_train_trains_and_all_else_stays_as_it_was(
    base: TeacherBase, paths: RunPaths
) -> None:
    task, teacher = make_task(base, paths)
    before = {name: p.detach().clone() for name, p in teacher.named_parameters()}
    for step in (1, 2):  # LoRA's A moves once B is no longer zero
        losses = task.update(*batch(), step)
    assert set(losses) == {"l1", "lpips", "gan", "tv", "timestep", "adversary"}
    trained = set(trainable_tensors(teacher))
    assert {name.split(".")[0] for name in trained} == {"unet", "codec", "predictor"}
    for name, parameter in teacher.named_parameters():
        assert torch.equal(parameter, before[name]) != (name in trained), name


@pytest.mark.parametrize(
    ("mode", "param"),
    [("map", "eq9"), ("scalar", "direct"), ("gt_only", "direct"), ("fixed", "direct")],
)
def test_every_mode_of_the_predictor_takes_a_step(
    base: TeacherBase, paths: RunPaths, mode: str, param: str
) -> None:
    task, teacher = make_task(base, paths, mode=mode, param=param)
    start = {name: p.clone() for name, p in trainable_tensors(teacher).items()}
    losses = task.update(*batch(), 1)
    assert all(torch.isfinite(value) for value in losses.values())
    moved = {n for n, p in trainable_tensors(teacher).items() if not torch.equal(p, start[n])}
    assert any(name.startswith("predictor") for name in moved) == (mode != "fixed")
    if mode == "fixed":
        assert losses["timestep"] == pytest.approx(200, abs=0.01)
        assert losses["tv"] == 0


def test_the_loss_is_reconstruction_plus_weighted_variation(
    base: TeacherBase, paths: RunPaths
) -> None:
    task, teacher = make_task(base, paths, tv=3.0)
    nn.init.normal_(teacher.predictor.head.out.weight, std=5)
    lr, hr = batch()
    sr, loss, terms = task._attempt(1, lr, hr)
    guidance = teacher(nn.functional.interpolate(lr, scale_factor=4.0, mode="bicubic"), hr).guidance
    torch.testing.assert_close(terms["tv"], total_variation(guidance.alpha_bar))
    assert terms["tv"] > 0
    expected = (sr - hr).abs().mean() + 0.5 * terms["lpips"] + 3 * terms["tv"]
    torch.testing.assert_close(loss, expected)


def test_a_batch_in_pieces_has_the_gradient_of_the_whole(
    base: TeacherBase, paths: RunPaths
) -> None:
    grads = []
    for pieces in (1, 2):
        task, teacher = make_task(base, paths, accumulate=pieces, grad_clip=1e6)
        captured: dict[str, Tensor] = {}

        def capture(*_: Any, model: Teacher = teacher, to: Any = captured) -> None:
            to.update(
                {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
            )

        task.optimizers["teacher"].register_step_pre_hook(capture)
        task.update(*batch(), 1)
        grads.append(captured)
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-3, atol=1e-5)


def test_recomputed_blocks_change_nothing(base: TeacherBase, paths: RunPaths) -> None:
    losses = []
    for checkpointing in (False, True):
        task, teacher = make_task(base, paths, checkpointing=checkpointing)
        assert teacher.unet.checkpointing == checkpointing
        losses.append([task.update(*batch(), step)["l1"] for step in (1, 2)])
    torch.testing.assert_close(losses[0], losses[1])


def test_a_run_leaves_metrics_with_and_without_the_truth_and_pictures(
    finished: tuple[RunPaths, list[Progress]],
) -> None:
    paths, seen = finished
    assert [p.step for p in seen] == [1, 2, 3, 4]
    assert {"l1", "lpips", "tv", "timestep"} <= seen[0].losses.keys()
    sizes = {}
    for suffix in ("", "-mean", "-timestep"):
        with Image.open(paths.out / "validation" / f"0000004{suffix}.png") as picture:
            sizes[suffix] = picture.size
    assert sizes["-timestep"][0] * 3 == sizes[""][0] * 2
    assert sizes[""] == sizes["-mean"]
    logs = b"".join(p.read_bytes() for p in (paths.out / "tensorboard").iterdir())
    for name in (b"val/psnr_y", b"val_mean/psnr_y", b"val_mean/lpips", b"val/timestep_std"):
        assert name in logs


def test_the_mean_in_place_of_the_truth_makes_another_image(
    finished: tuple[RunPaths, list[Progress]], base: TeacherBase, tmp_path: Path
) -> None:
    merge_teacher(finished[0].out / "teacher.safetensors", base, tmp_path / "merged.safetensors")
    teacher = load_teacher(tmp_path / "merged.safetensors")
    enlarged, hr = pair()
    with torch.no_grad():
        seeing, blind = teacher(enlarged, hr), teacher(enlarged, None)
    assert not torch.equal(seeing.guidance.timestep, blind.guidance.timestep)
    assert not torch.equal(seeing.sr, blind.sr)


@pytest.mark.slow
def test_the_state_holds_what_trains_and_a_resumed_run_ends_the_same(
    finished: tuple[RunPaths, list[Progress]], base: TeacherBase
) -> None:
    paths, seen = finished

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    cut = dataclasses.replace(paths, out=paths.out.with_name("cut"))
    with pytest.raises(KeyboardInterrupt):
        train_teacher(micro_teacher(), cut, base, on_progress=stop)
    torch.rand(7)  # the global generator must not matter
    rest: list[Progress] = []
    assert train_teacher(micro_teacher(), cut, base, on_progress=rest.append).finished
    assert [dict(p.losses) for p in rest] == [dict(seen[3].losses)]
    for name in ("teacher.safetensors", STATE_FILE):
        first, second = load_file(paths.out / name), load_file(cut.out / name)
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert torch.equal(value, second[key]), (name, key)
    # Weights and Adam's two moments of what trains, and the adversary's; not the 2.4 M of TAESD.
    trained = sum(v.numel() for v in load_file(paths.out / "teacher.safetensors").values())
    assert trained < 150_000
    adversary = 700_000
    assert (paths.out / STATE_FILE).stat().st_size < 4 * (3 * trained) + 4 * adversary


def test_the_merged_teacher_is_the_adapted_one(
    finished: tuple[RunPaths, list[Progress]], base: TeacherBase, tmp_path: Path
) -> None:
    source, target = finished[0].out / "teacher.safetensors", tmp_path / "merged.safetensors"
    digest = merge_teacher(source, base, target)
    assert len(digest) == 64
    teacher = adapted(base, micro_teacher())
    tensors = {k.removeprefix("trained."): v for k, v in load_file(source).items()}
    load_trainable(teacher, tensors, str(source))
    merged = load_teacher(target)
    assert not any("lora" in name for name in merged.state_dict())
    assert not any(p.requires_grad for p in merged.parameters())
    # Frozen parts are the given ones, to the bit; what trained has moved.
    unet, _, _ = load_unet(base.unet or Path())
    assert torch.equal(merged.unet.mid_block.state_dict()["resnets.0.norm1.weight"],
                       unet.mid_block.state_dict()["resnets.0.norm1.weight"])  # fmt: skip
    for name, value in load_estimator(base.estimator).state_dict().items():
        assert torch.equal(merged.estimator.state_dict()[name], value)
    assert not torch.equal(
        merged.unet.state_dict()["conv_in.weight"], unet.state_dict()["conv_in.weight"]
    )
    enlarged, hr = pair(2)
    with torch.no_grad():
        ours, theirs = merged(enlarged, hr), teacher(enlarged, hr)
    torch.testing.assert_close(ours.guidance.alpha_bar, theirs.guidance.alpha_bar)
    torch.testing.assert_close(ours.sr, theirs.sr, rtol=1e-5, atol=1e-5)


def test_files_that_do_not_fit_are_refused(
    finished: tuple[RunPaths, list[Progress]], base: TeacherBase, tmp_path: Path
) -> None:
    source, target = finished[0].out / "teacher.safetensors", tmp_path / "merged.safetensors"
    other = write_base(tmp_path / "other", seed=1)
    with pytest.raises(WeightsError, match="trained on another estimator"):
        merge_teacher(source, dataclasses.replace(base, estimator=other.estimator), target)
    with pytest.raises(WeightsError, match="trained on another unet"):
        merge_teacher(source, dataclasses.replace(base, unet=other.unet), target)
    moved = dataclasses.replace(other, codec_folder=base.codec_folder)
    with pytest.raises(WeightsError, match="stands on another unet and estimator than the one"):
        train_teacher(micro_teacher(), finished[0], moved)
    with pytest.raises(WeightsError, match=r"network of kind teacher, but .* teacher-adapted"):
        load_teacher(source)
    assert base.unet is not None
    with pytest.raises(WeightsError, match=r"kind teacher-adapted, but it holds: unet"):
        merge_teacher(base.unet, base, target)
    with pytest.raises(WeightsError, match=r"kind estimator, but it holds: unet"):
        build_teacher(dataclasses.replace(base, estimator=base.unet), micro_teacher().predictor)
    with pytest.raises(ConfigError, match="--unet FILE or --sd-folder DIR, not both"):
        dataclasses.replace(base, sd_folder=tmp_path)
    with pytest.raises(WeightsError, match="no weight file"):
        load_teacher(tmp_path / "none.safetensors")
    merge_teacher(source, base, target)
    data = bytearray(target.read_bytes())
    data[-1] ^= 1
    target.write_bytes(data)
    with pytest.raises(ChecksumError, match="is damaged"):
        load_teacher(target)


def test_an_estimator_of_another_codecs_latents_is_refused(
    base: TeacherBase, tmp_path: Path
) -> None:
    path = tmp_path / "estimator.safetensors"
    about = {"codec": "kl", "codec_sha256": "0123456789abcdef"}
    save_network(path, build_estimator(ESTIMATOR), ESTIMATOR, "estimator", about)
    for other in (
        dataclasses.replace(base, estimator=path),
        dataclasses.replace(base, estimator=tmp_path),
    ):
        with pytest.raises(WeightsError, match=r"another autoencoder: it knows kl 0123456789ab"):
            build_teacher(other, PredictorSpec())


def test_stable_diffusions_codec_and_a_prompt_survive_training_and_merging(
    paths: RunPaths, tmp_path: Path
) -> None:
    base = write_base(tmp_path / "base", attention="text", text_width=12)
    vae = fresh(small_vae, 0)
    vae.save_pretrained(tmp_path / "vae")
    base = dataclasses.replace(base, codec="kl", codec_folder=tmp_path)
    out = tmp_path / "run"
    out.mkdir()
    embedding = torch.randn(1, 5, 12, generator=torch.Generator().manual_seed(0))
    save_file({"embedding": embedding}, out / "prompt.safetensors", {"prompt": PROMPT})
    # In bfloat16, to see that this goes too; the formulas stay in float32.
    config = micro_teacher(steps=1, precision="bf16", checkpointing=True, validation_images=1)
    AcceleratorState._reset_state(reset_partial_state=True)  # its precision is the process's
    try:
        train_teacher(config, dataclasses.replace(paths, out=out), base)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    merge_teacher(out / "teacher.safetensors", base, tmp_path / "merged.safetensors")
    teacher = load_teacher(tmp_path / "merged.safetensors")
    assert isinstance(teacher.codec, KLCodec)
    assert teacher.prompt is not None
    assert torch.equal(teacher.prompt, embedding)
    for name, value in vae.state_dict().items():
        if not name.startswith("decoder."):
            assert torch.equal(teacher.codec.vae.state_dict()[name], value)
    enlarged, hr = pair()
    with torch.no_grad():
        assert teacher(enlarged, hr).sr.shape == hr.shape


def small_vae() -> Any:
    diffusers = pytest.importorskip("diffusers")
    return diffusers.AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
    )


def test_dinos_heads_judge_augmented_images(
    base: TeacherBase, paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tokens(nn.Module):
        vit = SimpleNamespace(config=SimpleNamespace(hidden_size=16))

        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, 16, 16, stride=16)

        def forward(self, x: Tensor) -> list[Tensor]:
            tokens = self.patch(x).flatten(2).transpose(1, 2)
            return [torch.cat((tokens.mean(1, keepdim=True), tokens), dim=1)] * 3

    monkeypatch.setattr("slimdiffsr.stages.adversarial.load_dino", lambda _: Tokens())
    loss = StudentLoss(lpips=0, gan=0.25, gan_kind="bce_s")
    task, _ = make_task(base, paths, adversary="dino", loss=loss)
    heads = {n: v.clone() for n, v in task.modules["adversary"].named_parameters()}
    losses = task.update(*batch(), 1)
    assert {"gan", "adversary"} <= losses.keys()
    assert losses["gan"] > 0
    moved = {n for n, v in task.modules["adversary"].named_parameters() if not v.equal(heads[n])}
    assert moved == heads.keys()
    # Other augmentations at another step: the same images are judged otherwise.
    sr = batch()[1]
    task.modules["adversary"].eval()  # spectral norm stands still
    with torch.no_grad():
        first, again, later = (
            task.reconstruction.adversary_loss(sr, -sr, sr, n) for n in (1, 1, 2)
        )
    assert first == again != later


def test_a_crop_that_the_unet_cannot_halve_is_refused(base: TeacherBase, paths: RunPaths) -> None:
    with pytest.raises(ConfigError, match="crop_hr_px 32 is no multiple of 64"):
        make_task(base, paths, crop_hr_px=32)


def test_levels_and_timesteps_are_float32_under_bfloat16(base: TeacherBase) -> None:
    teacher = adapted(base, micro_teacher())
    seen: list[tuple[torch.dtype, bool]] = []

    def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append((inputs[0].dtype, torch.is_autocast_enabled("cpu")))

    teacher.predictor.register_forward_pre_hook(look)
    teacher.estimator.register_forward_pre_hook(look)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        guidance = teacher(*pair()).guidance
    assert seen == [(torch.float32, False)] * 2
    assert guidance.alpha_bar.dtype == guidance.timestep.dtype == torch.float32
