"""The arithmetic of a backbone's cost, against PyTorch's own count of the same network."""

import json

import pytest
import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmark.backbones.dit import build_dit
from benchmark.backbones.settings import Settings
from benchmark.backbones.shape import DIT_XL_2_256, shape_by_name, shape_of, shape_of_settings
from benchmark.backbones.vae import build_vae
from benchmark.pipeline.cost.measure import with_random_weights

SETTINGS = [
    Settings(image_size=16, levels=2, width=32, heads=2, depth=2, patch=2, vae_width=16, vae_layers=2),
    Settings(image_size=8, levels=2, width=16, heads=4, depth=3, patch=1, vae_width=8, latent_channels=8),
]


def counted(function):
    """FLOPs as PyTorch counts them: attention by its plain formula, as the counter knows no fused kernel of the CPU."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        function()
    return counter.get_total_flops()


def check(shape, dit, vae):
    one = torch.ones(1, dtype=torch.long)
    latent, image = torch.zeros(1, *shape.latent), torch.zeros(1, shape.channels, shape.image_size, shape.image_size)
    assert counted(lambda: dit(latent, timestep=one, class_labels=one)) == shape.forward_flops()
    assert counted(lambda: vae.encode(image)) == shape.encode_flops()
    assert counted(lambda: vae.decode(latent)) == shape.decode_flops()
    assert sum(p.numel() for p in dit.parameters()) == shape.dit_parameters()


@pytest.mark.parametrize("settings", SETTINGS)
def test_trained_here(settings, tmp_path):
    dit, vae = build_dit(settings, 7), build_vae(settings, 3)
    shape = shape_of_settings(settings, 7, 3)
    check(shape, dit, vae)
    dit.save_config(tmp_path / "transformer")
    vae.save_config(tmp_path / "vae")
    assert shape_of(tmp_path) == shape
    made = with_random_weights(shape, "cpu", settings.policy)
    assert made.image_size == shape.image_size and made.latent_shape == shape.latent
    check(shape, made.dit, made.vae)


def test_dit_xl_2_256():
    """The architecture of facebook/DiT-XL-2-256 without its weights; the paper's 118.6 G multiply-accumulates."""
    with torch.device("meta"):
        dit = DiTTransformer2DModel(16, 72, 4, 8, 28, sample_size=32, patch_size=2, num_embeds_ada_norm=1000)
        ends = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
        vae = AutoencoderKL(3, 3, *ends, (128, 256, 512, 512), 2)
        check(DIT_XL_2_256, dit, vae)
    assert DIT_XL_2_256.forward_flops() / 2e9 == pytest.approx(118.64, rel=0.001)
    assert DIT_XL_2_256.latent_bytes(1281167, half=True) == 1281167 * 2 * 4 * 32 * 32 * 2
    assert 3e9 < DIT_XL_2_256.memory(64) < 8e9


def test_known_without_files(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert shape_by_name("facebook/DiT-XL-2-256") == DIT_XL_2_256
    assert shape_by_name("somebody/other") is None
    assert json.dumps(DIT_XL_2_256.name) == '"dit 28x1152/2 4x32x32, vae 128-256-512-512 3x256px"'
