"""Statistics on arrays: areas, intervals, sequences, resampling, distances, thresholds. No I/O."""

from holdtrue.stats import matched, sequences
from holdtrue.stats.agreement import Agreement, agreement
from holdtrue.stats.auc import (
    AucDifference,
    PairCounts,
    auc_difference,
    auc_difference_of_means,
    auc_interval,
    pair_counts,
    roc_auc,
)
from holdtrue.stats.clustered import PairedDifference, clustered_share, paired_difference
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
from holdtrue.stats.leakage import binned, told_alone, told_by_bins
from holdtrue.stats.matched import MatchedDifference
from holdtrue.stats.multiple import adjusted, discoveries
from holdtrue.stats.noise import own_label_rates
from holdtrue.stats.proportions import clopper_pearson, wilson
from holdtrue.stats.ratios import ratio_of_means, typical_ratio
from holdtrue.stats.resampling import Bootstrap, bootstrap, mean_bootstrap
from holdtrue.stats.scoring import brier_differences, brier_losses, log_losses, reliability
from holdtrue.stats.sequences import MeanSequence
from holdtrue.stats.sketches import (
    DISTINCT_ERROR,
    Center,
    Distinct,
    Frequent,
    Moments,
    Quantiles,
    all_differ,
    mixed,
    text_hashes,
)
from holdtrue.stats.subsets import lower_than_chance
from holdtrue.stats.tokens import token_counts

__all__ = [
    "DISTINCT_ERROR",
    "Agreement",
    "AucDifference",
    "BadNumbers",
    "Bootstrap",
    "Center",
    "Distinct",
    "Frequent",
    "Interval",
    "MatchedDifference",
    "MeanSequence",
    "Moments",
    "OneClassOnly",
    "PairCounts",
    "PairedDifference",
    "Quantiles",
    "adjusted",
    "agreement",
    "all_differ",
    "auc_difference",
    "auc_difference_of_means",
    "auc_interval",
    "binned",
    "bootstrap",
    "brier_differences",
    "brier_losses",
    "clopper_pearson",
    "clustered_share",
    "discoveries",
    "finite",
    "jensen_shannon",
    "kolmogorov_smirnov",
    "kolmogorov_smirnov_counts",
    "log_losses",
    "lower_than_chance",
    "matched",
    "mean_bootstrap",
    "mixed",
    "own_label_rates",
    "pair_counts",
    "paired_difference",
    "psi",
    "ratio_of_means",
    "reliability",
    "roc_auc",
    "sequences",
    "text_hashes",
    "token_counts",
    "told_alone",
    "told_by_bins",
    "typical_ratio",
    "wasserstein",
    "wasserstein_counts",
    "wilson",
]
