"""Registration of the wrapped methods; imports no torch."""

from benchmark.plugins import MethodInfo, hookimpl

METHODS: list[MethodInfo] = [
    MethodInfo("random", "real images drawn at random: the floor of every table", "baselines.random_real:Random"),
    MethodInfo("noise", "uniform noise: what the labels alone are worth", "baselines.noise:Noise", gate="waived"),
    MethodInfo("kmeans", "the real image nearest each k-means centre of its class", "baselines.kmeans:KMeans"),
    MethodInfo(
        "herding",
        "real images chosen greedily so that their mean follows the class mean",
        "baselines.herding:Herding",
        paper="Welling, ICML 2009; iCaRL, arXiv 1611.07725",
    ),
    MethodInfo(
        "dit",
        "plain guided DDIM sampling of the backbone, no distillation",
        "baselines.dit:DiT",
        paper="DiT, arXiv 2212.09748",
    ),
    MethodInfo("recon", "random real images through the VAE: the ceiling the VAE sets", "baselines.recon:Recon"),
]


@hookimpl
def ddbench_methods():
    return METHODS
