"""Which β is best over seeds, and how sure that is: a statistic, never one lucky run."""

import math
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4_000
LEVEL = 0.05


@dataclass(frozen=True)
class Recommendation:
    """A β, and what seeds and held-out examples say about it.

    shares: for each β tried, the share of resamples in which it is best.
    ties: the other β that cannot be told apart from it with these seeds and examples.
    gain: its mean accuracy minus that of labels only; gain_is_sure: whether that is above chance.
    """

    beta: float
    shares: dict[float, float]
    ties: tuple[float, ...]
    seeds: int
    gain: float
    gain_is_sure: bool

    @property
    def share(self) -> float:
        """The share of resamples in which the recommended β is best."""
        return self.shares[self.beta]

    def __str__(self) -> str:
        others = ", ".join(f"{beta:g}" for beta in self.ties)
        apart = (
            f"{self.seeds} seeds cannot tell it from β = {others}"
            if others
            else f"{self.seeds} seeds tell it from every other β tried"
        )
        sure = "" if self.gain_is_sure else ", which may be chance"
        return (
            f"β = {self.beta:g}: best in {self.share:.0%} of resamples. {apart}. "
            f"Against labels only: {100 * self.gain:+.1f} points{sure}."
        )


def recommend(right: dict[float, np.ndarray], labels_only: np.ndarray) -> Recommendation:
    """The β with the highest mean accuracy over seeds (of equals the lowest β), and how sure.

    Args:
        right: for each β a (seeds, examples) array of 0 and 1: which held-out examples that seed's
            student got right. Row s of every β comes from the same initial weights and batches,
            so that β are compared seed by seed and example by example.
        labels_only: the same for students that learn from labels alone.

    How sure, in two ways; both count the chance in the seeds and that in the examples:

    - shares: seeds and examples are drawn with replacement, the same for every β, 4,000 times, and
      the β with the best mean is counted; those that are equal share the count.
    - ties: β' is told apart from the best if a one-sided t-test on d = right − right', with the
      mean of d over its variance V_s / n + V_e / m, rejects "no better" at 5 %, divided by the
      number of β compared (Bonferroni). V_s is the variance of the n seeds' means of d, V_e that of
      the m examples' means; the degrees of freedom are Satterthwaite's. What is left when both
      means are taken out counts in both, which errs on the side of caution.

    Sources: Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2), 2007; Cameron,
    Gelbach, Miller, "Robust Inference With Multiway Clustering", Journal of Business & Economic
    Statistics 29(2), 2011; Satterthwaite, "An Approximate Distribution of Estimates of Variance
    Components", Biometrics Bulletin 2(6), 1946.

    Raises ValueError for fewer than three seeds, or arrays of different shapes.

    >>> generator = np.random.default_rng(0)
    >>> good, poor = (generator.random((5, 200)) < share for share in (0.9, 0.7))
    >>> print(recommend({0.25: good, 1.0: poor}, poor))
    β = 0.25: best in 100% of resamples. 5 seeds tell it from every other β tried.
    Against labels only: +18.8 points.
    """
    seeds, examples = np.shape(labels_only)
    if seeds < 3:
        raise ValueError(f"labels_only: got {seeds} seeds; expected at least 3")
    for beta, answers in right.items():
        if np.shape(answers) != (seeds, examples):
            raise ValueError(
                f"right: got shape {np.shape(answers)} for β = {beta:g}; "
                f"expected {(seeds, examples)}"
            )
    betas = sorted(right)
    table = np.array([right[beta] for beta in betas], dtype=float)  # (betas, seeds, examples)
    best = int(_is_best(table.mean((1, 2))).argmax())

    winners = _is_best(_resampled(table))  # (betas, resamples)
    shares = (winners / winners.sum(0)).mean(1)

    others = [i for i in range(len(betas)) if i != best]
    alone = np.asarray(labels_only, dtype=float)
    return Recommendation(
        beta=betas[best],
        shares=dict(zip(betas, shares.tolist(), strict=True)),
        ties=tuple(
            betas[i] for i in others if not _is_above_0(table[best] - table[i], len(others))
        ),
        seeds=seeds,
        gain=float(table[best].mean() - alone.mean()),
        gain_is_sure=_is_above_0(table[best] - alone, 1),
    )


def _resampled(table: np.ndarray) -> np.ndarray:
    """(betas, resamples) means of (betas, seeds, examples), seeds and examples drawn anew."""
    random = np.random.default_rng(0)
    means = []
    for _ in range(RESAMPLES):
        # How often each is drawn, instead of which: then a mean is a product.
        seeds, examples = (random.multinomial(n, np.full(n, 1 / n)) / n for n in table.shape[1:])
        means.append(seeds @ table @ examples)
    return np.array(means).T


def _is_best(means: np.ndarray) -> np.ndarray:
    """Which of the first axis' means are the highest; the slack is for sums of rounded numbers."""
    return means >= means.max(0) - 1e-9


def _is_above_0(difference: np.ndarray, comparisons: int) -> bool:
    """Whether the mean of a (seeds, examples) array is above 0 by more than chance."""
    from scipy import stats

    seeds, examples = difference.shape
    by_seed = difference.mean(1).var(ddof=1) / seeds
    by_example = difference.mean(0).var(ddof=1) / examples
    variance = by_seed + by_example
    if variance == 0:
        # No example's mean differs from another's: all of d is one number, 0 or ±1.
        return bool(difference.mean() > 0)
    freedom = variance**2 / (by_seed**2 / (seeds - 1) + by_example**2 / (examples - 1))
    t = difference.mean() / math.sqrt(variance)
    return bool(t > stats.t.ppf(1 - LEVEL / comparisons, df=freedom))
