"""What ddbench registers of its own; light, imports no torch."""

from benchmark.data.sources import SOURCES
from benchmark.plugins.infos import DatasetInfo


def _info(
    name: str, summary: str, target: str, image_size: int, channels: int = 3, imagenet: bool = False
) -> DatasetInfo:
    """``NAME@val`` is an alias: the training split cut in two (see :mod:`benchmark.data.holdout`)."""
    source, module = SOURCES[name], f"benchmark.data.{target.partition(':')[0]}"
    return DatasetInfo(
        name,
        summary,
        f"benchmark.data.{target}",
        source=source.page,
        classes=source.classes,
        image_size=image_size,
        channels=channels,
        aliases=(f"{name}@val",),
        find=f"{module}:locate" if source.layouts else "",
        download=source.download,
        imagenet_classes=imagenet,
    )


def _imagenet(name: str, summary: str, target: str, image_size: int = 224) -> DatasetInfo:
    return _info(name, summary, target, image_size, imagenet=True)


DATASETS = [
    _info("digits", "handwritten digits, 8x8 grey, inside scikit-learn's wheel: nothing to get", "digits:load", 8, 1),
    _info("fashionmnist", "Fashion-MNIST, 28x28 grey, 60,000 + 10,000", "idx:load_fashionmnist", 28, 1),
    _info("kmnist", "Kuzushiji-MNIST, 28x28 grey, 60,000 + 10,000", "idx:load_kmnist", 28, 1),
    _info("emnist-letters", "EMNIST, 26 letters, 28x28 grey, 124,800 + 20,800", "idx:load_letters", 28, 1),
    _info("emnist-balanced", "EMNIST, 47 digits and letters, 28x28 grey, 112,800 + 18,800", "idx:load_balanced", 28, 1),
    _info("emnist-digits", "EMNIST, 10 digits, 28x28 grey, 240,000 + 40,000", "idx:load_digits", 28, 1),
    _info("cifar10", "CIFAR-10, 32x32, 50,000 + 10,000, official batches or image tree", "cifar:load_cifar10", 32),
    _info("cifar100", "CIFAR-100 (fine labels), 32x32, 50,000 + 10,000", "cifar:load_cifar100", 32),
    _info("svhn", "street view house numbers, 32x32, 73,257 + 26,032", "svhn:load", 32),
    _imagenet("tinyimagenet", "Tiny ImageNet, 200 classes, 64x64, 100,000 + 10,000", "tinyimagenet:load", 64),
    _imagenet("imagenet1k", "ImageNet-1K (ILSVRC 2012), 1,281,167 + 50,000", "imagenet:load_imagenet1k"),
    _imagenet("imagenette", "Imagenette, 10 easy classes of ImageNet-1K", "imagenet:load_imagenette"),
    _imagenet("imagewoof", "Imagewoof, 10 dog breeds of ImageNet-1K", "imagenet:load_imagewoof"),
    _imagenet("imagenet100", "ImageNet-100 (CMC's list), 100 classes of ImageNet-1K", "imagenet:load_imagenet100"),
    _imagenet("imageidc", "ImageIDC, IDC's 10 classes of ImageNet-1K", "imagenet:load_imageidc"),
    DatasetInfo(
        "imagefolder:",
        "your own images, as NAME=PATH or imagefolder:PATH: class folders, tables of paths, parquet files, tars, npz",
        "benchmark.data.folders:load",
        source="your disk",
        find="benchmark.data.folders:locate",
    ),
]
