"""The result of an evaluation of answers, as a newcomer reads it in the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from holdtrue.evaluation.views import short

_LISTED: Final = 5
_WHY: Final = 200
_BAR: Final = 20


def render_eval(summary: Mapping[str, Any], comparison: Mapping[str, Any] | None = None) -> RenderableType:
    """Return what `summarise` (and `compare_answers`) gave, to be printed by a rich console of any width."""
    parts: list[RenderableType] = [*_head(summary), _checks(summary)]
    if summary["slices"]:
        parts += [_title("By slice"), _slices(summary)]
    parts += [_title("Besides"), *_besides(summary)]
    parts += _failures(f"Failed: {summary['failed']} of {summary['n']} questions", summary)
    if comparison is not None:
        parts += _comparison(comparison)
    return Group(*parts)


def _head(summary: Mapping[str, Any]) -> Iterable[RenderableType]:
    times = "" if summary["repeats"] == 1 else f", each asked {summary['repeats']} times"
    release = f", release {summary['release']}" if summary["release"] else ""
    yield Text.assemble(
        (f"{summary['name']}", "bold"), f" ({summary['test_set']}): {summary['n']} questions{times}{release}"
    )
    rate = summary["pass_rate"]
    yield Text.assemble(("Passed ", "bold"), (_percent(rate["mean"]), "bold"), f"  {_bar(rate)}  {_span(rate)}")
    yield Text(
        "The range holds the true rate for questions like these in 95 of 100 evaluations; more questions narrow it.",
        style="dim",
    )
    yield Text()


def _checks(summary: Mapping[str, Any]) -> RenderableType:
    table = _table("check", "passed", "range", "questions", "failed")
    for name, each in summary["checks"].items():
        kind = name if each["kind"] == name else f"{name} ({each['kind']})"
        silent = f" ({each['abstained']} without a verdict)" if each.get("abstained") else ""
        failed = Text(f"{each['failed']}{silent}", style="red" if each["failed"] else "")
        table.add_row(kind, _percent(each["mean"]), _span(each), str(each["n"]), failed)
    return table


def _slices(summary: Mapping[str, Any]) -> RenderableType:
    table = _table("slice", "passed", "range", "questions", "")
    for each in summary["slices"]:
        worse = Text("worse than the rest", style="red") if each["worse"] else Text()
        table.add_row(f"{each['slice']}: {each['value']}", _percent(each["mean"]), _span(each), str(each["n"]), worse)
    return table


def _besides(summary: Mapping[str, Any]) -> Iterable[RenderableType]:
    lines: list[tuple[str, str]] = []
    if "answerable" in summary:
        lines.append(("answered what can be answered", _rate(summary["answerable"]["answered"])))
    if "unanswerable" in summary:
        lines.append(("declined what cannot", _rate(summary["unanswerable"]["declined"])))
    lines.append(("cost, in the gateway's currency", _cost(summary["cost"])))
    lines.append(("time", _latency(summary["latency"])))
    if summary["errors"]:
        lines.append(("no answer", f"{summary['errors']} of {summary['answers']} calls failed"))
    if summary["skipped_slices"]:
        lines.append(("slices not shown", f"{summary['skipped_slices']}, with too few questions to say anything"))
    table = Table.grid(padding=(0, 2))
    for name, text in lines:
        table.add_row(Text(name), Text(text))
    yield table


def _comparison(comparison: Mapping[str, Any]) -> Iterable[RenderableType]:
    found = comparison["champion"]
    yield _title(f"Against {comparison['against']}")
    moved = found["difference"] * 100.0
    words = "better" if moved > 0 else "worse" if moved < 0 else "no difference"
    size = f"{abs(moved):.1f} points {words}" if moved else words
    span = f"{_points(found['lower'])} to {_points(found['upper'])} points"
    table = Table.grid(padding=(0, 2))
    rows = [
        ("quality", f"{_percent(found['champion'])} → {_percent(found['challenger'])}: {size} ({span})"),
        ("probability that it is better", _percent(found["p_better"])),
        ("questions", f"{found['won']} won, {found['lost']} lost, {found['same']} as before"),
        ("cost", _times(comparison["cost_ratio"])),
        ("time", _times(comparison["latency_ratio"])),
    ]
    if found["left_out"]:
        rows.append(("not compared", f"{found['left_out']} questions that are not the same in both"))
    for name, text in rows:
        table.add_row(Text(name), Text(text))
    yield table
    yield from _failures(f"Lost: {found['lost']} questions", comparison)


def _failures(title: str, holder: Mapping[str, Any]) -> Sequence[RenderableType]:
    listed = holder["failures"][:_LISTED]
    if not listed:
        return []
    table = Table.grid(padding=(0, 1))
    for each in listed:
        table.add_row(
            Text("✗", style="red"),
            Text.assemble(short(str(each["what"])), "\n", (short(str(each["why"]), _WHY), "dim")),
        )
    left = holder["failed"] - len(listed)
    more = [Text(f"and {left} more; --json lists them")] if left > 0 else []
    return [_title(title), table, *more]


def _cost(cost: Mapping[str, Any]) -> str:
    if not cost["n"]:
        return "not measured"
    each = f"; {_money(cost['per_correct'])} for each answer that passed" if cost["per_correct"] is not None else ""
    missing = f" (not measured: {cost['unmeasured']} of the answers)" if cost["unmeasured"] else ""
    return f"{_money(cost['mean'])} an answer, {_money(cost['total'])} in all{each}{missing}"


def _latency(latency: Mapping[str, Any]) -> str:
    if not latency["n"]:
        return "not measured"
    return f"half of the answers within {latency['p50']:.2f} s, 95 of 100 within {latency['p95']:.2f} s"


def _times(ratio: Mapping[str, Any]) -> str:
    if ratio["value"] is None:
        return "not measured"
    if ratio["lower"] is None:
        return f"{ratio['value']:.2f} times"
    return f"{ratio['value']:.2f} times ({ratio['lower']:.2f} to {ratio['upper']:.2f})"


def _rate(rate: Mapping[str, Any]) -> str:
    return f"{_percent(rate['mean'])} of {rate['n']} questions ({_span(rate)})"


def _span(rate: Mapping[str, Any]) -> str:
    if rate["lower"] is None:
        return "not known"
    return f"{_percent(rate['lower'])} to {_percent(rate['upper'])}"


def _bar(rate: Mapping[str, Any]) -> str:
    """Return the range on a line from 0 to 100 %, with the rate on it."""
    if rate["mean"] is None:
        return "·" * _BAR
    low, middle, high = (min(_BAR - 1, int(rate[name] * _BAR)) for name in ("lower", "mean", "upper"))
    return "".join("●" if at == middle else "━" if low <= at <= high else "·" for at in range(_BAR))


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share * 100.0:.0f} %"


def _points(share: float) -> str:
    return f"{share * 100.0:+.1f}".replace("-", "−")


def _money(micros: float) -> str:
    return f"{micros / 1e6:.6f}".rstrip("0").rstrip(".") if micros else "0"


def _title(text: str) -> RenderableType:
    return Text(f"\n{text}", style="bold")


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold", justify="right" if name in ("passed", "questions") else "left")
    return table
