"""What ddbench registers of its own; light, imports no torch."""

from benchmark.plugins import BackbonePresetInfo

BACKBONES = [
    BackbonePresetInfo("tiny", "1.4 M parameters: minutes on two CPU cores", "benchmark.backbones.presets:TINY"),
    BackbonePresetInfo("small", "8 M parameters: under an hour on two CPU cores", "benchmark.backbones.presets:SMALL"),
    BackbonePresetInfo(
        "strong", "3 to 8 M parameters, perceptual VAE, long training: for a GPU", "benchmark.backbones.presets:STRONG"
    ),
    BackbonePresetInfo("base", "33 M parameters (DiT-S width): for a GPU", "benchmark.backbones.presets:BASE"),
]
