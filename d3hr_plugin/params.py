"""Parameters of D3HR: every idea of the paper, and of what goes beyond it, is an option that an ablation can turn."""

from __future__ import annotations

from dataclasses import dataclass

from benchmark.api import UsageError, param
from d3hr_plugin import scores
from d3hr_plugin.decoding import decoding_pairs
from d3hr_plugin.groups import SAMPLERS
from d3hr_plugin.inversion import SOLVERS, inversion_levels
from d3hr_plugin.models import MODAL, MODELS
from d3hr_plugin.schedule import check_depth, check_start, check_stride, matched_start

DRAWN = "search-by-draws"  # the older name of sampler=search with search_by=draws
DPM = "Lu et al., DPM-Solver, arXiv 2206.00927"


@dataclass(frozen=True)
class Params:
    """D3HR's: defaults are the paper's or the authors' code's. ``late`` ones came after records were committed."""

    domain: str = param(
        "ddim",
        "how latents become noise: ddim inverts them, ddpm adds fresh noise of the same level (the ablation)",
        "paper section 3.1; Table 3 (Base-DDPM)",
        choices=("ddim", "ddpm"),
    )
    steps: int = param(50, "steps of the leading-spaced schedule, both ways", "authors' code", low=2, high=1000)
    depth: int = param(
        30,
        "how far to invert, in steps; 0 keeps the VAE's latents",
        "authors' code (i_step=6); paper 31",
        low=0,
        tune=(15, 30),
    )
    keep_depths: tuple[int, ...] = param(
        (),
        "further depths whose statistics are kept from the same pass; never changes a result",
        "authors keep 24-38",
        keyed=False,
    )
    invert_guidance: float = param(
        4.0, "classifier-free guidance while inverting; 1 is none", "authors' code", low=0, tune=(1.0, 4.0)
    )
    invert_solver: str = param(
        "ddim",
        "how a step of the inversion is taken; ab2 and dpm2m are of second order, for uniform and quadratic levels",
        "authors' code",
        choices=SOLVERS,
    )
    invert_evaluations: int = param(
        0,
        "evaluations of the network an inversion takes, over quadratic levels; 0: the schedule's, see invert_stride",
        DPM,
        low=0,
        high=999,
        late=True,
    )
    noise_until: int = param(
        0,
        "noise level (of 1000) up to which forward noise is added in place of inverting",
        "Staniszewski et al., arXiv 2410.23530",
        low=0,
        high=999,
        late=True,
    )
    invert_stride: int = param(1, "levels a step of the inversion; 3 with ab2 takes a third of the time", "own", low=1)
    invert_images: int = param(
        0,
        "images a class that the statistics are taken from, the first ones of the training split; 0: all",
        "own",
        low=0,
    )
    sample_posterior: bool = param(
        True, "draw each image's latent from the VAE's posterior; false takes its mean", "authors' code"
    )
    encode_resize: str = param(
        "bicubic",
        "filter that brings images to the backbone's size before they are encoded; bilinear is the authors'",
        "own; authors' code: bilinear",
        choices=("bicubic", "bilinear"),
        late=True,
    )
    invert_batch: int = param(64, "images inverted together; also what a kill can cost", "own", low=1)
    model: str = param(
        "gaussian",
        "what a class is in the inverted domain: one diagonal Gaussian, one of low rank plus diagonal, k-means modes "
        "(a mean and the deviations within modes), or the images nearest to the modes' means",
        "paper section 3.2: gaussian",
        choices=MODELS,
        late=True,
    )
    rank: int = param(32, "rank of the low-rank model", "own", low=1, late=True)
    modes_in: str = param(
        "inverted",
        "what the modes are sought in: inverted latents, the VAE's latents, or the teacher's features",
        "own",
        choices=("inverted", "vae", "features"),
        late=True,
    )
    select: str = param(
        "none",
        "features: of `candidates` decoded images keep those that cover the k-means centres of the real images' "
        "features in the teacher",
        "own",
        choices=("none", "features"),
        late=True,
    )
    candidates: int = param(200, "images a class that select chooses from", "own", low=1, late=True)
    sampler: str = param(
        "search",
        "how a group of latents is drawn from the Gaussian; search is the paper's: the best of m groups",
        "paper section 3.2: search",
        choices=tuple(SAMPLERS),
    )
    search_by: str = param(
        "distribution",
        "how the search comes by its winner: draws scores every candidate, as the paper does; distribution draws the "
        "winner from its own distribution, without drawing the losers",
        "own: same distribution, thousands of times faster",
        choices=("distribution", "draws"),
        late=True,
    )
    m: int = param(1_000_000, "candidate groups of the search", "paper section 3.2", low=1)
    score: str = param(
        "paper", "the score that the search minimises", "paper eq. of section 3.2; authors' code", choices=scores.FORMS
    )
    weight_mean: float = param(1.0, "weight of the score's mean term", "paper", low=0)
    weight_std: float = param(1.0, "weight of the score's deviation term", "paper", low=0)
    lambda_skew: float | None = param(
        None,
        "weight of the score's skewness term; default 0.5 (paper) or 0.1 (released)",
        "paper; authors' code",
        low=0,
    )
    spread: float = param(
        1.0,
        "factor on the deviations when drawing, the class's or those within modes; 0 gives the means themselves",
        "paper's ablation: 0.5, 1.5",
        low=0,
    )
    start_step: int | None = param(
        None,
        "sampling step to start from; default: the one at the depth's noise level. The authors': 18",
        "design",
        low=0,
    )
    ending: str = param(
        "exact",
        "exact stops at the level where the inversion began; released takes the authors' extra step at level 0",
        "authors' code (released)",
        choices=("exact", "released"),
    )
    decode_guidance: float = param(
        4.0,
        "classifier-free guidance while sampling; 1 is none",
        "authors' code",
        low=0,
        tune=(1.0, 1.5, 2.0, 4.0),
        backbone="guidance",
    )
    decode_solver: str = param(
        "ddim", "how a step of the sampling is taken, as invert_solver", "authors' code", choices=SOLVERS, late=True
    )
    decode_evaluations: int = param(
        0,
        "evaluations of the network from the depth back to the image, over quadratic levels; 0: the schedule's",
        DPM,
        low=0,
        high=999,
        late=True,
    )
    decode_batch: int = param(32, "images decoded together", "own", low=1)

    def __post_init__(self) -> None:
        if self.sampler == "search" and self.search_by == "draws":
            object.__setattr__(self, "sampler", DRAWN)  # the name that keys and records have for it
            object.__setattr__(self, "search_by", "distribution")
        check_depth(self.depth, self.steps)
        for depth in self.keep_depths:
            check_depth(depth, self.steps, "keep_depths")
        if not self.invert_evaluations:
            for depth in (self.depth, *self.keep_depths):
                check_stride(depth, self.invert_stride)
        check_start(self.first_step, self.steps)
        if self.keep_depths and (self.invert_evaluations or self.noise_until):
            raise UsageError(
                "keep_depths needs the schedule's own levels from 0 on",
                where="--set keep_depths",
                allowed="invert_evaluations = 0 and noise_until = 0",
            )
        if self.ending == "released" and (self.decode_evaluations or self.decode_solver != "ddim"):
            raise UsageError(
                "the released ending belongs to the released sampler",
                where="--set ending=released",
                allowed="decode_solver = ddim and decode_evaluations = 0",
            )
        self.invert_calls, self.decode_calls  # noqa: B018 - too many quadratic levels are an error now, not in hour 30

    @property
    def first_step(self) -> int:
        """The sampling step to start from."""
        return matched_start(self.depth, self.steps) if self.start_step is None else self.start_step

    @property
    def group_score(self) -> scores.Score:
        """The score as a function."""
        skew = scores.LAMBDA[self.score] if self.lambda_skew is None else self.lambda_skew
        return scores.Score(self.score, self.weight_mean, self.weight_std, skew)

    @property
    def modal(self) -> bool:
        """Whether the class model has modes."""
        return self.model in MODAL

    @property
    def uses_teacher(self) -> bool:
        """Whether the teacher's features are looked at."""
        return self.select == "features" or (self.modal and self.modes_in == "features")

    @property
    def uniform_levels(self) -> list[int]:
        """Levels of ``steps`` leading-spaced steps of 1000."""
        return [i * (1000 // self.steps) for i in range(self.steps)]

    @property
    def invert_calls(self) -> int:
        """Evaluations of the network an inverted image."""
        if self.domain != "ddim":
            return 0
        path = inversion_levels(
            self.uniform_levels, self.depth, self.invert_stride, self.invert_evaluations, self.noise_until
        )
        return len(path) - 1

    @property
    def decode_calls(self) -> int:
        """Evaluations of the network a decoded image."""
        return len(decoding_pairs(self.uniform_levels, self.first_step, self.ending, self.decode_evaluations))
