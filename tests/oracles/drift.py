"""Slow models of drift: SciPy on raw samples, and sums in plain Python. They share no code with `store`."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from scipy import stats
from scipy.spatial import distance


def rounded(value: float) -> float:
    """Returns the middle of the 64th part of its octave that a number lies in; not for numbers below 1e-300."""
    if value == 0:
        return 0.0
    mantissa, exponent = math.frexp(abs(value))
    step = math.floor((mantissa - 0.5) * 128)
    return math.copysign(math.ldexp(0.5 + (step + 0.5) / 128, exponent), value)


def psi(reference: Sequence[int], current: Sequence[int]) -> float:
    """Returns the population stability index, an empty cell counting as half a row where the other is not empty."""
    total = 0.0
    for before, after in zip(reference, current, strict=True):
        if before or after:
            share_before = max(before, 0.5) / sum(reference)
            share_after = max(after, 0.5) / sum(current)
            total += (share_after - share_before) * math.log(share_after / share_before)
    return total


def psi_of_divergences(reference: Sequence[int], current: Sequence[int]) -> float:
    """Returns the index where no cell is empty, as the sum of two Kullback-Leibler divergences of SciPy."""
    return float(stats.entropy(reference, current) + stats.entropy(current, reference))


def jensen_shannon(reference: Sequence[int], current: Sequence[int]) -> float:
    """Returns SciPy's Jensen-Shannon distance in base 2."""
    return float(distance.jensenshannon(reference, current, base=2))


def kolmogorov_smirnov(reference: Sequence[float], current: Sequence[float]) -> float:
    """Returns SciPy's Kolmogorov-Smirnov distance of two samples."""
    return float(stats.ks_2samp(reference, current, method="asymp").statistic)


def wasserstein(reference: Sequence[float], current: Sequence[float]) -> float:
    """Returns SciPy's Wasserstein distance of two samples in standard deviations of the reference."""
    return float(stats.wasserstein_distance(reference, current)) / float(np.std(reference))


def chi_squared(reference: Sequence[int], current: Sequence[int], *, is_likelihood: bool) -> tuple[float, int, float]:
    """Returns statistic, degrees of freedom and p-value of SciPy's test of a contingency table."""
    how = "log-likelihood" if is_likelihood else "pearson"
    found = stats.chi2_contingency([reference, current], correction=False, lambda_=how)
    return float(found.statistic), int(found.dof), float(found.pvalue)


def kolmogorov(effect: float, reference: int, current: int) -> float:
    """Returns the p-value of a Kolmogorov-Smirnov distance by SciPy's limit distribution."""
    return float(stats.kstwobign.sf(effect * math.sqrt(reference * current / (reference + current))))


def rates(reference: int, of_reference: int, current: int, of_current: int) -> float:
    """Returns twice the lesser tail of SciPy's exact test, at most 1."""
    table = [[current, of_current - current], [reference, of_reference - reference]]
    tails = [stats.fisher_exact(table, alternative=side).pvalue for side in ("less", "greater")]
    return min(1.0, 2 * float(min(tails)))


def chance_of_unseen(reference: Sequence[int], current: Sequence[int]) -> float:
    """Returns the chance of at least as many current rows of categories without a reference row: every split tried."""
    rows = [place for place, pair in enumerate(zip(reference, current, strict=True)) for _ in range(sum(pair))]
    found = sum(after for before, after in zip(reference, current, strict=True) if not before)
    whole = Counter(rows)
    hits = splits = 0
    for chosen in combinations(range(len(rows)), sum(current)):
        here = Counter(rows[place] for place in chosen)
        splits += 1
        hits += sum(count for category, count in here.items() if count == whole[category]) >= found
    return hits / splits


def holm(chances: Mapping[str, float], rate: float) -> set[str]:
    """Returns what Holm's procedure rejects, step by step as he wrote it."""
    rejected: set[str] = set()
    left = dict(chances)
    while left:
        name = min(left, key=lambda each: left[each])
        if left[name] > rate / len(left):
            break
        rejected.add(name)
        del left[name]
    return rejected
