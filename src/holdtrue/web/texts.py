"""Numbers, moments and ids as people read them, the same on every page and in the report."""

import math
import re
from datetime import date, datetime, timedelta
from typing import Any

MISSING = "–"
_HEX_SHOWN = 8
_TEXT_SHOWN = 160
_HEX = re.compile("[0-9a-f]+")


def ratio(value: float | None, digits: int = 3) -> str:
    """Write a number between 0 and 1 (or a difference of two) with a true minus sign."""
    if value is None or value != value:
        return MISSING
    return f"{value:.{digits}f}".replace("-", "−")


def number(value: float | None) -> str:
    """Write a number of any size with four digits: “0.1234”, “12.35”, “1,235”, “250,000”, “3.1e-09”."""
    if value is None or value != value:
        return MISSING
    if value == 0.0:
        return "0"
    if not 1e-6 <= abs(value) < 1e15:
        return f"{value:.4g}".replace("-", "−")
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 8)}f}".replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    """Write a difference with its sign, plus included."""
    if value is None or value != value:
        return MISSING
    return f"{value:+.{digits}f}".replace("-", "−")


def span(lower: float | None, upper: float | None, digits: int | None = 3) -> str:
    """Write an interval as “0.745 – 0.763”, or nothing when it is not known; with digits None, of any size."""
    if lower is None or upper is None or lower != lower or upper != upper:
        return ""
    if digits is None:
        return f"{number(lower)} – {number(upper)}"
    return f"{ratio(lower, digits)} – {ratio(upper, digits)}"


def count(value: float | None) -> str:
    """Write a count with separators between thousands."""
    return MISSING if value is None else f"{round(value):,}".replace("-", "−")


def compact(value: float) -> str:
    """Write a count in the room an axis has: 950, 1.2k, 30k, 4M."""
    for limit, unit in ((1_000_000, "M"), (1_000, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.1f}".removesuffix(".0") + unit
    return f"{value:g}"


def percent(value: float | None, digits: int = 0) -> str:
    """Write a share between 0 and 1 as a percentage."""
    return MISSING if value is None or value != value else f"{value * 100:.{digits}f} %"


def day(moment: date | None) -> str:
    """Write the day of a moment: “3 Sep 2013”."""
    return MISSING if moment is None else f"{moment.day} {moment:%b %Y}"


def days(start: date, end: date) -> str:
    """Write the days from `start` up to, not including, `end`: “5 Apr 2013 – 18 Apr 2013”."""
    return f"{day(start)} – {day(end - timedelta(days=1))}"


def clock_time(moment: datetime | None) -> str:
    """Write a moment to the minute: “3 Sep 2013, 14:05”."""
    return MISSING if moment is None else f"{day(moment)}, {moment:%H:%M}"


def month(moment: date) -> str:
    """Write the month of a moment: “Sep 2013”."""
    return f"{moment:%b %Y}"


def moment_of(text: Any) -> str:
    """Write an ISO 8601 moment as people read it; anything else as it is."""
    try:
        return clock_time(datetime.fromisoformat(str(text)))
    except ValueError:
        return str(text)


def month_name(window: str) -> str:
    """Write a window such as “2013-09” as “Sep 2013”; anything else as it is."""
    try:
        return month(datetime.strptime(window, "%Y-%m"))  # noqa: DTZ007  # a name, not a moment
    except ValueError:
        return window


def metric(name: str) -> str:
    """Write a metric's name as the field does."""
    known = {"roc_auc": "ROC AUC", "brier": "Brier score", "log_loss": "Log loss", "volume": "Volume"}
    known |= {"accuracy": "Accuracy", "macro_f1": "Macro F1", "rmse": "Root mean squared error"}
    known |= {"wrong": "Share of wrong answers", "distance": "How far off, in parts of the scale"}
    known |= {"error": "Share of wrong answers", "mae": "Mean absolute error", "mse": "Mean squared error"}
    return known.get(name, name.replace("_", " "))


def duration(elapsed: timedelta) -> str:
    """Write a length of time in its two largest units."""
    minutes = max(0, round(elapsed.total_seconds() / 60))
    days, rest = divmod(minutes, 24 * 60)
    hours, minutes = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min"


def hours(value: float | None) -> str:
    """Write a number of hours as a length of time."""
    return MISSING if value is None else duration(timedelta(hours=value))


def elapsed(microseconds: float | None) -> str:
    """Write a short length of time with three digits: “240 µs”, “12.3 ms”, “1.24 s”, “3 min 20 s”."""
    if microseconds is None:
        return MISSING
    for unit, size in (("µs", 1), ("ms", 1_000), ("s", 1_000_000)):
        value = microseconds / size
        if round(value) < 1_000 and not (unit == "s" and value >= 60):
            return f"{value:.3g} {unit}" if value < 100 else f"{round(value)} {unit}"
    minutes, seconds = divmod(round(microseconds / 1_000_000), 60)
    return f"{minutes:,} min {seconds} s" if seconds else f"{minutes:,} min"


def took(seconds: float | None) -> str:
    """Write how long a run took: “240 ms”, “12.3 s”, “3 min 20 s”, “2 h 5 min”."""
    if seconds is None:
        return MISSING
    return duration(timedelta(seconds=seconds)) if seconds >= 7200 else elapsed(seconds * 1e6)


def energy(joules: float | None) -> str:
    """Write an energy with three digits: “840 J”, “12.3 kJ”, “1.24 MJ”."""
    if joules is None:
        return MISSING
    unit, size = next(((unit, size) for unit, size in (("MJ", 1e6), ("kJ", 1e3)) if joules >= size), ("J", 1.0))
    return f"{joules / size:.3g} {unit}"


def memory(mebibytes: float | None) -> str:
    """Write an amount of memory: “240 MiB”, “12.3 GiB”."""
    if mebibytes is None:
        return MISSING
    return f"{mebibytes / 1024:,.1f} GiB" if mebibytes >= 1024 else f"{round(mebibytes)} MiB"


def size(count: int) -> str:
    """Write a number of bytes: “812 B”, “3.4 KiB”, “12.0 MiB”, “1.2 GiB”."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} B" if unit == "B" else f"{value:,.1f} {unit}"


def money(value: float | None) -> str:
    """Write what a call cost, small sums with enough digits to tell them apart."""
    if value is None:
        return MISSING
    return f"{value:,.2f}" if value >= 1 else f"{value:.3g}"


def short(identifier: str) -> str:
    """Write an id with eight signs after its prefix, enough to tell it from others on a page."""
    prefix, mark, rest = identifier.partition("_")
    if mark and len(rest) > _HEX_SHOWN:
        return f"{prefix}_{rest[:_HEX_SHOWN]}"
    if not mark and len(identifier) >= 32 and _HEX.fullmatch(identifier):
        return identifier[: _HEX_SHOWN + 4]
    return identifier


def plain(value: Any) -> str:
    """Write a JSON value on one line, cut where it grows long."""
    text = _plain(value)
    return text if len(text) <= _TEXT_SHOWN else f"{text[: _TEXT_SHOWN - 1]}…"


def _plain(value: Any) -> str:
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "−")
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_plain(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    return str(value)


def plural(number: int, one: str, many: str = "") -> str:
    """Write a count with its noun: “no incidents”, “1 incident”, “3 incidents”."""
    noun = one if number == 1 else many or f"{one}s"
    return f"{'no' if number == 0 else count(number)} {noun}"
