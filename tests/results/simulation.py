"""Columns of results whose truth is known: do intervals cover it, does the top set leave out what belongs there?

    python tests/results/simulation.py        the tables of docs/statistics.md, in some minutes

A student gets a test image right where ``skill + set + image + taste + luck > 0``: the method's skill, and normal
numbers of the seed's set, of the image, of the method and image, and of this one answer. So the accuracy over all seeds
and all images of the population is ``Phi(skill / total deviation)``, known exactly.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from benchmark.results.boards.standing import BELOW, Column, Member
from benchmark.results.statistics import Results, difference, estimate

IMAGES = 450
SPREAD = {"set": 0.15, "image": 0.8, "taste": 0.4, "luck": 0.5}
TOTAL = sum(value**2 for value in SPREAD.values()) ** 0.5


def draw(skills, seeds: int, random: np.random.Generator, images: int = IMAGES, spread=None) -> list[Results]:
    """One column: a result for each skill, all tested on the same images."""
    spread = SPREAD | (spread or {})
    image = spread["image"] * random.standard_normal(images)
    out = []
    for skill in skills:
        taste = spread["taste"] * random.standard_normal(images)
        sets = spread["set"] * random.standard_normal((seeds, 1))
        luck = spread["luck"] * random.standard_normal((seeds, images))
        right = skill + sets + image + taste + luck > 0
        out.append(Results({s: 100 * row.mean() for s, row in enumerate(right)}, dict(enumerate(right))))
    return out


def accuracy(skill: float) -> float:
    """The accuracy over the population, percent."""
    return 100 * norm.cdf(skill / TOTAL)


def without_bits(column: list[Results]) -> list[Results]:
    """The same, as records of before: scores alone."""
    return [Results(results.scores) for results in column]


def coverage(seeds: int, repeats: int, random: np.random.Generator, skills=(0.8, 0.5)) -> dict[str, float]:
    """Parts of the intervals that hold the truth: of a mean, of a difference, and of the mean over seeds alone."""
    hits = np.zeros(3)
    for _ in range(repeats):
        a, b = draw(skills, seeds, random)
        mean, gap = estimate(a), difference(a, b)
        plain = estimate(Results(a.scores))
        hits += [
            abs(mean.mean - accuracy(skills[0])) <= mean.half,
            abs(gap.mean - accuracy(skills[0]) + accuracy(skills[1])) <= gap.half,
            abs(plain.mean - accuracy(skills[0])) <= plain.half,
        ]
    return dict(zip(("mean", "difference", "mean, seeds alone"), hits / repeats))


def wrong(skills, seeds: int, repeats: int, random: np.random.Generator, bits: bool = True) -> float:
    """Part of the columns in which a method that is truly among the best is left out of the top set.

    Without bits the truth is that of the very test images, which scores alone can speak about: no taste.
    """
    best, count = max(skills), 0
    for _ in range(repeats):
        column = draw(skills, seeds, random, IMAGES if bits else 60, {} if bits else {"taste": 0.0})
        tests = Column([Member(results) for results in (column if bits else without_bits(column))])
        count += any(tests.standing(i) == BELOW for i, skill in enumerate(skills) if skill == best)
    return count / repeats


COLUMNS = {  # what a column may look like: skills of its methods
    "2 equal": [0.6] * 2,
    "6 equal": [0.6] * 6,
    "12 equal": [0.6] * 12,
    "4 equal, 4 worse": [0.6] * 4 + [0.5, 0.4, 0.2, -1.0],
    "1 best, 7 close": [0.65] + [0.6] * 7,
}


def main() -> None:
    random = np.random.default_rng(0)
    print("| seeds | mean | difference | mean, over seeds alone |\n|---:|---:|---:|---:|")
    for seeds in (3, 5, 10):
        found = coverage(seeds, 4000, random)
        print(f"| {seeds} | " + " | ".join(f"{100 * value:.1f}" for value in found.values()) + " |", flush=True)
    print("\n| column | " + " | ".join(f"{s} seeds, {b}" for b in ("bits", "scores") for s in (3, 5, 10)) + " |")
    print("|:---|" + "---:|" * 6)
    for name, skills in COLUMNS.items():
        found = [wrong(skills, s, 1000, random, bits) for bits in (True, False) for s in (3, 5, 10)]
        print(f"| {name} | " + " | ".join(f"{100 * value:.1f}" for value in found) + " |", flush=True)


if __name__ == "__main__":
    main()
