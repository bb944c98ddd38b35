"""Label-robust and augmentation-robust scores (DD-Ranking, arXiv 2505.13300, sections 3.2 and 3.3), in fractions.

All accuracies are percent; all scores are fractions. DD-Ranking picks rates on the test split and reports its best
epoch; here the accuracies are last-epoch ones of records.
"""

from __future__ import annotations

import math


def label_gap(hard: float, full: float) -> float:
    """HLR: how far hard-label training on the set stays below training on the full data (smaller is better)."""
    return (full - hard) / 100


def gain_over_random(soft: float, random_soft: float) -> float:
    """IOR: gain over random real images under the same soft labels."""
    return (soft - random_soft) / 100


def squashed(value: float) -> float:
    """Map -1..1 to 0..1 as (e^x - e^-1) / (e - e^-1)."""
    return (math.exp(value) - math.exp(-1)) / (math.e - math.exp(-1))


def label_robust_score(hard: float, full: float, soft: float, random_soft: float, weight: float = 0.5) -> float:
    """LRS: ``weight`` x gain over random - (1 - weight) x gap to full data, mapped to 0..1 (larger is better)."""
    return squashed(weight * gain_over_random(soft, random_soft) - (1 - weight) * label_gap(hard, full))


def augmentation_robust_score(
    augmented: float, random_augmented: float, plain: float, random_plain: float, weight: float = 0.5
) -> float:
    """ARS: gains over random with and without augmentation, weighted and mapped to 0..1."""
    gains = gain_over_random(augmented, random_augmented), gain_over_random(plain, random_plain)
    return squashed(weight * gains[0] + (1 - weight) * gains[1])
