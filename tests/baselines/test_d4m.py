"""D4M: prototypes as the authors make them, img2img, and Stable Diffusion from a folder in the real format."""

import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from baselines.d4m import generators
from baselines.d4m.generators import img2img, missing_pipeline
from baselines.d4m.method import D4M
from baselines.d4m.prototypes import prototypes
from benchmark.core.errors import DataError, MissingError
from benchmark.core.store import Store
from benchmark.methods import Task, make_params
from benchmark.testing.bench import CLASSES, Bench

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("d4m"))


def test_prototype_of_one_cluster_is_the_running_mean():
    latents = torch.randn(30, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(prototypes(latents, 1, 1, seed=0)[0], latents.mean(0), rtol=1e-4, atol=1e-5)


def test_prototypes_of_separate_clusters_are_their_means():
    offsets = torch.tensor([-20.0, 0.0, 20.0]).view(3, 1, 1, 1)
    latents = torch.randn(60, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * 0.1
    latents = latents + offsets[torch.arange(60) % 3]
    found = prototypes(latents, 3, 30, seed=0)
    order = found.flatten(1).mean(1).argsort()
    torch.testing.assert_close(found[order].flatten(1).mean(1), offsets.flatten(), atol=0.1, rtol=0)


def test_prototypes_figures_of_the_authors_script():
    """``gen_prototype.py`` run on the same latents: 83 latents, 4 clusters, km_expand 10 (1.2e-7 apart)."""
    draw = torch.Generator().manual_seed(0)
    for n in (30, 60, 75):
        torch.randn(n, 4, 4, 4, generator=draw)
    found = prototypes(torch.randn(83, 4, 4, 4, generator=draw), 4, 40, seed=0)
    np.testing.assert_allclose(found.flatten(1).norm(dim=1), [2.22207, 4.11434, 2.83032, 1.66348], rtol=1e-4)


def test_a_remainder_smaller_than_the_clusters_is_left_out():
    latents = torch.zeros(11, 1, 1, 1)
    latents[10] = 1000.0
    assert prototypes(latents, 2, 5, seed=0).abs().max() == 0


class LinearEps:
    """A backbone whose noise prediction is known: eps(x) = a * x."""

    device = "cpu"

    def __init__(self, a):
        self.a, self.seen = a, []
        self.scheduler = DDIMScheduler(beta_schedule="linear", clip_sample=False, set_alpha_to_one=True)

    def eps(self, x, t, classes, guidance):
        self.seen.append(t)
        return self.a * x


def test_img2img_starts_at_the_strength_and_follows_ddim():
    backbone = LinearEps(0.3)
    start = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    draws = [torch.Generator().manual_seed(i) for i in (5, 6)]
    made = img2img(backbone, start, torch.zeros(2, dtype=torch.long), 0.7, 1.0, 10, draws)
    assert backbone.seen == [600, 500, 400, 300, 200, 100, 0]  # 7 of 10 leading-spaced levels
    alpha = backbone.scheduler.alphas_cumprod.double()
    noise = torch.stack([torch.randn(1, 3, 3, generator=torch.Generator().manual_seed(i)) for i in (5, 6)])
    x = alpha[600].sqrt() * start + (1 - alpha[600]).sqrt() * noise
    for t in backbone.seen:
        before = alpha[t - 100] if t else torch.tensor(1.0)
        clean = (x - (1 - alpha[t]).sqrt() * 0.3 * x) / alpha[t].sqrt()
        x = before.sqrt() * clean + (1 - before).sqrt() * 0.3 * x
    torch.testing.assert_close(made.double(), x.double(), rtol=1e-4, atol=1e-4)


def test_strength_zero_returns_the_prototypes():
    start = torch.randn(2, 1, 3, 3)
    draws = [torch.Generator() for _ in range(2)]
    assert torch.equal(img2img(LinearEps(0.1), start, torch.zeros(2).long(), 0.0, 1.0, 10, draws), start)


def test_prototypes_are_cached_apart_from_sampling(bench, monkeypatch):
    bench.images("d4m", 2, store="cached")
    monkeypatch.setattr(generators.DiTGenerator, "latents", None)  # would fail if it were asked again
    method, task, units = bench.task("d4m", 2, store="cached", guidance=2.0)
    method.distill(task, units[0])


# -- Stable Diffusion ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A tiny random Stable Diffusion, saved as diffusers saves the real one."""
    transformers = pytest.importorskip("transformers")
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    root = tmp_path_factory.mktemp("sd")
    words = ["<|startoftext|>", "<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz0123456789,", *[f"{c}</w>" for c in CHARS]]
    (root / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (root / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(str(root / "vocab.json"), str(root / "merges.txt"), model_max_length=16)
    torch.manual_seed(0)
    text = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=16, bos_token_id=0, eos_token_id=1, pad_token_id=1,
        )
    )  # fmt: skip
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, sample_size=8, in_channels=4, out_channels=4, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, attention_head_dim=2,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4,
    )  # fmt: skip
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    StableDiffusionPipeline(
        vae, text, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    ).save_pretrained(root / "pipeline")
    return root / "pipeline"


CHARS = "abcdefghijklmnopqrstuvwxyz0123456789,"


def sd_images(bench, pipeline, ipc, store, turn=1):
    method = D4M(make_params(D4M, "d4m", "toy", {"model": str(pipeline), "steps": 4}))
    assert not method.why_not(bench.dataset, ipc) and not method.needs().backbone
    task = Task("d4m", bench.dataset, ipc, 0, Store(bench.root / store))
    return {cell: x for u in method.units(task)[::turn] for cell, x in zip(u.cells, method.distill(task, u))}


def test_stable_diffusion_from_a_folder_makes_the_set(bench, pipeline):
    made = sd_images(bench, pipeline, 2, "sd")
    assert len(made) == 2 * CLASSES and all(x.shape == (1, 8, 8) and x.dtype == torch.uint8 for x in made.values())
    again = sd_images(bench, pipeline, 2, "sd-again", turn=-1)
    assert all(torch.equal(made[c], again[c]) for c in made)


def test_the_weights_are_part_of_the_key(bench, pipeline, tmp_path):
    import shutil

    other = shutil.copytree(pipeline, tmp_path / "other")
    (other / "unet" / "config.json").write_text((other / "unet" / "config.json").read_text() + "\n")
    keys = [D4M(D4M.Params(model=str(m))).inputs(bench.dataset)["model"] for m in (pipeline, other)]
    assert keys[0] != keys[1] and not D4M(D4M.Params()).inputs(bench.dataset)


def test_class_names_and_the_papers_negative_prompt_are_the_prompts(bench, pipeline, monkeypatch):
    from diffusers import StableDiffusionImg2ImgPipeline

    seen, real = [], StableDiffusionImg2ImgPipeline.__call__

    def spy(self, **options):
        seen.append(options)
        return real(self, **options)

    monkeypatch.setattr(StableDiffusionImg2ImgPipeline, "__call__", spy)
    sd_images(bench, pipeline, 1, "sd-prompts")
    assert [o["prompt"] for o in seen] == list(bench.dataset.classes)
    assert {o["negative_prompt"] for o in seen} == {"cartoon, anime, painting"}
    assert {(o["strength"], o["guidance_scale"]) for o in seen} == {(0.7, 8.0)}


def test_what_is_missing_is_said_before_any_work(bench, pipeline, tmp_path, monkeypatch):
    for model, said in (
        (str(tmp_path), "no model_index.json"),
        ("nobody/no-such-model", "hf download nobody/no-such-model"),
        ("/no/such/folder", "neither a folder nor a hub id"),
    ):
        method = D4M(make_params(D4M, "d4m", "toy", {"model": model}))
        with pytest.raises(MissingError, match=said):
            method.inputs(bench.dataset)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "ddbench[sd]" in missing_pipeline(str(pipeline))


def test_a_damaged_pipeline_is_named(bench, pipeline, tmp_path):
    import shutil

    for spoil in ("unet/config.json", "vae/diffusion_pytorch_model.safetensors"):
        broken = shutil.copytree(pipeline, tmp_path / spoil.partition("/")[0])
        (broken / spoil).write_text("{")
        with pytest.raises(DataError, match="cannot load"):
            sd_images(bench, broken, 1, "sd-broken")


def test_a_pipeline_that_would_run_code_of_its_own_is_refused(bench, pipeline, tmp_path):
    """A pickle in the place of the safetensors, and parts from modules that diffusers would import."""
    import shutil

    pickled = shutil.copytree(pipeline, tmp_path / "pickled")
    (weights,) = (pickled / "unet").glob("*.safetensors")
    weights.rename(weights.with_suffix(".bin"))
    index = json.loads((pipeline / "model_index.json").read_text())
    foreign = shutil.copytree(pipeline, tmp_path / "foreign")
    (foreign / "model_index.json").write_text(json.dumps(index | {"scheduler": ["this", "Zen"]}))
    listed = shutil.copytree(pipeline, tmp_path / "listed")
    (listed / "model_index.json").write_text("[1]")
    for folder, said in ((pickled, "no safetensors in unet/"), (foreign, "from 'this'"), (listed, "cannot be read")):
        method = D4M(make_params(D4M, "d4m", "toy", {"model": str(folder)}))
        with pytest.raises(DataError, match=said):
            method.inputs(bench.dataset)
