"""The DINO discriminator: heads, preprocessing and augmentation, with stand-in backbones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from slimdiffsr.errors import ModelNotFoundError
from slimdiffsr.method.losses import adversarial_loss, discriminator_loss
from slimdiffsr.models.augment import Rows, all_rows, augment, cut_out, recolour, translate
from slimdiffsr.models.discriminator import Blur, DinoDiscriminator, DinoFeatures, load_dino

WIDTH = 16


class StandIn(nn.Module):
    """Patches of 16 pixels, projected, at three depths, with their mean as class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, 16, stride=16)

    def forward(self, x: Tensor) -> list[Tensor]:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat((tokens.mean(1, keepdim=True), tokens), dim=1)
        return [tokens, tokens.sin(), tokens.cos()]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 2, side: int = 96) -> Tensor:
    return torch.rand(count, 3, side, side, generator=seeded()) * 2 - 1


def test_three_levels_of_logits() -> None:
    logits = DinoDiscriminator(StandIn(), WIDTH)(images())
    assert [tuple(level.shape) for level in logits] == [(2, 1, 3, 3), (2, 1, 3, 3), (2, 1)]


def test_the_heads_have_the_papers_size() -> None:
    heads = DinoDiscriminator(StandIn(), 768)
    per_map = 768 * 128 * 9 + 128 + 128 + 1
    token = 768 * 128 + 128 + 128 + 1
    assert sum(p.numel() for p in heads.parameters()) == 2 * per_map + token


def test_only_heads_train_and_are_saved() -> None:
    backbone = StandIn()
    heads = DinoDiscriminator(backbone, WIDTH)
    assert not any(p.requires_grad for p in backbone.parameters())
    assert all(name.startswith(("maps.", "token.")) for name in heads.state_dict())


def test_the_backbone_moves_with_the_heads_and_stays_in_evaluation_mode() -> None:
    backbone = StandIn()
    heads = DinoDiscriminator(backbone, WIDTH).to(torch.float64).train()
    assert backbone.patch.weight.dtype == torch.float64
    assert not backbone.training
    assert heads(images().double())[0].dtype == torch.float64


def test_gradients_reach_the_image_through_the_frozen_backbone() -> None:
    heads = DinoDiscriminator(StandIn(), WIDTH)
    rgb = images().requires_grad_()
    (grad,) = torch.autograd.grad(adversarial_loss(heads(rgb, seeded()), "bce_s"), rgb)
    assert bool(grad.abs().sum((1, 2, 3)).gt(0).all())


def test_preparation_is_the_lineages() -> None:
    heads = DinoDiscriminator(StandIn(), WIDTH)
    grey = torch.zeros(1, 3, 448, 448)  # 0.5 in [0, 1]
    expected = (0.5 - torch.tensor([0.48145466, 0.4578275, 0.40821073])) / torch.tensor(
        [0.229, 0.224, 0.225]
    )
    prepared = heads.prepare(grey)
    assert prepared.shape == (1, 3, 224, 224)
    torch.testing.assert_close(prepared[0, :, 100, 100], expected)


def test_the_blur_keeps_a_constant_and_is_the_outer_product() -> None:
    blur = Blur(padding=2)
    torch.testing.assert_close(
        blur(torch.ones(1, 3, 9, 9))[..., 3:-3, 3:-3], torch.ones(1, 3, 4, 4)
    )
    point = torch.zeros(1, 1, 7, 7)
    point[..., 3, 3] = 64
    row = torch.tensor([1.0, 3.0, 3.0, 1.0])
    torch.testing.assert_close(blur(point)[0, 0, 2:6, 2:6], torch.outer(row, row))


def test_the_discriminator_learns_to_tell_two_kinds_apart() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        heads = DinoDiscriminator(StandIn(), WIDTH)
    real, fake = 0.3 * images(4, 64) + 0.7, 0.3 * images(4, 64) - 0.7
    optimiser = torch.optim.Adam(heads.parameters(), lr=2e-2)
    losses = []
    for _ in range(30):
        loss = discriminator_loss(heads(real), heads(fake), "bce_s")
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


# Augmentation


def test_augmentation_depends_on_the_generator_alone() -> None:
    rgb = images()
    assert torch.equal(augment(rgb, seeded(3)), augment(rgb, seeded(3)))
    assert not torch.equal(augment(rgb, seeded(3)), augment(rgb, seeded(4)))
    assert augment(rgb, seeded()).shape == rgb.shape
    # A share of a batch gets what its images get in the whole.
    index = [len(rgb) - 1, 0]
    some = augment(rgb[index], seeded(3), Rows(len(rgb), index))
    assert torch.equal(some, augment(rgb, seeded(3))[index])


def test_translation_moves_whole_pixels_by_up_to_an_eighth() -> None:
    point = torch.zeros(64, 1, 32, 32)
    point[..., 16, 16] = 1
    places = translate(point, seeded(), all_rows(point)).flatten(1).argmax(1)
    rows, columns = places // 32 - 16, places % 32 - 16
    for moved in (rows, columns):
        assert (int(moved.amin()), int(moved.amax())) == (-4, 4)


def test_the_cut_out_removes_at_most_a_quarter() -> None:
    white = torch.ones(64, 1, 32, 32)
    holes = (cut_out(white, seeded(), all_rows(white)) == 0).float().mean((1, 2, 3))
    assert holes.amax() == 0.25
    assert holes.amin() >= 1 / 16 - 1e-6


def test_colour_changes_keep_the_pattern_of_a_grey_image() -> None:
    grey = images()[:, :1].expand(-1, 3, -1, -1)
    changed = recolour(grey, seeded(), all_rows(grey))
    torch.testing.assert_close(changed[:, 0], changed[:, 2])
    slope = (changed - changed.mean((2, 3), True)) / (grey - grey.mean((2, 3), True))
    assert bool(((slope > 0.49) & (slope < 1.51)).all())


# The backbone


def test_tokens_are_taken_behind_blocks_and_normed() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=12,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=64,
        patch_size=16,
    )
    vit = transformers.ViTModel(config, add_pooling_layer=False).eval()
    x = torch.randn(1, 3, 64, 64, generator=seeded())
    with torch.no_grad():
        tokens = DinoFeatures(vit)(x)
        assert [tuple(t.shape) for t in tokens] == [(1, 17, WIDTH)] * 3
        torch.testing.assert_close(tokens[-1], vit(x).last_hidden_state)
        by_hand = vit.embeddings(x)
        for block in vit.layers[:5]:
            by_hand = block(by_hand)
        torch.testing.assert_close(tokens[0], vit.layernorm(by_hand))
        logits = DinoDiscriminator(DinoFeatures(vit), WIDTH, side=64)(images(1))
    assert logits[2].shape == (1, 1)


def test_a_missing_dino_says_what_to_do(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(ModelNotFoundError, match="facebook/dino-vitb16"):
        load_dino(str(tmp_path))
