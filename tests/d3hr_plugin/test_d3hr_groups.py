"""Scores against formulas written out coordinate by coordinate, searches against a plain one, matched samplers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from benchmark.core.errors import UsageError
from d3hr_plugin import winner_distribution
from d3hr_plugin.diagnostics import shrinkage
from d3hr_plugin.groups import SAMPLERS, Draw
from d3hr_plugin.scores import Score

D = 48
STD = (0.3 * torch.randn(D, generator=torch.Generator().manual_seed(5))).exp()


def draw(n=10, m=200, seed=0, **settings) -> Draw:
    return Draw(n, STD, ("test", seed), m, **settings)


def by_hand(x: np.ndarray, std: np.ndarray, form: str, skew_weight: float) -> float:
    """The scores written out over the un-whitened latents, with loops (paper section 3.2; authors' group_sampling)."""
    n, d = x.shape
    latents, mean_gap, std_gap, skew = x * std, 0.0, 0.0, 0.0
    cubes = np.zeros((n, d))
    for j in range(d):
        column = latents[:, j]
        centre = sum(column) / n
        mean_gap += centre**2
        if n > 1:
            unbiased = math.sqrt(sum((v - centre) ** 2 for v in column) / (n - 1))
            std_gap += (unbiased - std[j]) ** 2
            cubes[:, j] = ((column - centre) / unbiased) ** 3
        if n > 2:
            biased = sum((v - centre) ** 2 for v in column) / n
            skew += (sum((v - centre) ** 3 for v in column) / n / biased**1.5) ** 2
    if form == "released":
        skew = (np.square(cubes.sum(1) * d / ((d - 1) * (d - 2)))).sum()
    return math.sqrt(mean_gap) + math.sqrt(std_gap) + skew_weight * math.sqrt(skew)


@pytest.mark.parametrize("form, weight", [("paper", 0.5), ("released", 0.1)])
@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_scores_equal_the_formula(form, weight, n):
    x = torch.randn(4, n, D, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    ours = Score(form, skew=weight)(x, STD.double())
    for value, group in zip(ours, x, strict=True):
        assert float(value) == pytest.approx(by_hand(group.numpy(), STD.double().numpy(), form, weight), rel=1e-12)


def test_score_terms_can_be_switched_off():
    x = torch.randn(3, 10, D, dtype=torch.float64)
    whole = Score()(x, STD.double())
    parts = [Score(mean=a, std=b, skew=c)(x, STD.double()) for a, b, c in ((1, 0, 0), (0, 1, 0), (0, 0, 0.5))]
    torch.testing.assert_close(sum(parts), whole)


def test_kl_is_torchs():
    x = torch.randn(2, 10, D, dtype=torch.float64)
    normal = torch.distributions.Normal
    for value, group in zip(Score("kl")(x, STD.double()), x, strict=True):
        ours = normal(group.mean(0), group.std(0))
        unit = normal(torch.zeros(D).double(), torch.ones(D).double())
        assert float(value) == pytest.approx(float(torch.distributions.kl_divergence(unit, ours).sum()), rel=1e-9)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_every_sampler_at_every_size(sampler, n):
    group = SAMPLERS[sampler](draw(n))
    assert group.latents.shape == (n, D) and group.latents.dtype == torch.float32
    assert math.isfinite(group.score) and torch.isfinite(group.latents).all()
    assert group.score == pytest.approx(float(Score()(group.latents[None].double(), STD.double())), rel=1e-5, abs=1e-5)
    assert torch.equal(group.latents, SAMPLERS[sampler](draw(n)).latents)
    if n > 1:
        assert torch.pdist(group.latents).min() > 0
        assert not torch.equal(group.latents, SAMPLERS[sampler](draw(n, seed=1)).latents)


def test_search_by_draws_returns_the_best_candidate():
    best = SAMPLERS["search-by-draws"](draw(m=300))
    again = SAMPLERS["search-by-draws"](draw(m=best.winner + 1))
    assert torch.equal(best.latents, again.latents)
    assert best.score <= SAMPLERS["search-by-draws"](draw(m=100)).score


def test_one_dominating_coordinate_is_searched_by_draws():
    """A sum with few effective terms has another distribution than its approximation gives (science review, A10)."""
    dominated = torch.tensor([3.0] + [0.05] * 63)
    asked = Draw(1, dominated, ("test", 0), 300)
    assert not winner_distribution.applies(dominated) and winner_distribution.applies(STD)
    assert torch.equal(SAMPLERS["search"](asked).latents, SAMPLERS["search-by-draws"](asked).latents)
    assert not torch.equal(SAMPLERS["search"](draw()).latents, SAMPLERS["search-by-draws"](draw()).latents)


def test_the_search_at_one_image_a_class_shortens_few_coordinates_most():
    """At IPC 1 the best of m draws is the shortest: far from a plain draw in 64 coordinates, not in 4096."""
    few, many = shrinkage([(4, 4, 4), (4, 32, 32)], [1_000_000], repeats=2)
    assert few["m = 1,000,000"] == pytest.approx(0.61, abs=0.03)
    assert many["m = 1,000,000"] == pytest.approx(0.949, abs=0.005)


def test_released_score_and_kl_are_searched_too():
    for form in ("released", "kl"):
        score = Score(form, skew=0.1)
        found = SAMPLERS["search"](draw(m=300, score=score))
        assert found.score < SAMPLERS["gaussian"](draw(score=score)).score


@pytest.mark.parametrize("n", [1, 2, 3, 10])
@pytest.mark.parametrize("spread", [1.0, 0.5])
def test_search_by_distribution_is_a_plain_search(n, spread):
    """Best scores, and their three parts, over repeats: two-sample tests against plain float64 draws."""
    repeats, m, score = 60, 150, Score()
    plain, ours = [], []
    g = torch.Generator().manual_seed(n)
    for seed in range(repeats):
        x = spread * torch.randn(m, n, D, generator=g, dtype=torch.float64)
        plain.append(x[score(x, STD.double()).argmin()])
        ours.append(winner_distribution.search(n, STD.numpy(), m, (1.0, 1.0, 0.5), spread, 1000 + seed)[0].double())
    for part in (score, Score(1, 0, 0), Score("paper", 0, 1, 0), Score("paper", 0, 0, 1)):
        part = part if part.form == "paper" else Score("paper", 1, 0, 0)
        a, b = ([float(part(x[None], STD.double())) for x in found] for found in (plain, ours))
        assert np.ptp(a) == 0 or stats.ks_2samp(a, b).pvalue > 1e-3
    a, b = (torch.cat([x.flatten() for x in found]).numpy() for found in (plain, ours))
    assert stats.ks_2samp(a, b).pvalue > 1e-3
    assert np.std(b) == pytest.approx(np.std(a), rel=0.05)


@pytest.mark.parametrize("which", ["mean", "deviation", "skewness"])
def test_distributions_of_the_sums(which):
    n, count = 10, 4000
    x = torch.randn(count, n, D, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    terms = {"mean": Score("paper", 1, 0, 0), "deviation": Score("paper", 0, 1, 0), "skewness": Score("paper", 0, 0, 1)}
    plain = terms[which](x, STD.double()).square().numpy()
    std = STD.double().numpy()
    known = {
        "mean": lambda: winner_distribution.mean_distribution(std**2 / n),
        "deviation": lambda: winner_distribution.deviation_distribution(std**2, n, 1.0),
        "skewness": lambda: winner_distribution.skewness_distribution(n, D),
    }
    drawn = known[which]().draw(np.random.default_rng(0), count)
    assert stats.ks_2samp(plain, drawn).pvalue > 1e-3
    assert np.quantile(drawn, 0.01) == pytest.approx(np.quantile(plain, 0.01), rel=0.05)


def test_weights_of_the_search_matter():
    only_mean = Score("paper", 1.0, 0.0, 0.0)
    found = SAMPLERS["search"](draw(m=20_000, score=only_mean))
    plain = SAMPLERS["search-by-draws"](draw(m=20_000, score=only_mean))
    assert found.score == pytest.approx(plain.score, rel=0.15)
    assert Score("paper", 0, 1, 0)(found.latents[None].double(), STD.double()) > 1


def test_matched_groups_match_and_are_not_degenerate():
    n, many = 10, 40
    best = SAMPLERS["search"](draw(n, m=10_000)).score
    found = [SAMPLERS["matched"](draw(n, seed=s)) for s in range(many)]
    assert max(g.score for g in found) < best / 50
    for group in found[:5]:
        assert torch.pdist(group.latents).min() > 1
    distances = torch.cat([torch.pdist(g.latents) for g in found]) / (2 * D) ** 0.5
    assert float(distances.mean()) == pytest.approx(1, abs=0.02)
    pooled = torch.cat([g.latents[:, 3] for g in found]).numpy()
    assert stats.kstest(pooled / pooled.std(), "norm").pvalue > 0.01
    assert abs(np.corrcoef(torch.stack([g.latents[0] for g in found]).numpy().T)[0, 1:]).max() < 0.6


def test_moments_match_mean_and_deviation():
    x = SAMPLERS["moments"](draw(10)).latents.double()
    assert x.mean(0).abs().max() < 1e-6 and (x.std(0) - 1).abs().max() < 1e-6


def test_latin_and_sobol_fill_every_stratum():
    for name in ("latin", "sobol"):
        n = 8
        strata = (torch.special.ndtr(SAMPLERS[name](draw(n)).latents.double()) * n).floor()
        assert all(sorted(column.tolist()) == list(range(n)) for column in strata.T), name


def test_spread_scales_the_draws_and_zero_is_the_class_mean():
    assert torch.equal(SAMPLERS["gaussian"](draw(spread=0.0)).latents, torch.zeros(10, D))
    assert torch.equal(SAMPLERS["search"](draw(spread=0.0)).latents, torch.zeros(10, D))
    wide = SAMPLERS["search"](draw(50, spread=1.5)).latents.std()
    assert float(wide) == pytest.approx(1.5, rel=0.1)


def test_sobol_says_how_many_coordinates_it_has():
    with pytest.raises(UsageError, match="at most 21201 coordinates"):
        SAMPLERS["sobol"](Draw(2, torch.ones(30_000), ("x",)))


@pytest.mark.parametrize("n", [1, 2, 10])
@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_class_without_spread_is_its_mean(sampler, n):
    group = SAMPLERS[sampler](Draw(n, torch.zeros(D), ("flat", 0), 20))
    assert torch.isfinite(group.latents).all() and group.latents.shape == (n, D)
