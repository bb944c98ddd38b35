"""What Minimax trains of a DiT: biases, DiffFit's scales, the label table; and how it folds into plain weights.

The authors' DiT has one label table, one timestep embedder, and scales γ in the first half of its blocks (DiffFit,
arXiv 2304.06648): on the query/key/value and output projections and on what attention and MLP add to the stream.
diffusers' DiT holds a table and an embedder *in every block* and no γ. Here the copies move together by one shared
difference (exactly the tied table where the copies are equal, as in converted checkpoints; the backbone unchanged at
the start where they are not), and γ is a forward hook. Folded, all of it is ordinary weights of an ordinary DiT.
"""

from __future__ import annotations

import copy

import torch
from diffusers import DiTTransformer2DModel
from torch import nn
from torch.nn.utils import parametrize

TABLE = "class_embedder.embedding_table.weight"
TIMES = ("timestep_embedder.linear_1.bias", "timestep_embedder.linear_2.bias")


class _Shifted(nn.Module):
    """Adds the shared difference to a block's own copy."""

    def __init__(self, shift: nn.Parameter) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, own: torch.Tensor) -> torch.Tensor:
        return own + self.shift


def _scaled(block: nn.Module) -> dict[str, tuple[nn.Module, nn.Linear]]:
    """For each γ of a block: the module whose output it multiplies, and the linear layer it folds into."""
    attention, out, mlp = block.attn1, block.attn1.to_out[0], block.ff.net[2]
    return {
        "attn1.to_q": (attention.to_q, attention.to_q),
        "attn1.to_k": (attention.to_k, attention.to_k),
        "attn1.to_v": (attention.to_v, attention.to_v),
        "attn1.to_out": (out, out),
        "attn1": (attention, out),
        "ff": (block.ff, mlp),
    }


class Adapter:
    """A copy of a DiT in which only Minimax's parameters learn.

    Attributes:
        dit: the copy; use it like any DiT.
        trained: name to parameter.
    """

    def __init__(self, dit: DiTTransformer2DModel) -> None:
        self.dit = copy.deepcopy(dit).requires_grad_(False)
        self.trained: dict[str, nn.Parameter] = {}
        embedders = [block.norm1.emb for block in self.dit.transformer_blocks]
        for name, parameter in self.dit.named_parameters():
            if "bias" in name and "timestep_embedder" not in name:
                self.trained[f"bias:{name}"] = parameter.requires_grad_(True)
        for path in (TABLE, *TIMES):
            module, _, tensor = path.rpartition(".")
            shift = nn.Parameter(torch.zeros_like(embedders[0].get_parameter(path)))
            self.trained[f"shift:{path}"] = shift
            for embedder in embedders:
                parametrize.register_parametrization(embedder.get_submodule(module), tensor, _Shifted(shift))
        blocks = self.dit.transformer_blocks
        for index, block in enumerate(blocks[: len(blocks) // 2]):
            for name, (module, folded) in _scaled(block).items():
                scale = nn.Parameter(torch.ones(folded.out_features, device=folded.weight.device))
                self.trained[f"scale:{index}:{name}"] = scale
                module.register_forward_hook(lambda m, args, output, scale=scale: output * scale)

    def values(self) -> dict[str, torch.Tensor]:
        """The trained parameters, detached."""
        return {name: parameter.detach() for name, parameter in self.trained.items()}


@torch.no_grad()
def fold(dit: DiTTransformer2DModel, values: dict[str, torch.Tensor]) -> DiTTransformer2DModel:
    """A copy of the original ``dit`` with trained values (:meth:`Adapter.values`) in its own weights."""
    tuned = copy.deepcopy(dit)
    parameters = dict(tuned.named_parameters())
    for name, value in values.items():  # biases first: scales multiply them too
        kind, _, path = name.partition(":")
        if kind == "bias":
            parameters[path].copy_(value)
        elif kind == "shift":
            for block in tuned.transformer_blocks:
                block.norm1.emb.get_parameter(path).add_(value.to(tuned.device))
    for name, value in values.items():
        kind, _, path = name.partition(":")
        if kind == "scale":
            index, _, module = path.partition(":")
            linear = _scaled(tuned.transformer_blocks[int(index)])[module][1]
            scale = value.to(linear.weight)
            linear.weight.mul_(scale[:, None])
            linear.bias.mul_(scale)
    return tuned
