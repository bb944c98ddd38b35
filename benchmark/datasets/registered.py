"""What ddbench registers of its own; light, imports no torch."""

from benchmark.plugins.infos import DatasetInfo


def _info(name: str, summary: str, module: str, source: str, **fields) -> DatasetInfo:
    aliases = (f"{name}@val",) if not name.endswith(":") else ()
    return DatasetInfo(name, summary, f"benchmark.datasets.{module}", source=source, aliases=aliases, **fields)


DATASETS = [
    _info(
        "digits",
        "handwritten digits, 8x8 grey, 1347 training and 450 test images",
        "digits:load",
        "inside scikit-learn's wheel: nothing to get",
        classes=10,
        image_size=8,
        channels=1,
    ),
    _info(
        "fashionmnist",
        "Fashion-MNIST, 28x28 grey, 60,000 training and 10,000 test images",
        "fashionmnist:load",
        "apt install dataset-fashion-mnist, or https://github.com/zalandoresearch/fashion-mnist",
        classes=10,
        image_size=28,
        channels=1,
    ),
    _info(
        "cifar10",
        "CIFAR-10, 32x32 colour, 50,000 training and 10,000 test images (an image tree train/, test/)",
        "cifar:load_cifar10",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        classes=10,
        image_size=32,
        channels=3,
    ),
    _info(
        "imagefolder:",
        "your own images: imagefolder:PATH with class folders in train/ and in val/, validation/ or test/",
        "folders:load",
        "your disk",
    ),
]
