"""Statistics on arrays: areas, intervals, sequences, resampling, distances, thresholds. No I/O."""

from holdtrue.stats import sequences
from holdtrue.stats.auc import AucDifference, PairCounts, auc_difference, auc_interval, pair_counts, roc_auc
from holdtrue.stats.distances import (
    jensen_shannon,
    kolmogorov_smirnov,
    kolmogorov_smirnov_counts,
    psi,
    wasserstein,
    wasserstein_counts,
)
from holdtrue.stats.errors import BadNumbers, OneClassOnly
from holdtrue.stats.intervals import Interval, finite
from holdtrue.stats.multiple import adjusted, discoveries
from holdtrue.stats.proportions import clopper_pearson, wilson
from holdtrue.stats.resampling import Bootstrap, bootstrap, mean_bootstrap
from holdtrue.stats.scoring import brier_differences, brier_losses, log_losses, reliability
from holdtrue.stats.sequences import MeanSequence

__all__ = [
    "AucDifference",
    "BadNumbers",
    "Bootstrap",
    "Interval",
    "MeanSequence",
    "OneClassOnly",
    "PairCounts",
    "adjusted",
    "auc_difference",
    "auc_interval",
    "bootstrap",
    "brier_differences",
    "brier_losses",
    "clopper_pearson",
    "discoveries",
    "finite",
    "jensen_shannon",
    "kolmogorov_smirnov",
    "kolmogorov_smirnov_counts",
    "log_losses",
    "mean_bootstrap",
    "pair_counts",
    "psi",
    "reliability",
    "roc_auc",
    "sequences",
    "wasserstein",
    "wasserstein_counts",
    "wilson",
]
