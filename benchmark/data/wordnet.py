"""The 1000 WordNet ids of ImageNet-1K in label order, and names of classes, from timm's bundled lists.

timm's `ImageNetInfo` gives the same, but importing it imports torch, which takes seconds; these lists are needed to say
what is missing before anything heavy happens, so the two text files are read where timm is installed.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from benchmark.core.errors import MissingError


def _timm_list(name: str) -> list[str]:
    spec = importlib.util.find_spec("timm")
    path = Path(spec.origin).parent / "data" / "_info" / name if spec and spec.origin else None
    if path is None or not path.is_file():
        raise MissingError(
            f"timm's list of ImageNet classes ({name}) is not there", hint="pip install --force-reinstall 'timm>=1.0'"
        )
    return path.read_text(encoding="utf-8").splitlines()


@lru_cache(maxsize=1)
def imagenet_wnids() -> tuple[str, ...]:
    """WordNet ids of the 1000 classes; position = label of torchvision's, timm's and DiT's models (sorted order)."""
    return tuple(_timm_list("imagenet_synsets.txt"))


@lru_cache(maxsize=1)
def _lemmas() -> dict[str, str]:
    return dict(line.split("\t", 1) for line in _timm_list("imagenet_synset_to_lemma.txt") if "\t" in line)


def class_names(wnids: Sequence[str]) -> tuple[str, ...]:
    """One readable name a class; the two cranes and the two maillots carry their id."""
    short = [_lemmas().get(wnid, wnid).split(",")[0].strip() for wnid in wnids]
    counts = Counter(short)
    return tuple(name if counts[name] == 1 else f"{name} ({wnid})" for name, wnid in zip(short, wnids))


def imagenet_positions(wnids: Sequence[str]) -> tuple[int, ...]:
    """The ImageNet-1K label of each WordNet id."""
    position = {wnid: i for i, wnid in enumerate(imagenet_wnids())}
    return tuple(position[wnid] for wnid in wnids)
