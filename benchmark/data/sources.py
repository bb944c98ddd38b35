"""Where each dataset comes from: page, archives with size and checksum, counts, folder layouts, how to get it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.errors import MissingError, UsageError


@dataclass(frozen=True)
class Archive:
    """A file to download: size in bytes and MD5 as published (None where the publisher gives none)."""

    url: str
    bytes: int | None = None
    md5: str | None = None


@dataclass(frozen=True)
class Source:
    """Facts about a dataset. ``train`` and ``test`` are image counts, ``layouts`` what may lie under the data root."""

    page: str
    archives: tuple[Archive, ...] = ()
    train: int | None = None
    test: int | None = None
    classes: int | None = None
    layouts: tuple[str, ...] = ()
    get: str = ""  # the command that gets it
    download: bool = False  # torchvision can fetch it: --download


_KMNIST = "http://codh.rois.ac.jp/kmnist/dataset/kmnist"
_EMNIST = "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip"
_FASTAI = "https://s3.amazonaws.com/fast-ai-imageclas"
_IMAGENET = "https://image-net.org/challenges/LSVRC/2012/2012-downloads.php"
_SUBSET = "DATA/imagenet1k/train/WNID/*.JPEG, val/ (the classes are taken from ImageNet-1K)"

# Sizes and checksums: torchvision.datasets (md5 of CIFAR, SVHN, Fashion-MNIST, Imagenette, ImageNet), fastai's
# fastai/data/checks.txt (sizes of Imagenette and Imagewoof), cs231n.stanford.edu (Tiny ImageNet).
SOURCES = {
    "digits": Source("https://archive.ics.uci.edu/dataset/80", train=1347, test=450, classes=10),
    "fashionmnist": Source(
        "https://github.com/zalandoresearch/fashion-mnist",
        (
            Archive("train-images-idx3-ubyte.gz", 26421880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            Archive("train-labels-idx1-ubyte.gz", 29515, "25c81989df183df01b3e8a0aad5dffbe"),
            Archive("t10k-images-idx3-ubyte.gz", 4422102, "bef4ecab320f06d8554ea6380940ec79"),
            Archive("t10k-labels-idx1-ubyte.gz", 5148, "bb300cfdad3c16e7a12a480ee83cd310"),
        ),
        60000,
        10000,
        10,
        ("DATA/FashionMNIST/raw/*-ubyte.gz", "DATA/*-ubyte.gz", "the files of Debian's dataset-fashion-mnist"),
        "apt install dataset-fashion-mnist   (then no --data-root is needed)",
        True,
    ),
    "kmnist": Source(
        "http://codh.rois.ac.jp/kmnist/",
        tuple(
            Archive(f"{_KMNIST}/{name}-ubyte.gz", None, md5)
            for name, md5 in (
                ("train-images-idx3", "bdb82020997e1d708af4cf47b453dcf7"),
                ("train-labels-idx1", "e144d726b3acfaa3e44228e80efcd344"),
                ("t10k-images-idx3", "5c965bf0a639b31b8f53240b1b52f4d7"),
                ("t10k-labels-idx1", "7320c461ea6c1c855c0b718fb2a4b134"),
            )
        ),
        60000,
        10000,
        10,
        ("DATA/KMNIST/raw/*-ubyte.gz", "DATA/kmnist/*-ubyte.gz"),
        f"mkdir -p DATA/kmnist && cd DATA/kmnist && curl -LO {_KMNIST}/train-images-idx3-ubyte.gz "
        f"-LO {_KMNIST}/train-labels-idx1-ubyte.gz -LO {_KMNIST}/t10k-images-idx3-ubyte.gz "
        f"-LO {_KMNIST}/t10k-labels-idx1-ubyte.gz",
        True,
    ),
    **{
        f"emnist-{split}": Source(
            "https://www.nist.gov/itl/products-and-services/emnist-dataset",
            (Archive(_EMNIST, None, "58c8d27c78d21e728a6bc7b3cc06412e"),),
            train,
            test,
            classes,
            (f"DATA/EMNIST/raw/emnist-{split}-*-ubyte", f"DATA/gzip/emnist-{split}-*-ubyte.gz (the archive, unpacked)"),
            f"curl -LO {_EMNIST} && unzip gzip.zip -d DATA",
            True,
        )
        for split, train, test, classes in (
            ("letters", 124_800, 20_800, 26),
            ("balanced", 112_800, 18_800, 47),
            ("digits", 240_000, 40_000, 10),
        )
    },
    "cifar10": Source(
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        (
            Archive(
                "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                170498071,
                "c58f30108f718f92721af3b95e74349a",
            ),
        ),
        50000,
        10000,
        10,
        (
            "DATA/cifar-10-batches-py/data_batch_1 …",
            "DATA/cifar10/{train,test}-*.parquet",
            "DATA/cifar10/{train,test}/airplane/*.{jpg,png} …",
        ),
        "curl -L https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz | tar xz -C DATA",
        True,
    ),
    "cifar100": Source(
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        (
            Archive(
                "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
                169001437,
                "eb9058c3a382ffc7106e4002c42a8d85",
            ),
        ),
        50000,
        10000,
        100,
        ("DATA/cifar-100-python/{train,test,meta}", "DATA/cifar100/{train,test}-*.parquet"),
        "curl -L https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz | tar xz -C DATA",
        True,
    ),
    "svhn": Source(
        "http://ufldl.stanford.edu/housenumbers/",
        (
            Archive(
                "http://ufldl.stanford.edu/housenumbers/train_32x32.mat", 182040794, "e26dedcc434d2e4c54c9b2d4a06d8373"
            ),
            Archive(
                "http://ufldl.stanford.edu/housenumbers/test_32x32.mat", 64275384, "eb5a983be6a315427106f1b164d9cef3"
            ),
        ),
        73257,
        26032,
        10,
        ("DATA/svhn/{train,test}_32x32.mat",),
        "mkdir -p DATA/svhn && cd DATA/svhn && curl -LO http://ufldl.stanford.edu/housenumbers/train_32x32.mat "
        "-LO http://ufldl.stanford.edu/housenumbers/test_32x32.mat",
        True,
    ),
    "tinyimagenet": Source(
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        (Archive("http://cs231n.stanford.edu/tiny-imagenet-200.zip", 248100043, "90528d7ca1a48142e341f4ef8d21d0de"),),
        100000,
        10000,
        200,
        (
            "DATA/tiny-imagenet-200/{wnids.txt,train/WNID/images/*.JPEG,val/images/*.JPEG,val/val_annotations.txt}",
            "DATA/tinyimagenet/{train,valid}-*.parquet",
        ),
        "curl -LO http://cs231n.stanford.edu/tiny-imagenet-200.zip && unzip tiny-imagenet-200.zip -d DATA",
    ),
    "imagenet1k": Source(
        _IMAGENET,
        (
            Archive("ILSVRC2012_img_train.tar", 147897477120, "1d675b47d978889d74fa0da5fadfb00e"),
            Archive("ILSVRC2012_img_val.tar", 6744924160, "29b22e2961454d5413ddabcf34fc5622"),
            Archive("ILSVRC2012_devkit_t12.tar.gz", None, "fa75699e90414af021442c21a62c3abf"),
        ),
        1281167,
        50000,
        1000,
        (
            "DATA/imagenet1k/train/n01440764/*.JPEG …, val/n01440764/*.JPEG …",
            "the same with val/ILSVRC2012_val_*.JPEG flat beside ILSVRC2012_devkit_t12/ (or its .tar.gz)",
            "DATA/imagenet1k/ with train-*.parquet and validation-*.parquet (Hugging Face), webdataset shards "
            "(*-train-0000.tar …, *-validation-00.tar …) or ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar",
            "Kaggle's ILSVRC/Data/CLS-LOC/{train,val} with LOC_val_solution.csv",
        ),
        f"accept the terms at {_IMAGENET}, then unpack ILSVRC2012_img_train.tar (and the tar of each class in it) into "
        "DATA/imagenet1k/train/WNID, ILSVRC2012_img_val.tar into DATA/imagenet1k/val and "
        "ILSVRC2012_devkit_t12.tar.gz beside them; or: kaggle competitions download -c "
        "imagenet-object-localization-challenge",
    ),
    "imagenette": Source(
        "https://github.com/fastai/imagenette",
        (
            Archive(f"{_FASTAI}/imagenette2.tgz", 1557161267, "fe2fc210e6bb7c5664d602c3cd71e612"),
            Archive(f"{_FASTAI}/imagenette2-320.tgz", 341663724, "3df6f0d01a2c9592104656642f5e78a3"),
            Archive(f"{_FASTAI}/imagenette2-160.tgz", 99003388, "e793b78cc4c9e9a4ccc0c1155377a412"),
        ),
        9469,
        3925,
        10,
        ("DATA/imagenette2{,-320,-160}/{train,val}/WNID/*.JPEG", _SUBSET),
        f"curl -L {_FASTAI}/imagenette2.tgz | tar xz -C DATA",
        True,
    ),
    "imagewoof": Source(
        "https://github.com/fastai/imagenette",
        (
            Archive(f"{_FASTAI}/imagewoof2.tgz", 1343715595),
            Archive(f"{_FASTAI}/imagewoof2-320.tgz", 328387740),
            Archive(f"{_FASTAI}/imagewoof2-160.tgz", 92612825),
        ),
        9025,
        3929,
        10,
        ("DATA/imagewoof2{,-320,-160}/{train,val}/WNID/*.JPEG", _SUBSET),
        f"curl -L {_FASTAI}/imagewoof2.tgz | tar xz -C DATA",
    ),
    "imagenet100": Source(
        "https://github.com/HobbitLong/CMC (imagenet100.txt)",
        classes=100,
        test=5000,
        layouts=("DATA/imagenet100/{train,val}/WNID/*.JPEG", _SUBSET),
        get="it is a part of ImageNet-1K: see `ddbench show dataset imagenet1k`",
    ),
    "imageidc": Source(
        "https://github.com/snu-mllab/Efficient-Dataset-Condensation",
        classes=10,
        test=500,
        layouts=("DATA/imageidc/{train,val}/WNID/*.JPEG", _SUBSET),
        get="it is a part of ImageNet-1K: see `ddbench show dataset imagenet1k`",
    ),
}


def facts(name: str) -> list[tuple[str, str]]:
    """(label, text) rows that say where a built-in dataset comes from, for ``ddbench show dataset``."""
    source = SOURCES[name]
    rows = [("page", source.page)]
    for archive in source.archives:
        size = f"{archive.bytes:,} bytes" if archive.bytes else "size not published"
        rows.append(("file", f"{archive.url}  {size}, md5 {archive.md5 or 'not published'}"))
    counts = [f"{n:,} {part}" for n, part in ((source.train, "training"), (source.test, "test")) if n]
    if counts:
        rows.append(("images", " and ".join(counts)))
    rows += [("layout", layout) for layout in source.layouts]
    if source.get:
        rows.append(("get", source.get + ("   (or --download)" if source.download else "")))
    return rows


def present(name: str, root: Path | None, found: Path | None) -> Path:
    """``found``, where the data lies; this is what a dataset's `DatasetInfo.find` answers with.

    Raises:
        MissingError: it is None.
    """
    if found is None:
        raise missing_data(name, root)
    return found


def missing_data(name: str, root: Path | None) -> MissingError:
    """The error for a dataset that is not there: where it was looked for, and how to get it."""
    source = SOURCES[name]
    archives = source.archives[:1] if name in ("imagenette", "imagewoof") else source.archives  # one of three sizes
    size = sum(a.bytes or 0 for a in archives)
    hint = source.get.replace("DATA", shlex.quote(str(root))) if root else f"{source.get}   then give --data-root DATA"
    if root and root.name in ("train", "val", "validation") and (root.parent / "train").is_dir():
        hint = f"give the folder above: --data-root {shlex.quote(str(root.parent))}"
    parquet = parquet_folder(root) if root else None
    if parquet:
        hint = (
            f"{parquet} holds parquet files, but not both train-*.parquet and validation-*.parquet (or test-*) in one "
            "folder: get both"
        )
    if source.download:
        hint += f"   (or repeat the command with --download{'' if root else ' --data-root DATA'})"
    return MissingError(
        f"the data of {name!r} is not there" + (f" ({_gigabytes(size)} to download)" if size else ""),
        where=f"--data-root {root}" if root else "no --data-root given and DDBENCH_DATA is not set",
        allowed="; ".join(source.layouts),
        hint=hint,
    )


def parquet_folder(root: Path) -> Path | None:
    """A folder of parquet files below the data root, as Hugging Face lays ImageNet-1K out."""
    for pattern in ("*.parquet", "*/*.parquet", "*/data/*.parquet"):
        found = next(root.glob(pattern), None)
        if found is not None:
            return found.parent
    return None


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.0f} GB" if size >= 1e10 else f"{size / 1e9:.2g} GB"


def download_root(name: str, root: Path | None) -> Path:
    """The folder that ``--download`` writes to.

    Raises:
        UsageError: no data root, or a dataset that cannot be downloaded without its terms being accepted.
    """
    source = SOURCES[name]
    if not source.download:
        raise UsageError(f"{name!r} cannot be downloaded by ddbench", where="--download", hint=source.get)
    if root is None:
        raise UsageError("--download needs a folder to download to", where="--download", hint="add --data-root DATA")
    return root
