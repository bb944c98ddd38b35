"""Registration of the wrapped methods; imports no torch."""

from benchmark.api import MethodInfo, hookimpl

METHODS: list[MethodInfo] = [
    MethodInfo(
        "random", "real images drawn at random: the floor of every table", "baselines.random_real:Random", uses="images"
    ),
    MethodInfo(
        "noise", "uniform noise: what the labels alone are worth", "baselines.noise:Noise", gate="waived", uses="images"
    ),
    MethodInfo(
        "kmeans",
        "the real image nearest each k-means centre of its class",
        "baselines.kmeans:KMeans",
        uses="classifier",
    ),
    MethodInfo(
        "herding",
        "real images chosen greedily so that their mean follows the class mean",
        "baselines.herding:Herding",
        paper="Welling, ICML 2009; iCaRL, arXiv 1611.07725",
        uses="classifier",
    ),
    MethodInfo(
        "kcenter",
        "real images chosen greedily, each the farthest from those before",
        "baselines.coresets.kcenter:KCenter",
        paper="Sener and Savarese, ICLR 2018, arXiv 1708.00489",
        uses="classifier",
    ),
    MethodInfo(
        "el2n",
        "real images that networks early in training are surest of",
        "baselines.coresets.el2n:EL2N",
        paper="Paul et al., NeurIPS 2021, arXiv 2107.07075",
        uses="images",
    ),
    MethodInfo(
        "forgetting",
        "real images that a network never forgets while it learns",
        "baselines.coresets.forgetting:Forgetting",
        paper="Toneva et al., ICLR 2019, arXiv 1812.05159",
        uses="images",
    ),
    MethodInfo(
        "dit",
        "plain guided DDIM sampling of the backbone, no distillation",
        "baselines.dit:DiT",
        paper="DiT, arXiv 2212.09748",
        uses="backbone",
    ),
    MethodInfo(
        "sre2l",
        "images recovered from a classifier's labels and BatchNorm statistics",
        "baselines.sre2l.method:SRe2L",
        paper="Yin et al., NeurIPS 2023, arXiv 2306.13092",
        uses="classifier",
    ),
    MethodInfo(
        "cda",
        "SRe2L with a curriculum of crops",
        "baselines.sre2l.method:CDA",
        paper="Yin and Shen, TMLR 2024, arXiv 2311.18838",
        uses="classifier",
    ),
    MethodInfo(
        "dwa",
        "SRe2L from real images, the classifier's weights moved for each batch",
        "baselines.sre2l.presets:DWA",
        paper="Du et al., NeurIPS 2024, arXiv 2409.17612",
        uses="classifier",
    ),
    MethodInfo(
        "delt",
        "real images of middling certainty, optimised for unequal times",
        "baselines.sre2l.presets:DELT",
        paper="Shen et al., CVPR 2025, arXiv 2411.19946",
        uses="classifier",
    ),
    MethodInfo(
        "sre2l++",
        "SRe2L from mosaics of real crops",
        "baselines.sre2l.presets:SRe2LPlusPlus",
        paper="CV-DD's baseline: Cui et al., ICCV 2025, arXiv 2501.07575",
        uses="classifier",
    ),
    MethodInfo(
        "fadrm",
        "SRe2L++ in segments of alternating size, real crops mixed in again after each",
        "baselines.sre2l.presets:FADRM",
        paper="Cui et al., NeurIPS 2025, arXiv 2506.24125",
        uses="classifier",
    ),
    MethodInfo(
        "d4m",
        "k-means prototypes in latent space, through latent img2img",
        "baselines.d4m.method:D4M",
        paper="Su et al., CVPR 2024, arXiv 2407.15138",
        uses="backbone",
    ),
    MethodInfo(
        "minimax",
        "samples of a DiT fine-tuned for representativeness and diversity",
        "baselines.minimax.method:Minimax",
        paper="Gu et al., CVPR 2024, arXiv 2311.15529",
        trains_once=True,
        uses="backbone",
    ),
    MethodInfo(
        "mgd3",
        "samples of the backbone pulled towards the k-means centres of their class",
        "baselines.mgd3:MGD3",
        paper="Chan-Santiago et al., ICML 2025, arXiv 2505.18963",
        uses="backbone",
    ),
    MethodInfo(
        "cao2",
        "samples chosen by a classifier, their latents refined",
        "baselines.cao2:CaO2",
        paper="Wang et al., ICCV 2025, arXiv 2506.22637",
        uses="backbone",
    ),
    MethodInfo(
        "rded",
        "crops of real images that the teacher is surest of, stitched",
        "baselines.rded:RDED",
        paper="Sun et al., CVPR 2024, arXiv 2312.03526",
        uses="classifier",
    ),
    MethodInfo(
        "dm",
        "images whose mean features in random networks are the real images'",
        "baselines.matching.dm:DM",
        paper="Zhao and Bilen, WACV 2023, arXiv 2110.04181",
        uses="images",
    ),
    MethodInfo(
        "dc",
        "images with the gradients of real ones, in networks that learn from them",
        "baselines.matching.dc:DC",
        paper="Zhao et al., ICLR 2021, arXiv 2006.05929",
        uses="images",
    ),
    MethodInfo(
        "dsa",
        "DC with the same augmentation of real and synthetic images",
        "baselines.matching.dc:DSA",
        paper="Zhao and Bilen, ICML 2021, arXiv 2102.08259",
        uses="images",
    ),
    MethodInfo(
        "idc",
        "several training images in one, by the gradients of networks trained on real ones",
        "baselines.matching.idc:IDC",
        paper="Kim et al., ICML 2022, arXiv 2205.14959",
        uses="images",
    ),
    MethodInfo(
        "cim",
        "mosaics of the surest real images, corrected to give the originals' features",
        "baselines.cim:CIM",
        version=2,
        paper="LINs-lab, ECCV 2026, repository LINs-lab/CIM",
        uses="classifier",
    ),
    MethodInfo(
        "gvbsm",
        "noise matched to real statistics in every layer of several classifiers",
        "baselines.gvbsm.method:GVBSM",
        paper="Shao et al., CVPR 2024, arXiv 2311.17950",
        uses="classifier",
    ),
    MethodInfo(
        "edc",
        "G-VBSM from real images, half of its goals those of the classes",
        "baselines.gvbsm.method:EDC",
        paper="Shao et al., NeurIPS 2024, arXiv 2404.13733",
        uses="classifier",
    ),
    MethodInfo(
        "recon", "random real images through the VAE: what the VAE costs them", "baselines.recon:Recon", uses="backbone"
    ),
]


@hookimpl
def ddbench_methods():
    return METHODS
