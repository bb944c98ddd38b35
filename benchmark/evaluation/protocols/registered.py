"""The protocols that ddbench registers; light, imports no torch."""

from benchmark.plugins.infos import ProtocolInfo

_HERE = "benchmark.evaluation.protocols"

PROTOCOLS = [
    ProtocolInfo("hard", "the harness's own: class labels, no teacher in training", f"{_HERE}:hard.yaml"),
    ProtocolInfo("soft", "the harness's own: the teacher labels every augmented batch", f"{_HERE}:soft.yaml"),
    ProtocolInfo(
        "compute-matched", "as soft, with the same optimiser steps at every IPC", f"{_HERE}:compute-matched.yaml"
    ),
    ProtocolInfo("rded-paper", "RDED as published: 300 epochs, online soft labels", f"{_HERE}:rded-paper.yaml"),
    ProtocolInfo("d3hr-paper", "D3HR as published: RDED's with crops 0.08-1, 400 epochs", f"{_HERE}:d3hr-paper.yaml"),
    ProtocolInfo("fkd", "SRe2L as published: soft labels stored as fp16, counted", f"{_HERE}:fkd.yaml"),
    ProtocolInfo("dc", "DC, DM as published: class labels, ConvNet-3 with instance norm", f"{_HERE}:dc.yaml"),
    ProtocolInfo("dc-dsa", "DSA as published: dc with 1000 epochs and DSA's augmentation", f"{_HERE}:dc-dsa.yaml"),
    ProtocolInfo(
        "idc", "IDC as published: 1000 epochs, its augmentation, half of the batches mixed", f"{_HERE}:idc.yaml"
    ),
    ProtocolInfo("smoke", "a few steps, to see that everything works; numbers mean nothing", f"{_HERE}:smoke.yaml"),
]
