"""The teacher as a whole, at a size of seconds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slimdiffsr.method.diffusion import noise_schedule, predict_clean
from slimdiffsr.method.distillation import Adapters, compare_features
from slimdiffsr.method.teacher import Teacher, adapt
from slimdiffsr.models.lora import load_trainable, merge_lora, trainable_tensors
from slimdiffsr.models.sd_vae import KLCodec, Taesd
from slimdiffsr.models.spec import SD21, PredictorSpec, UNetSpec
from slimdiffsr.models.uncertainty import NoiseLevelPredictor, UncertaintyEstimator
from slimdiffsr.models.unet import UNet

SPEC = UNetSpec(
    widths=(32, 64, 64, 64), mid_width=64, head_width=16, text_width=24, time_width=48, groups=8
)
PROMPT = torch.ones(1, 5, 24)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def image(seed: int = 0, count: int = 1) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=seeded(seed)) * 2 - 1


@pytest.fixture(autouse=True)
def fixed_start() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def small_teacher(mode: Any = "map", **options: Any) -> Teacher:
    schedule = noise_schedule()
    return Teacher(
        UNet(SPEC),
        Taesd(),
        UncertaintyEstimator(),
        NoiseLevelPredictor(PredictorSpec(mode=mode), schedule),
        schedule,
        prompt=PROMPT,
        **options,
    )


@pytest.mark.parametrize("mode", ["map", "scalar", "gt_only", "fixed"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_teacher_is_the_equations_in_order(mode: str, prediction: Any) -> None:
    teacher = small_teacher(mode, prediction=prediction)
    with torch.no_grad():
        sr, guidance = teacher(image(), image(1))
        z = teacher.codec.encode(image())
        t = torch.full((1,), 200.0)
        noise_or_v = teacher.unet(z, t, PROMPT)
        z0 = predict_clean(z, noise_or_v, noise_schedule()[200], prediction)
        torch.testing.assert_close(sr, teacher.codec.decode(z0), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        guidance.timestep, torch.full_like(guidance.timestep, 200), atol=0.01, rtol=0
    )


def wake(teacher: Teacher) -> Teacher:
    """A predictor that no longer says the same everywhere."""
    nn.init.normal_(teacher.predictor.head.out.weight, std=5, generator=seeded())
    return teacher


def test_without_ground_truth_the_mean_stands_in() -> None:
    teacher = wake(small_teacher())
    with torch.no_grad():
        _, blind = teacher.guide(image(), None)
        z_lr, seeing = teacher.guide(image(), image(1))
        mean, log_var = teacher.estimator(z_lr)
        assert torch.equal(blind.alpha_bar, teacher.predictor(mean, log_var))
    assert not torch.equal(blind.alpha_bar, seeing.alpha_bar)
    assert blind.alpha_bar.shape == (1, 1, 8, 8)


def test_what_trains_and_that_all_of_it_gets_a_gradient() -> None:
    teacher = small_teacher()
    adapt(teacher, unet_rank=2, decoder_rank=2, rng=seeded())
    trained = trainable_tensors(teacher)
    assert {name.split(".")[0] for name in trained} == {"unet", "codec", "predictor"}
    plain = {n for n in trained if n.startswith(("unet.", "codec.")) and "lora_" not in n}
    assert plain == {"unet.conv_in.weight", "unet.conv_in.bias"}
    assert not any(n.startswith("codec.encoder") for n in trained)
    stir(teacher)
    parameters = [p for p in teacher.parameters() if p.requires_grad]
    grads = torch.autograd.grad(teacher(image(), image(1)).sr.square().mean(), parameters)
    assert all(bool((g != 0).any()) for g in grads)


def stir(teacher: Teacher) -> None:
    rng = seeded(7)
    with torch.no_grad():
        for parameter in trainable_tensors(teacher).values():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=rng))


def test_detaching_leaves_the_closed_form_to_train_the_predictor() -> None:
    def slope(**options: Any) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            teacher = wake(small_teacher(**options))
        weight = teacher.predictor.head.out.weight
        assert isinstance(weight, Tensor)
        return torch.autograd.grad(teacher(image(), image(1)).sr.square().mean(), [weight])[0]

    both, closed = slope(), slope(detach_embedding=True)
    assert bool((closed != 0).any())
    assert not torch.equal(both, closed)


def test_only_what_trains_is_saved_and_the_merged_teacher_is_plain() -> None:
    teacher = small_teacher()
    base = {k: v.clone() for k, v in teacher.state_dict().items()}
    adapt(teacher, unet_rank=2, decoder_rank=2, rng=seeded())
    stir(teacher)
    saved = {k: v.clone() for k, v in trainable_tensors(teacher).items()}
    with torch.no_grad():
        expected = teacher(image(), image(1)).sr
    restored = small_teacher()
    restored.load_state_dict(base)
    adapt(restored, unet_rank=2, decoder_rank=2, rng=seeded(5))
    load_trainable(restored, saved, "saved")
    merge_lora(restored)
    assert restored.state_dict().keys() == base.keys()
    with torch.no_grad():
        torch.testing.assert_close(restored(image(), image(1)).sr, expected, rtol=1e-3, atol=1e-3)


def test_the_paper_trains_34_5_million_parameters_and_the_predictor() -> None:
    diffusers = pytest.importorskip("diffusers")
    schedule = noise_schedule()
    with torch.device("meta"):
        vae = diffusers.AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        )
        unet, estimator = UNet(SD21), UncertaintyEstimator()
        predictor = NoiseLevelPredictor(PredictorSpec(), schedule)
        teacher = Teacher(unet, KLCodec(vae), estimator, predictor, schedule)
        adapt(teacher)
    own = sum(p.numel() for p in predictor.parameters())
    trained = sum(p.numel() for p in trainable_tensors(teacher).values())
    assert trained - own == 32_434_304 + 2_050_672 + 11_840


def test_distillation_takes_blocks_without_running_the_decoder() -> None:
    teacher = small_teacher()
    teacher.codec.decoder = nn.Identity()  # would not fit if run
    teacher.unet.conv_out = None
    with torch.no_grad():
        blocks = teacher.blocks(image(), image(1))
    student = [0.5 * f[:, :16] for f in blocks.matched]
    adapters = Adapters([16] * 4, [f.shape[1] for f in blocks.matched])
    assert compare_features(adapters(student), blocks.matched, seeded()).total > 0


def test_recomputation_changes_no_gradient_of_the_teacher() -> None:
    teacher = small_teacher()
    adapt(teacher, unet_rank=2, decoder_rank=2, rng=seeded())
    parameters = [p for p in teacher.parameters() if p.requires_grad]
    grads = []
    for teacher.unet.checkpointing in (False, True):
        loss = teacher(image(), image(1)).sr.square().mean()
        grads.append(torch.autograd.grad(loss, parameters))
    for plain, again in zip(*grads, strict=True):
        torch.testing.assert_close(plain, again)
