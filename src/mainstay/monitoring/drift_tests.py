"""Do two samples of counted values come from the same source? Tests for finite references and dependent rows.

Three questions are asked: whether any bin's share differs (`shape`), whether numbers have moved to one side (`shift`,
one degree of freedom, so that it sees small moves of everything), and whether what is rare in both samples together has
become more or less frequent (`rare`, where chi-square does not hold). Each has a p-value for rows that are independent,
and one for each way to look at the noise otherwise: that which the samples' own units show; that between whole windows.
The largest of them is valid wherever one of them is, and counts as far as rows may depend on each other (`together`);
of what is rare, whose dependence few rows can show, it counts always.

`noises` are sources of noise that do not depend on each other, of reference and window: their covariances add up.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np
from scipy.special import bdtr, bdtrc, chdtrc, fdtrc, ndtri, stdtr

from mainstay.monitoring.drift_noise import Noise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Whole: TypeAlias = NDArray[np.int64]
    Places: TypeAlias = NDArray[np.intp]

FEWEST_EXPECTED: Final = 5.0  # rows in a group of the smaller sample
FEWEST_TO_SOLVE: Final = 3  # degrees of freedom
LEAST_SHARE: Final = 0.05  # of all rows, of a group of neighbours: more groups see less of what most drifts are


class Two(NamedTuple):
    """Two samples over the same k bins. Neither is empty; in the tests of shape and shift no bin is."""

    reference: Floats  # (k,) counts
    window: Floats  # (k,)
    expected: Floats  # (k,) the shares of both together
    apart: Floats  # (k,) the window's shares less the reference's
    unit: float  # 1 / n + 1 / m: the noise of a score of variance 1, where rows are independent


def two_of(reference: Floats, window: Floats) -> Two:
    n, m = float(reference.sum()), float(window.sum())
    return Two(reference, window, (reference + window) / (n + m), window / m - reference / n, 1 / n + 1 / m)


def groups_of(reference: Whole, window: Whole, *, ordered: bool) -> Places:
    """The bins that are judged together, so that none is too rare for the tests: (k,) group of each bin, from 0.

    A group is to be expected in at least five rows of the smaller sample. Where bins are in order neighbours go
    together until they have a twentieth of all rows (the last bin, of the missing, is beside them); otherwise the
    rarest do. Only the counts of both samples together decide, which say nothing about their difference.
    """
    expected = expected_rows(reference, window)
    return _neighbours(expected) if ordered else _rarest(expected)


def expected_rows(reference: Whole, window: Whole) -> Floats:
    """(k,) how many rows of each bin are to be expected in the smaller sample, were both of one source."""
    n, m = int(reference.sum()), int(window.sum())
    return np.asarray((reference + window) * (min(n, m) / max(1, n + m)), np.float64)


def gathering(groups: Places) -> Floats:
    """(k, groups) what counts or shares of bins are multiplied with, (…, k), to be those of groups, (…, groups)."""
    chosen = np.zeros((len(groups), int(groups.max()) + 1))
    chosen[np.arange(len(groups)), groups] = 1.0
    return chosen


def normal_scores(expected: Floats) -> Floats:
    """(k,) the mean of a standard normal over each of k shares in order: van der Waerden's scores (1952) for ties.

    Centred, and of variance 1 over the shares. Nothing is as good for normal values that all move a little, and an
    outlier counts for no more than the place it has.
    """
    upper = np.minimum(np.cumsum(expected), 1.0)
    cuts = ndtri(np.concatenate([[0.0], upper[:-1], [1.0]]))
    heights = np.exp(-0.5 * cuts**2) / math.sqrt(2 * math.pi)
    scores = (heights[:-1] - heights[1:]) / expected
    scores -= expected @ scores
    variance = float(expected @ scores**2)
    return np.asarray(scores / math.sqrt(variance) if variance > 0 else scores)


def together(by_rows: float, by_units: Sequence[float], doubt: float) -> float:
    """The p-value of one question: the largest of all, less what `doubt` leaves of its distance to that of rows.

    Never below that of independent rows, so it is valid where they are, and never below `doubt` times the largest.
    """
    return by_rows + doubt * (max([by_rows, *by_units]) - by_rows)


def shape_independent(two: Two) -> float:
    """The p-value of homogeneity where rows are independent: Cressie & Read (1984), "Multinomial goodness-of-fit
    tests", with lambda 2/3, whose tail is nearer to chi-square's than those of X^2 and G are.
    """
    k = len(two.window)
    if k < 2:
        return 1.0
    total = 0.0
    for observed in (two.reference, two.window):
        expected = two.expected * observed.sum()
        total += float(np.sum(observed * ((observed / expected) ** (2 / 3) - 1)))
    return float(chdtrc(k - 1, max(0.0, 1.8 * total)))


class Excess(NamedTuple):
    """What X^2 is like under the noise that units show; its mean is k - 1 where rows are independent."""

    mean: float
    variance: float
    freedom: float  # of the chi-square with its skewness
    known: float  # degrees of freedom that the noise in any one direction is known with


def excess(two: Two, noises: Sequence[Noise]) -> Excess:
    scale = 1 / np.sqrt(two.expected * two.unit)
    scaled = [Noise(noise.parts * scale, noise.freedom).widened() for noise in noises]
    means = [float((each.parts**2).sum()) for each in scaled]
    mean = sum(means)
    if mean <= 0:
        return Excess(0.0, 0.0, 1.0, 1.0)
    parts = np.concatenate([each.parts for each in scaled])
    known = mean**2 / sum(own**2 / each.freedom for own, each in zip(means, scaled, strict=True))
    second, third = _traces(parts.T @ parts, mean, known)
    return Excess(mean, 2 * second, max(1.0, second**3 / third**2), known)


def _traces(covariance: Floats, mean: float, known: float) -> tuple[float, float]:
    """The traces of the square and of the cube of a covariance of trace `mean`, less what estimating it adds to them.

    Few units make a covariance seem to lie in fewer directions than it does, and X^2 more restless than it is. From
    three degrees of freedom on the moments of Wishart's distribution (1928) are solved for those of the truth, and
    held to what they can be: those of a covariance that is the same in all k - 1 directions, at least.
    """
    squared = covariance @ covariance
    second, third = float(np.trace(squared)), float(np.sum(squared * covariance))
    n, k = known, len(covariance)
    if n > FEWEST_TO_SOLVE:
        cubes = n**2 * (n**2 * third - 3 * n * mean * second + 2 * mean**3) / ((n - 1) * (n - 2) * (n + 2) * (n + 4))
        squares = n * (n * second - mean**2) / ((n - 1) * (n + 2))
        second = min(mean**2, max(mean**2 / max(1, k - 1), squares))
        third = min(second**1.5, max(second**2 / mean, cubes))
    return second, third


def shape_dependent(two: Two, seen: Excess) -> float:
    """The p-value of homogeneity under the noise that units show.

    Under that noise X^2 is a sum of squares of unequal weight, the eigenvalues of the covariance, and no chi-square
    (Rao & Scott 1981). It is held against one with the same mean, variance and skewness (Hall 1983; Buckley & Eagleson
    1988, "An approximation to the distribution of quadratic forms in normal random variables"), with F for chi-square,
    since the weights are known with few degrees of freedom (Thomas & Rao 1987, "Small-sample comparisons of level and
    power for simple goodness-of-fit statistics under cluster sampling").
    """
    if len(two.window) < 2:
        return 1.0
    if seen.mean <= 0:
        return 0.0 if np.any(two.apart) else 1.0
    statistic = float(np.sum(two.apart**2 / two.expected)) / two.unit
    standardised = (statistic - seen.mean) / math.sqrt(seen.variance)
    as_chi_square = seen.freedom + standardised * math.sqrt(2 * seen.freedom)
    return float(fdtrc(seen.freedom, seen.known * seen.freedom, max(0.0, as_chi_square / seen.freedom)))


def shift_noise(noises: Sequence[Noise], scores: Floats) -> tuple[float, float]:
    """The variance of the difference of the mean scores, and its degrees of freedom."""
    found = [noise.along(scores) for noise in noises]
    total = sum(variance for variance, _ in found)
    if total <= 0:
        return 0.0, 1.0
    return total, total**2 / sum(variance**2 / freedom for variance, freedom in found)


def shift_dependent(moved: float, variance: float, freedom: float) -> float:
    """The p-value of a difference of mean scores under the noise that units show: Welch's t (1947)."""
    if variance <= 0:
        return 0.0 if moved != 0 else 1.0
    return float(2 * stdtr(freedom, -abs(moved) / math.sqrt(variance)))


def rare_independent(rare: tuple[int, int], sizes: tuple[int, int]) -> float:
    """The p-value of so many rare rows, where rows are independent: Fisher's exact test (1935) by binomials.

    `rare` and `sizes` are of reference and window. For more of them in the window, one is added to the reference's:
    values beyond the smallest and the largest of the reference are rare by the choice of the bins, and the chance that
    so many lie beyond the two is that of a draw with one more row.
    """
    both, share = sum(rare), sizes[1] / sum(sizes)
    more = float(bdtrc(rare[1] - 1, both + 1, share)) if rare[1] else 1.0
    fewer = float(bdtr(rare[1], both, share))
    return min(1.0, 2 * min(more, fewer))


def rare_dependent(two: Two, noises: Sequence[Noise], rare: Floats) -> float:
    """The same under the noise that units show. `rare: (k,)` is 1 for bins that are rare; two and noises bin by bin."""
    return shift_dependent(float(two.apart @ rare), *shift_noise(noises, rare))


def _neighbours(expected: Floats) -> Places:
    """Groups of neighbours; what is left over at the end joins the last group, and a rare last bin the one before."""
    groups = np.zeros(len(expected), np.intp)
    group, held = 0, 0.0
    enough = max(FEWEST_EXPECTED, LEAST_SHARE * float(expected.sum()))
    for i, each in enumerate(expected[:-1].tolist()):
        groups[i] = group
        held += each
        if held >= enough:
            group, held = group + 1, 0.0
    last = max(0, group - 1)
    groups[groups > last] = last
    groups[-1] = last + 1 if expected[-1] >= FEWEST_EXPECTED and group else last
    return groups


def _rarest(expected: Floats) -> Places:
    order = np.argsort(-expected, kind="stable")
    enough = int(np.count_nonzero(expected >= FEWEST_EXPECTED))
    groups = np.empty(len(expected), np.intp)
    groups[order] = np.minimum(np.arange(len(expected)), enough)
    if enough and float(expected[order[enough:]].sum()) < FEWEST_EXPECTED:
        groups[order[enough:]] = enough - 1
    return groups
