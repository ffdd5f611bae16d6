"""What each feature is worth to a model: how much worse it gets on held-out rows when the feature is shuffled.

The value of a feature is the area under the ROC curve with all features as they are less that with its values permuted
over the rows (Breiman, “Random Forests”, 2001, section 10), with DeLong's interval of paired areas over days. A view is
also shuffled as a whole, since its features may stand in for each other, and it is looked up and stored as a whole.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from holdtrue.evaluation import mean_interval
from holdtrue.features import FeatureSet
from holdtrue.project.rows import Rows
from holdtrue.stats import auc_difference

MOST_ROWS: Final = 2000
_DAY: Final = 86_400_000_000
_NAMED: Final = 20


def usefulness(
    features: FeatureSet,
    rows: Rows,
    score: Callable[[Any], Any],
    *,
    loss: Callable[[Any, Any], Any] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the value of each feature and view on held-out rows, and which of them cannot be told from noise.

    At most 2,000 rows are used, evenly spread. `noise` names what has an interval that reaches down to 0: leaving it
    out would not be noticed on these rows. With `loss`, the value is how much larger its mean gets.
    """
    places = np.unique(np.linspace(0, max(0, len(rows.y) - 1), MOST_ROWS).astype(np.intp))[: len(rows.y)]
    matrix, y, days = rows.X[places], rows.y[places], rows.times[places] // _DAY
    if len(np.unique(y)) < 2:
        return {"rows": len(y), "features": {}, "views": {}, "noise": _named([], [])}
    whole = score(matrix)
    losses = None if loss is None else loss(y, np.asarray(whole, np.float64))
    shuffled = np.random.default_rng(seed).permutation(len(y))

    def value(names: Sequence[str]) -> Mapping[str, float]:
        columns = [features.names.index(name) for name in names]
        spoilt = matrix.copy()
        spoilt[:, columns] = matrix[shuffled][:, columns]
        if loss is not None:
            grown = mean_interval(loss(y, np.asarray(score(spoilt), np.float64)) - losses, blocks=days)
            return {"value": _round(grown.value), "lower": _round(grown.lower), "upper": _round(grown.upper)}
        found = auc_difference(y, score(spoilt), whole, blocks=days)
        return {"value": _round(found.difference), "lower": _round(found.lower), "upper": _round(found.upper)}

    each = {name: value([name]) for name in features.names}
    views = {view.name: value(view.features) for view in features.views}
    noise = [name for name, found in each.items() if not found["lower"] > 0.0]
    return {
        "rows": len(y),
        "features": each,
        "views": views,
        "noise": _named(noise, [name for name, found in views.items() if not found["lower"] > 0.0]),
    }


def _named(features: Sequence[str], views: Sequence[str]) -> dict[str, Any]:
    return {"features": len(features), "names": list(features[:_NAMED]), "views": list(views[:_NAMED])}


def _round(value: float) -> float:
    return round(float(value), 6)
