"""What is missing is said at once, and early."""

import json
import resource
import subprocess
import sys

import pytest
from imagenet_tree import build

from benchmark.core.cost import available_memory
from benchmark.core.errors import MissingError, UsageError
from benchmark.data.imagenet import IMAGEWOOF
from benchmark.pipeline import requirements as module
from benchmark.pipeline.execution import Execution
from benchmark.pipeline.request import Request
from benchmark.pipeline.requirements import check_requirements, requirements
from benchmark.plugins import DatasetInfo, ExecutorInfo, registry

GPUS = module.gpus


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch):
    """A machine without weights and without a GPU."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(module, "gpus", lambda: [])


def backbone(folder, size):
    for part in ("transformer", "vae", "scheduler"):
        (folder / part).mkdir(parents=True)
    dit = {"_class_name": "DiTTransformer2DModel", "num_embeds_ada_norm": 1000, "sample_size": 32, "in_channels": 4}
    dit |= {"num_attention_heads": 16, "attention_head_dim": 72, "num_layers": 28, "patch_size": 2, "out_channels": 8}
    (folder / "transformer" / "config.json").write_text(json.dumps(dit))
    vae = {"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512], "in_channels": 3}
    (folder / "vae" / "config.json").write_text(json.dumps(vae | {"layers_per_block": 2}))
    (folder / "scheduler" / "scheduler_config.json").write_text("{}")
    for part, whole in (("vae", 1000), ("transformer", size)):
        with open(folder / part / "diffusion_pytorch_model.safetensors", "wb") as file:
            header = b'{"w": {"dtype": "U8", "shape": [%d], "data_offsets": [0, %d]}}' % (2 * (whole - 200,))
            header = header.ljust(192)
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(whole)  # sparse
    return str(folder)


def check(dataset, root=None, backbone="", methods=(), *, device="auto", options=(), students=False, **more):
    request = Request(dataset, methods, backbone=backbone, data_root=root, dataset_options=dict(options), **more)
    check_requirements(request, device, students=students or "protocols" in more)


def missing(*arguments, **options):
    with pytest.raises(MissingError) as error:
        check(*arguments, **options)
    assert error.value.exit_code == 3
    return str(error.value)


def test_imagenet_with_nothing_lists_everything():
    text = missing("imagenet1k", None, "", ("d3hr",), protocols=("rded-paper",))
    assert text.startswith("4 things are missing for 'imagenet1k'")
    for part in ("1. data", "2. backbone", "3. GPU", "4. teacher"):
        assert part in text
    for command in ("DATA/imagenet1k", "hf download facebook/DiT-XL-2-256", "--device cpu", "resnet18-f37072fd.pth"):
        assert command in text
    assert "GPU" not in missing("imagenet1k", None, "", ("d3hr",), device="cpu")
    assert "backbone" not in missing("imagenet1k", None, "", ("random",))


def test_what_is_there_is_not_asked_for(tmp_path, monkeypatch):
    build(tmp_path / "imagewoof2", wnids=IMAGEWOOF, train=1, odd=False)
    small, large = backbone(tmp_path / "small", 1000), backbone(tmp_path / "large", 600 << 20)
    assert "backbone" in missing("imagewoof", str(tmp_path), "", ("d3hr",))
    check("imagewoof", str(tmp_path), small, ("d3hr",))  # a small DiT needs no GPU
    assert "1. GPU" in missing("imagewoof", str(tmp_path), large, ("d3hr",))
    check("imagewoof", str(tmp_path), large, ("d3hr",), device="cpu")
    monkeypatch.setattr(module, "gpus", lambda: [("card", 2 << 30, 80 << 30)])
    text = missing("imagewoof", str(tmp_path), large, ("d3hr",))
    assert "2.1 of 85.9 GB free; 64 latents together take 5.8 GB" in text and "invert_batch" in text
    monkeypatch.setattr(module, "gpus", lambda: [("card", 70 << 30, 80 << 30)])
    check("imagewoof", str(tmp_path), large, ("d3hr",))
    check("imagewoof", str(tmp_path), "small", ("d3hr",))  # a preset: trained here
    check("digits", None, "", ("d3hr",), protocols=("hard",))
    check("digits@val", None, "", ("d3hr", "random"), protocols=("soft", "hard"))


def test_teachers(tmp_path):
    mine = tmp_path / "mine.safetensors"
    for name in (str(mine), f"convnet3_bn@{mine}"):
        mine.unlink(missing_ok=True)
        assert f"no file {mine}" in missing("digits", teacher=name)
        mine.write_bytes(b"x")
        check("digits", teacher=name)
    assert "know ImageNet-1K's classes" in missing("digits", teacher="torchvision:mobilenet_v2")
    assert "weights of torchvision:mobilenet_v2 are not in" in missing("imagenette", teacher="torchvision:mobilenet_v2")
    weights = tmp_path / "torch" / "hub" / "checkpoints" / "mobilenet_v2-7ebf99e0.pth"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"x")
    assert "mobilenet_v2" not in missing("imagenette", teacher="torchvision:mobilenet_v2+resnet18")


def test_imagefolder_and_download(tmp_path):
    assert "no folder" in missing(f"imagefolder:{tmp_path / 'pets'}")
    assert "1. data" in missing("cifar10", str(tmp_path))
    check("cifar10", str(tmp_path), options={"download": True})
    assert "1. data" in missing("cifar10", None, options={"download": True})
    assert "1. data" in missing("imagenet1k", str(tmp_path), options={"download": True})


def test_memory_of_a_machine_without_a_gpu(tmp_path, monkeypatch):
    build(tmp_path / "imagewoof2", wnids=IMAGEWOOF, train=1, odd=False)
    small = backbone(tmp_path / "small", 1000)
    assert available_memory() > 100 << 20
    monkeypatch.setattr(module, "available_memory", lambda: 4 << 30)
    text = missing("imagewoof", str(tmp_path), small, ("d3hr",))
    assert "1. memory: a worker takes about 6.7 GB, 4.3 GB are free" in text
    monkeypatch.setattr(module, "available_memory", lambda: 8 << 30)
    check("imagewoof", str(tmp_path), small, ("d3hr",))


def test_half_of_the_parquet_files_is_named(tmp_path):
    (tmp_path / "imagenet-1k" / "data").mkdir(parents=True)
    (tmp_path / "imagenet-1k" / "data" / "train-00000-of-00294.parquet").write_bytes(b"PAR1")
    text = missing("imagenet1k", str(tmp_path), "", ("random",))
    assert f"{tmp_path / 'imagenet-1k' / 'data'} holds parquet files" in text and "get both" in text


def test_unknown_dataset():
    with pytest.raises(UsageError, match="did you mean 'imagenette'"):
        requirements(Request("imagenett", ()))


def test_without_torch_and_within_five_seconds(tmp_path):
    code = (
        "import sys\n"
        "from benchmark.pipeline.request import Request\n"
        "from benchmark.pipeline.requirements import check_requirements\n"
        "try:\n    check_requirements(Request('imagenet1k', (), protocols=('rded-paper',)))\n"
        "except Exception as error:\n    print(error.exit_code, 'torch' in sys.modules)\n"
    )
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["3", "False"], done.stderr
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # of processor time: tests share the machine
    assert used.ru_utime + used.ru_stime - began.ru_utime - began.ru_stime < 5


def test_gpus_are_those_of_nvidia_smi_that_are_visible(tmp_path, monkeypatch):
    """torch would take a context on each of them."""
    asked = tmp_path / "asked"
    command = tmp_path / "nvidia-smi"
    command.write_text(f'#!/bin/sh\necho "$@" > {asked}\necho "NVIDIA H100, 80000, 81559"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("torch.cuda.is_available", lambda: 1 / 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert GPUS() == [("NVIDIA H100", 80000 << 20, 81559 << 20)] and "--id=2,3" in asked.read_text()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert GPUS() and "--id" not in asked.read_text()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert GPUS() == []


def test_a_method_is_asked_with_its_parameters(tmp_path):
    """D4M with Stable Diffusion needs no DiT; a method's own batch is what memory is predicted from."""
    text = missing("imagenet1k", None, "", ("d4m",), sets={"model": str(tmp_path)})
    assert "1. data" in text and "backbone" not in text and "DiT-XL" not in text and "GPU" not in text
    assert "DiT-XL" in missing("imagenet1k", None, "", ("d4m",))
    assert "teacher" in missing("imagenette", None, "", ("herding",))
    assert "teacher" not in missing("imagenette", None, "", ("herding",), sets={"features": "pixels"})


def test_a_plug_in_joins_in(tmp_path, monkeypatch):
    """Its dataset is looked for, its method's memory predicted, its executor's workers counted; no table names them."""

    def find(name, root):
        raise MissingError(f"no {name}", where="its page", hint="buy it")

    monkeypatch.setattr(module, "find_it", find, raising=False)
    info = DatasetInfo("moons", "", "", image_size=8, find=f"{module.__name__}:find_it", imagenet_classes=True)
    monkeypatch.setitem(registry().items["dataset"], "moons", info)
    text = missing("moons@val", methods=("dit",))
    assert "1. data: no moons; its page" in text and "next: buy it" in text and "DiT-XL-2-256" in text
    monkeypatch.setattr(module, "three", lambda address, device: 3, raising=False)
    engine = ExecutorInfo("mine", "", "", slots=f"{module.__name__}:three")
    monkeypatch.setitem(registry().items["executor"], "mine", engine)
    assert Execution(tmp_path, executor="mine").count() == 3
    small = backbone(tmp_path / "small", 1000)
    monkeypatch.setattr(module, "available_memory", lambda: 4 << 30)
    need = {batch: missing("moons", None, small, ("d3hr",), sets={"invert_batch": batch}) for batch in (64, 128)}
    assert need[64] != need[128] and all("--set invert_batch=8" in text for text in need.values())


def test_auto_precision_is_half_where_a_gpu_runs_a_large_backbone():
    from benchmark.pipeline.request import Request
    from benchmark.pipeline.requirements import default_precision

    large = "nobody/a-large-backbone"  # a hub id that is not here: a pretrained one
    assert default_precision(Request("imagenet1k", ("d3hr", "random")), "auto") == "bf16"
    assert default_precision(Request("digits", ("dit",), backbone=large), "cuda") == "bf16"
    assert default_precision(Request("imagenet1k", ("d3hr",)), "cpu") == "fp32"
    assert default_precision(Request("imagenet1k", ("random",)), "cuda") == "fp32"
    assert default_precision(Request("digits", ("d3hr",)), "cuda") == "fp32"
