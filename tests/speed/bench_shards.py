"""One ImageNet-1K in folders, parquet files and tars: equal digests and sets; decode rate beside a bare Pillow loop.

``python tests/speed/bench_shards.py [--help]`` prints figures as JSON. It makes a synthetic tree of 1000 classes with
small images, whose three forms must give one digest, one set of `random` and one of D3HR (a tiny random backbone); then
photographs' sizes (500 x 375 JPEGs), which are read at random positions and resized to 256 px. The bare loop is two
processes, each `Image.open`, `convert`, `resize`, `crop` on files; ours is one process with its threads. Both decode
the same images in the same order, by turns, and the fastest of the turns counts.

Measured on a busy 2-core AMD EPYC machine (``--part rates --images 300 --turns 3``, 2026-11-27): the bare loop 30.0
images a second, folders 29.5, parquet 31.9, tars 30.0: 0.98, 1.06 and 1.00 times; no memory added.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("d3hr_plugin", "data", "")]

FORMS = ("folders", "parquet", "tars")
SIZE = 256


def sets_of(dataset, folder: Path) -> dict[str, str]:
    """SHA-256 of the images that `random` and D3HR make of the dataset at IPC 1, seed 0."""
    from tiny_backbone import tiny_backbone

    from benchmark.core.store import Store
    from benchmark.methods import Task, make_params
    from benchmark.plugins import registry

    count, found = len(dataset.classes), {}
    for name, given in (("random", {}), ("d3hr", {"steps": 10, "depth": 6, "m": 20})):
        cls = registry().get("method", name).load()
        task = Task(name, dataset.without_test(), 1, 0, Store(folder / name))
        backbone = tiny_backbone(count, side=8, channels=3)
        task.load_backbone, task.backbone_key = (lambda made=backbone: made), backbone.key
        method, sha = cls(make_params(cls, name, dataset.name, given)), hashlib.sha256()
        for unit in method.units(task):
            sha.update(np.ascontiguousarray(method.distill(task, unit).numpy()).tobytes())
        found[name] = sha.hexdigest()
    return found


def equality(work: Path) -> dict:
    """Digests and sets of a synthetic ImageNet-1K in its three forms."""
    import test_packed
    from imagenet_tree import write_jpeg

    from benchmark.data import load_dataset
    from benchmark.data.wordnet import imagenet_wnids

    random, base = np.random.default_rng(0), work / "folders" / "imagenet1k"
    for label, wnid in enumerate(imagenet_wnids()):
        names = [("train", f"{wnid}_{i}") for i in (9, 10, 11)] + [("val", f"ILSVRC2012_val_{label + 1:08d}")]
        for part, name in names:
            (base / part / wnid).mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (12, 10, 3), dtype=np.uint8)
            write_jpeg(base / part / wnid / f"{name}.JPEG", Image.fromarray(pixels))
    test_packed.hugging_face(base, work / "parquet" / "imagenet1k")
    test_packed.webdataset(base, work / "tars" / "imagenet1k")
    found, seconds = {}, {}
    for form in FORMS:
        began = time.perf_counter()
        dataset = load_dataset("imagenet1k", str(work / form), image_size=8)
        found[form] = {"digest": dataset.digest, **sets_of(dataset, work / "stores" / form)}
        seconds[form] = round(time.perf_counter() - began, 1)
    assert found["folders"] == found["parquet"] == found["tars"], found
    return {"classes": 1000, "images": 4000, **found["folders"], "seconds": seconds}


def bare(files: list[str]) -> int:
    """A Pillow loop: decode, resize the shorter side to 256, crop the centre; a checksum of the pixels."""
    total = 0
    for file in files:
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        scale = SIZE / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        left, top = (image.width - SIZE) // 2, (image.height - SIZE) // 2
        total += int(np.asarray(image.crop((left, top, left + SIZE, top + SIZE))).sum())
    return total


def rates(work: Path, count: int, turns: int, processes: int) -> dict:
    """Images a second of the bare loop and of each form, and the memory that reading them adds."""
    import test_packed

    from benchmark.data import load_dataset

    random, base = np.random.default_rng(1), work / "tree"
    for i in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        noise = random.normal(0, 12, (375, 500, 3))
        pixels = np.clip(np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC)) + noise, 0, 255)
        file = base / ("val" if i < 10 else "train") / f"c{i % 10}" / f"{i:06d}.JPEG"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(file, quality=90)
    rows = {part: [(f.parent.name, f.name, f.read_bytes()) for f in sorted((base / part).glob("*/*"))] for part in
            ("train", "val")}  # fmt: skip
    for part, ours in (("train", "train"), ("val", "validation")):
        labels = [int(name[1:]) for name, _, _ in rows[part]]
        target = work / "parquet" / f"{ours}-00000-of-00001.parquet"
        test_packed.write_parquet(target, [r[2] for r in rows[part]], labels, classes=[f"c{i}" for i in range(10)])
        (work / "tars").mkdir(exist_ok=True)
        with test_packed.tarfile.open(work / "tars" / f"x-{ours}-0000.tar", "w") as tar:
            for (_, name, data), label in zip(rows[part], labels):
                test_packed.add(tar, f"{name.removesuffix('.JPEG')}.cls", str(label).encode())
                test_packed.add(tar, f"{name.removesuffix('.JPEG')}.jpg", data)
    forms = {"folders": base, "parquet": work / "parquet", "tars": work / "tars"}
    splits = {form: load_dataset(f"photos={place}", image_size=SIZE).train for form, place in forms.items()}
    order = random.permutation(len(splits["folders"]))
    files = [splits["folders"].index.path(int(i)) for i in order]
    best = dict.fromkeys(("bare", *forms), float("inf"))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(bare, [files[:2]] * processes))
        for _ in range(turns):
            began = time.perf_counter()
            list(pool.map(bare, [files[i::processes] for i in range(processes)]))
            best["bare"] = min(best["bare"], time.perf_counter() - began)
            for form, split in splits.items():
                began = time.perf_counter()
                for start in range(0, len(order), 64):
                    split.images(order[start : start + 64])
                best[form] = min(best[form], time.perf_counter() - began)
    added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    a_second = {name: round(len(order) / seconds, 1) for name, seconds in best.items()}
    ratios = {form: round(best["bare"] / best[form], 3) for form in forms}
    return {"images": len(order), "images_a_second": a_second, "ratio_to_bare": ratios, "memory_added_mb": added / 1e3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000, help="of photographs' size")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2, help="of the bare loop")
    parser.add_argument("--part", choices=["both", "equality", "rates"], default="both")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DDBENCH_CACHE"] = str(Path(folder) / "store")
        if options.part != "rates":
            report["equality"] = equality(Path(folder) / "imagenet")
        if options.part != "equality":
            report["rates"] = rates(Path(folder) / "photos", options.images, options.turns, options.processes)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
