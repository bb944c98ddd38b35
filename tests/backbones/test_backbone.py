"""A loaded backbone: encoding, guided noise prediction, decoding, sampling, latents in the store."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toy_backbones import make_dataset, write_folder

from benchmark.backbones import class_latents, external_key, load_backbone, sample
from benchmark.core.compute import Precision, generator
from benchmark.core.errors import JobError, MissingError, UsageError
from benchmark.methods import Task

FP32 = Precision()


def load(folder, dataset, precision=FP32):
    return load_backbone(folder, dataset, "cpu", precision, "k" * 64)


def test_attributes_of_a_folder(folder, toy):
    backbone = load(folder, toy)
    assert (backbone.image_size, backbone.latent_shape, backbone.num_classes) == (8, (4, 4, 4), 3)
    assert backbone.null_class == 3 and not backbone.learned_sigma
    assert backbone.class_map.tolist() == [0, 1, 2]


@pytest.mark.parametrize("learned_sigma", [False, True])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_eps_is_diffusers_output_with_guidance(tmp_path, toy, learned_sigma, guidance):
    backbone = load(write_folder(tmp_path / "b", learned_sigma=learned_sigma), toy)
    assert backbone.learned_sigma == learned_sigma
    latents, classes = torch.randn(5, 4, 4, 4), torch.tensor([0, 1, 2, 0, 1])
    levels = torch.full((5,), 300)
    with torch.no_grad():
        cond = backbone.dit(latents, timestep=levels, class_labels=classes).sample[:, :4]
        uncond = backbone.dit(latents, timestep=levels, class_labels=torch.full((5,), 3)).sample[:, :4]
    expected = cond if guidance == 1 else (1 - guidance) * uncond + guidance * cond
    found = backbone.eps(latents, 300, classes, guidance)
    assert found.shape == (5, 4, 4, 4)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_batch_equals_single(folder, toy, guidance):
    backbone = load(folder, toy)
    latents, classes = torch.randn(6, 4, 4, 4), torch.tensor([0, 1, 2, 2, 1, 0])
    together = backbone.eps(latents, 500, classes, guidance)
    alone = torch.cat([backbone.eps(latents[i : i + 1], 500, classes[i : i + 1], guidance) for i in range(6)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_encode_is_posterior_sample_times_scale(folder, toy):
    backbone = load(folder, toy)
    images = toy.train.images(range(3))
    with torch.no_grad():
        found = backbone.vae.encode(images.float() / 127.5 - 1).latent_dist
    torch.testing.assert_close(backbone.encode(images, sample=False), 0.5 * found.mean)
    noise = torch.randn(found.mean.shape, generator=torch.Generator().manual_seed(7))
    drawn = backbone.encode(images, torch.Generator().manual_seed(7))
    torch.testing.assert_close(drawn, 0.5 * (found.mean + found.std * noise))


def test_images_of_other_sizes_and_channels(tmp_path, toy):
    backbone = load(write_folder(tmp_path / "rgb", channels=3), toy)
    assert backbone.encode(torch.zeros(2, 1, 13, 13, dtype=torch.uint8)).shape == (2, 4, 4, 4)
    decoded = backbone.decode(torch.randn(2, 4, 4, 4), 11, 1)
    assert decoded.shape == (2, 1, 11, 11) and decoded.dtype == torch.uint8


def test_decode_inverts_the_scale(folder, toy):
    backbone = load(folder, toy)
    latents = torch.randn(2, 4, 4, 4)
    with torch.no_grad():
        expected = ((backbone.vae.decode(latents / 0.5).sample + 1) * 127.5).round().clamp(0, 255)
    assert torch.equal(backbone.decode(latents, 8, 1).float(), expected)


def test_sampling_is_plain_ddim_and_independent_of_the_batch(folder, toy):
    backbone = load(folder, toy)
    classes = torch.tensor([0, 1, 2])
    together = sample(backbone, classes, 5, 3.0, [generator("s", i) for i in range(3)])
    alone = sample(backbone, classes[1:2], 5, 3.0, [generator("s", 1)])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-3, atol=1e-4)
    # by the formula of DDIM (arXiv 2010.02502, eq. 12 with sigma 0), leading spacing
    latents = torch.randn(1, 4, 4, 4, generator=generator("s", 1))
    alphas = backbone.scheduler.alphas_cumprod
    for t in (800, 600, 400, 200, 0):
        now, then = alphas[t], alphas[t - 200] if t >= 200 else torch.tensor(1.0)
        noise = backbone.eps(latents, t, classes[1:2], 3.0)
        clean = (latents - (1 - now).sqrt() * noise) / now.sqrt()
        latents = then.sqrt() * clean + (1 - then).sqrt() * noise
    torch.testing.assert_close(alone, latents, rtol=1e-3, atol=1e-4)


def test_diffusers_pipeline_reads_the_folder(folder):
    from diffusers import DiTPipeline

    pipeline = DiTPipeline.from_pretrained(folder, low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline([0, 1], guidance_scale=1, num_inference_steps=2, output_type="np").images
    assert images.shape == (2, 8, 8, 1)


def test_files_of_the_hub_load(folder, toy):
    """facebook/DiT-XL-2-256: another class name, fields that DiT does not have, weights as .bin, no scaling factor."""
    file = folder / "transformer" / "config.json"
    extra = {"cross_attention_dim": None, "num_vector_embeds": None, "only_cross_attention": False}
    config = json.loads(file.read_text()) | {"_class_name": "Transformer2DModel", "use_linear_projection": False}
    file.write_text(json.dumps(config | extra))
    latents = torch.randn(1, 4, 4, 4)
    before = load(folder, toy).eps(latents, 10, torch.tensor([1]), 2.0)
    for part in ("transformer", "vae"):
        weights = folder / part / "diffusion_pytorch_model.safetensors"
        torch.save(load_file(weights), weights.with_suffix(".bin"))
        weights.unlink()
    config = json.loads((folder / "vae" / "config.json").read_text())
    del config["scaling_factor"]
    (folder / "vae" / "config.json").write_text(json.dumps(config))
    backbone = load(folder, toy)
    assert torch.equal(backbone.eps(latents, 10, torch.tensor([1]), 2.0), before)
    assert backbone.scale == 0.18215


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_half_precision_weights(folder, toy, name):
    dtype = {"bf16": "bfloat16", "fp16": "float16"}[name]
    backbone = load(folder, toy, Precision(dtype=dtype))
    noise = backbone.eps(torch.randn(2, 4, 4, 4), 100, torch.tensor([0, 1]), 4.0)
    assert noise.dtype == torch.float32
    assert backbone.decode(backbone.encode(toy.train.images([0])), 8, 1).shape == (1, 1, 8, 8)


def test_class_latents_do_not_depend_on_chunks(folder, toy, store):
    backbone = load(folder, toy)
    task = Task("m", toy, 1, 0, store, load_backbone=lambda: backbone, backbone_key="k")
    small = torch.cat(list(class_latents(task, 1, True, chunk=4)))
    large = torch.cat(list(class_latents(task, 1, True, chunk=64)))
    assert torch.equal(small, large) and small.shape == (25, 4, 4, 4)
    mean = torch.cat(list(class_latents(task, 1, False)))
    expected = backbone.encode(toy.train.images(toy.train.by_class[1]), sample=False)
    torch.testing.assert_close(mean, expected)
    drawn = (small - mean).abs().mean()
    assert drawn > 0
    draw = torch.randn(mean[3].shape, generator=generator("posterior", 1, 3))
    files = list((store.root / "artifacts" / "backbone.latents").glob("*/*.safetensors"))
    assert len(files) == 1  # encoded once for all four passes
    torch.testing.assert_close(small[3], mean[3] + load_file(files[0])["std"][3] * draw)


def test_key_follows_the_content(tmp_path, monkeypatch):
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    one, same = write_folder(tmp_path / "1"), write_folder(tmp_path / "2")
    other = write_folder(tmp_path / "3", seed=1)
    assert external_key(one) == external_key(same) != external_key(other)


# -- errors -------------------------------------------------------------------------------------------------------


def test_folder_that_is_none(tmp_path, toy):
    with pytest.raises(UsageError, match="transformer/config.json is missing"):
        load(tmp_path, toy)
    with pytest.raises(MissingError, match="no backbone folder"):
        load(tmp_path / "nowhere" / "at" / "all", toy)


def test_folder_of_another_model(folder, toy):
    file = folder / "transformer" / "config.json"
    file.write_text(json.dumps({"_class_name": "UNet2DModel"}))
    with pytest.raises(UsageError, match="UNet2DModel"):
        load(folder, toy)


def test_folder_without_weights(folder, toy):
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UsageError, match="vae/ has no weights"):
        load(folder, toy)


@pytest.mark.parametrize("holding", ["fp16", "shards", "links of the hub's cache"])
def test_ways_to_hold_weights_load(folder, toy, tmp_path, holding):
    latents, asked = torch.randn(1, 4, 4, 4), (10, torch.tensor([1]), 2.0)
    wanted = load(folder, toy).eps(latents, *asked)
    dit = load(folder, toy).dit
    for file in (folder / "transformer").glob("diffusion_pytorch_model*"):
        if holding == "links of the hub's cache":
            blob = tmp_path / f"{file.name}.blob"
            file.rename(blob)
            file.symlink_to(blob)
        else:
            file.unlink()
    if holding == "fp16":
        dit.half().save_pretrained(folder / "transformer")
    if holding == "shards":
        dit.save_pretrained(folder / "transformer", max_shard_size="10KB")
        assert len(list((folder / "transformer").glob("*.safetensors"))) > 1
    found = load(folder, toy).eps(latents, *asked)
    assert torch.allclose(found, wanted, atol=0.02 if holding == "fp16" else 0)


def test_weights_that_would_not_load_are_known_before(folder):
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    whole = file.read_bytes()
    for content in (whole[:-1], whole[:1000], b"x", b""):
        file.write_bytes(content)
        with pytest.raises(UsageError, match="is cut off or changed"):
            external_key(folder)
    file.write_bytes(whole)
    variant = file.with_name("diffusion_pytorch_model.fp16.safetensors")
    file.rename(variant)
    with pytest.raises(UsageError, match=f"rename {variant.name} to {file.name}"):
        external_key(folder)
    variant.rename(file)
    assert external_key(folder)


def test_folder_with_truncated_weights(folder, toy):
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UsageError, match="not a backbone folder"):
        load(folder, toy)


def test_class_counts_that_differ(folder):
    with pytest.raises(UsageError, match="has 3 classes, toy has 2") as error:
        load(folder, make_dataset(("a", "b")))
    assert "finetune" in error.value.hint


def test_same_count_but_other_classes(folder, toy):
    (folder / "ddbench.json").write_text(json.dumps({"dataset": "pets", "classes": ["x", "y", "z"]}))
    with pytest.raises(UsageError, match="trained on pets"):
        load(folder, toy)


def test_guidance_on_an_unconditional_backbone(folder, toy):
    (folder / "ddbench.json").write_text(json.dumps({"label_dropout": 0.0}))
    backbone = load(folder, toy)
    assert backbone.null_class is None
    latents, classes = torch.randn(1, 4, 4, 4), torch.tensor([0])
    assert backbone.eps(latents, 10, classes, 1.0).shape == latents.shape
    with pytest.raises(UsageError, match="label dropout"):
        backbone.eps(latents, 10, classes, 4.0)


def test_hub_id_that_is_not_cached(toy, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingError, match="neither a folder here nor in the Hugging Face cache") as error:
        load("somebody/not-there-256", toy)
    assert "hf download somebody/not-there-256" in error.value.hint


def test_nan_names_layer_and_class(folder, toy):
    backbone = load(folder, toy)
    table = backbone.dit.transformer_blocks[1].norm1.emb.class_embedder.embedding_table.weight
    table.data[2] = np.nan
    latents = torch.randn(3, 4, 4, 4)
    with pytest.raises(JobError, match=r"transformer_blocks\.1.*classes \[2\]"):
        backbone.eps(latents, 10, torch.tensor([0, 1, 2]), 1.0)
    with pytest.raises(JobError, match="NaN"):
        backbone.decode(latents * np.nan, 8, 1)


def test_subset_of_imagenet_maps_classes(tmp_path):
    import dataclasses

    dataset = dataclasses.replace(make_dataset(("x", "y")), backbone_classes=(4, 1))
    assert load(write_folder(tmp_path / "b", classes=5), dataset).class_map.tolist() == [4, 1]


def test_padding_instead_of_resizing(folder, toy):
    (folder / "ddbench.json").write_text(json.dumps({"padding": 1}))
    backbone = load(folder, toy)
    assert (backbone.image_size, backbone.content_size) == (8, 6)
    images = torch.randint(0, 256, (2, 1, 6, 6), dtype=torch.uint8)
    framed = torch.nn.functional.pad(images.float(), (1, 1, 1, 1), mode="replicate")
    with torch.no_grad():
        expected = 0.5 * backbone.vae.encode(framed / 127.5 - 1).latent_dist.mean
        decoded = (backbone.vae.decode(expected / 0.5).sample * 127.5 + 127.5).round().clamp(0, 255)
    torch.testing.assert_close(backbone.encode(images, sample=False), expected)
    assert torch.equal(backbone.decode(expected, 6, 1).float(), decoded[:, :, 1:7, 1:7])
