"""A tiny data set, tiny settings, and tiny folders in the real format."""

import numpy as np
import torch
from diffusers import AutoencoderKL, DiTPipeline, DiTTransformer2DModel

from benchmark.backbones.dit import make_scheduler
from benchmark.core.store import digest_of
from benchmark.data.base import ArraySplit, Dataset

TINY = {
    "image_size": 8,
    "levels": 2,
    "patch": 2,
    "vae_width": 8,
    "vae_steps": 8,
    "vae_batch": 8,
    "width": 16,
    "heads": 2,
    "depth": 2,
    "dit_steps": 30,
    "dit_batch": 8,
}


def make_dataset(classes=("a", "b", "c"), name="toy", each=25):
    """Bright squares whose place is their class, on noise."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(classes)), each)
    images = rng.integers(0, 60, (len(labels), 8, 8), dtype=np.uint8)
    for image, label in zip(images, labels):
        image[:, 2 * label : 2 * label + 2] = 220
    split = ArraySplit(images, labels)
    return Dataset(
        name, tuple(classes), tuple(classes), 8, 1, split, split, digest_of([name, list(classes), each]), (0.3,), (0.3,)
    )


def write_folder(path, *, classes=3, channels=1, learned_sigma=False, seed=0):
    """A DiTPipeline with random weights, as diffusers itself saves it."""
    torch.manual_seed(seed)
    vae = AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        sample_size=8,
        scaling_factor=0.5,
    )
    dit = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8 if learned_sigma else 4,
        num_layers=2,
        sample_size=4,
        num_embeds_ada_norm=classes,
    )
    DiTPipeline(dit, vae, make_scheduler()).save_pretrained(path)
    return path


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""
