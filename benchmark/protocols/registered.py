"""The protocols that ddbench registers; light, imports no torch."""

from benchmark.plugins.infos import ProtocolInfo

_HERE = "benchmark.protocols"

PROTOCOLS = [
    ProtocolInfo("hard", "the harness's own: class labels, no teacher in training", f"{_HERE}:hard.yaml"),
    ProtocolInfo("soft", "the harness's own: the teacher labels every augmented batch", f"{_HERE}:soft.yaml"),
    ProtocolInfo("smoke", "a few steps, to see that everything works; numbers mean nothing", f"{_HERE}:smoke.yaml"),
]
