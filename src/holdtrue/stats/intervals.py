"""An estimate with its uncertainty, and the quantiles that make one."""

import math
from dataclasses import dataclass

from holdtrue.stats import special


@dataclass(frozen=True, slots=True)
class Interval:
    """Hold an estimate from `n` rows and the limits between which the truth lies; NaN where unknown."""

    value: float
    lower: float
    upper: float
    n: int

    def to_json(self) -> dict[str, float | int | None]:
        """Return the JSON form; an unknown number becomes null."""
        return {
            "value": finite(self.value),
            "lower": finite(self.lower),
            "upper": finite(self.upper),
            "n": self.n,
        }


def finite(value: float) -> float | None:
    """Return `value`, or None where it is NaN or infinite (JSON has neither)."""
    return float(value) if math.isfinite(value) else None


def normal_quantile(probability: float) -> float:
    """Return the standard normal quantile."""
    return float(special.ndtri(probability))


def normal_below(value: float) -> float:
    """Return the probability that a standard normal number is below `value`."""
    return float(special.ndtr(value))


def student_quantile(probability: float, degrees: float) -> float:
    """Return the quantile of Student's t with `degrees` degrees of freedom."""
    return float(special.stdtrit(degrees, probability))


def student_below(value: float, degrees: float) -> float:
    """Return the probability that Student's t with `degrees` degrees of freedom is below `value`."""
    return float(special.stdtr(degrees, value))


def around(value: float, error: float, n: int, quantile: float) -> Interval:
    """Return the symmetric interval value ± quantile · error."""
    return Interval(value, value - quantile * error, value + quantile * error, n)


def around_logit(value: float, error: float, n: int, quantile: float) -> Interval:
    """Return the interval that is symmetric on the logit scale, so that it stays inside (0, 1).

    `error` is the standard error on the original scale (delta method).
    """
    centre = float(special.logit(value))
    reach = quantile * error / (value * (1.0 - value))
    return Interval(value, float(special.expit(centre - reach)), float(special.expit(centre + reach)), n)
