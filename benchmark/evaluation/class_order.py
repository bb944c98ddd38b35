"""Whether a set's labels follow another order of the classes than the teacher's answers.

A set whose images are poor, or whose classes look alike, is no shuffled set: there is no order of the classes under
which the teacher recognises it. So the question is not how many images are recognised, but whether a permutation of the
classes explains the teacher's answers far better than the labels do, and nearly all of them.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

CLEAR = 1.5  # a class is clearly moved: seen as the other one so many times more than as itself, and by no third class
EXPLAINED = 0.7  # part of the classes that the teacher must recognise under the other order
EVIDENCE = 3.0  # nats by which the other order must be the better explanation: 20 to 1
PRIOR = (3.0, 0.5)  # Beta prior of the part of a set's classes that the teacher recognises in their right order


class Order(NamedTuple):
    """The order of the classes that explains the teacher's answers best, and what speaks for it.

    ``classes[a]`` is the class that images labelled ``a`` look like; ``moved`` are those where it is another one.
    ``evidence`` is a log likelihood ratio in nats (0 where nothing moved); ``table`` is float64 ``[classes, classes]``,
    the teacher's mean probabilities over the images of each label.
    """

    classes: np.ndarray
    moved: list[int]
    evidence: float
    table: np.ndarray

    @property
    def shuffled(self) -> bool:
        """Whether the labels are in another order, beyond reasonable doubt."""
        return bool(self.moved) and self.evidence >= EVIDENCE


def find_order(logits: np.ndarray, labels: np.ndarray) -> Order:
    """The best order of the classes and the evidence for it.

    The permutation with the largest sum of mean probabilities is split into its cycles. Of the cycles, those that are
    clear first, the first so many are taken for moved that have the most evidence; two kinds count:

    - *by the rest of the set*: were the order right, the moved classes would be failures of a set whose other classes
      are recognised; a Beta-binomial ratio of both explanations, against it how many such cycles there are to find;
    - *by the permutation*: answers that have nothing to do with the labels point to few different classes; the chance
      that they point to as many different ones as here, against it how many choices of moved classes there are.

    Answers that mean nothing must not explain as much: of two images of two classes every fourth pair would be swapped.

    Args:
        logits: float ``[n, classes]``; labels: int ``[n]``, every class at least once.
    """
    from scipy.optimize import linear_sum_assignment

    classes = logits.shape[1]
    table = _mean_probabilities(logits, labels)
    own = np.arange(classes)
    _, order = linear_sum_assignment(-table)
    value, first = table[own, order], table.argmax(1)
    second, best = np.sort(table, axis=0)[-2:]
    rival = np.where(value >= best[order], second[order], best[order])  # the label that looks like it next to this one
    clear = (first == order) & (value >= CLEAR * table[own, own]) & (value >= CLEAR * rival)
    right, each = first == own, len(labels) / classes
    moved: list[int] = []
    found: tuple[float, list[int]] = (0.0, [])
    places = 0.0
    for cycle in sorted(_cycles(order), key=lambda c: (-clear[c].mean(), len(c))):
        moved = moved + cycle
        places += math.log(len(cycle)) - math.log(classes / len(cycle))
        explained = int(np.delete(right, moved).sum() + clear[moved].sum())
        if explained >= EXPLAINED * classes and _surprise(explained, right, each) >= EVIDENCE:
            found = max(found, (_evidence(classes, moved, clear, right, explained, places), moved))
    return Order(order, found[1], found[0], table)


def _evidence(
    classes: int, moved: list[int], clear: np.ndarray, right: np.ndarray, explained: int, places: float
) -> float:
    """The larger of both kinds of evidence, in nats."""
    from scipy.special import betaln, gammaln
    from scipy.stats import binom

    a, b = PRIOR
    k, as_labelled = len(moved), int(right.sum())
    distinct = -_log_distinct(k)[int(clear[moved].sum())]
    other = betaln(explained + a, classes - explained + b) - betaln(as_labelled + a, classes - as_labelled + b)
    choices = gammaln(classes + 1) - gammaln(k + 1) - gammaln(classes - k + 1)
    unlabelled = -binom.logcdf(int(right[moved].sum()), k, 1 / classes)
    return max(float(other + distinct + places), float(distinct + unlabelled - choices))


def _surprise(explained: int, right: np.ndarray, each: float) -> float:
    """Nats against answers that have nothing to do with the labels, of which images of one class are alike.

    ``each``: images a class; three that agree count as three answers, more of them no more.
    """
    from scipy.stats import binom

    classes = len(right)
    return min(each, 3.0) * -float(
        _log_distinct(classes)[explained] + binom.logcdf(int(right.sum()), classes, 1 / classes)
    )


@lru_cache(maxsize=64)
def _log_distinct(k: int) -> np.ndarray:
    """Log of the probability that ``k`` balls thrown into ``k`` bins fill at least ``0 … k`` of them."""
    filled = np.zeros(k + 1)
    filled[0] = 1.0
    for _ in range(k):
        hit = filled * np.arange(k + 1) / k
        hit[1:] += filled[:-1] * (k - np.arange(k)) / k
        filled = hit
    return np.log(np.maximum(np.cumsum(filled[::-1])[::-1], 1e-300))


def _mean_probabilities(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    logits = np.asarray(logits, dtype=np.float64)
    chances = np.exp(logits - logits.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    table = np.zeros((logits.shape[1],) * 2)
    np.add.at(table, labels, chances)
    return table / np.bincount(labels, minlength=len(table))[:, None]


def _cycles(order: np.ndarray) -> list[list[int]]:
    """The permutation's cycles of two classes or more."""
    seen, found = np.zeros(len(order), dtype=bool), []
    for start in range(len(order)):
        cycle, at = [], start
        while not seen[at]:
            seen[at] = True
            cycle.append(at)
            at = int(order[at])
        if len(cycle) > 1:
            found.append(cycle)
    return found
