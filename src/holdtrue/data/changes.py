"""What a change of a contract means: whether those who read the data lose something, or those who deliver it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from holdtrue.core.codec import dump
from holdtrue.data.columns import RULES, Column
from holdtrue.data.contract import Contract
from holdtrue.data.rules import TableRule, columns_of, name_of
from holdtrue.data.tags import NO_TAGS, Tags

Effect = Literal["breaking", "stricter", "harmless"]
_RANK = {"warn": 0, "quarantine": 1, "block": 2}


@dataclass(frozen=True, slots=True)
class ContractChange:
    """Say what changed, in which columns, and whom it concerns.

    *breaking* takes away something that features and models may rely on; *stricter* may keep deliveries out that
    passed before; *harmless* is neither.
    """

    subject: str
    what: str
    effect: Effect
    columns: tuple[str, ...]


def contract_changes(before: Contract, after: Contract) -> list[ContractChange]:
    """Return every difference between two contracts, the breaking ones first."""
    old, new = ({column.name: column for column in side.columns} for side in (before, after))
    found: list[ContractChange] = []
    for name in dict.fromkeys([*old, *new]):
        if name not in new:
            found.append(ContractChange(name, f"the column “{name}” is gone", "breaking", (name,)))
        elif name not in old:
            found.append(ContractChange(name, f"the column “{name}” is new", "stricter", (name,)))
        else:
            found += [ContractChange(name, what, effect, (name,)) for what, effect in _column(old[name], new[name])]
    found += _rules(before, after)
    order = {"breaking": 0, "stricter": 1, "harmless": 2}
    return sorted(found, key=lambda each: order[each.effect])


def _column(before: Column, after: Column) -> Iterator[tuple[str, Effect]]:
    name = before.name
    if before.dtype != after.dtype:
        yield f"“{name}” becomes {after.dtype}, and was {before.dtype}", "breaking"
    if before.nullable != after.nullable:
        yield (
            (f"“{name}” may be missing now", "breaking")
            if after.nullable
            else (f"“{name}” may no longer be missing", "stricter")
        )
    yield from _end(name, "least", before.ge, after.ge, -1)
    yield from _end(name, "largest", before.le, after.le, 1)
    yield from _values(name, before.isin, after.isin)
    if before.pattern != after.pattern:
        # Whether one pattern allows what another does is not decided here: both sides are warned.
        what = f"“{name}” matches {after.pattern or 'anything'}, and was {before.pattern or 'anything'}"
        yield what, "stricter" if before.pattern is None else "breaking"
    if before.unique != after.unique:
        yield (
            (f"“{name}” is unique now", "stricter") if after.unique else (f"“{name}” may occur twice now", "breaking")
        )
    for rule in RULES:
        old, new = before.severity_of(rule), after.severity_of(rule)
        if old != new and _has(before, rule) and _has(after, rule):
            yield f"the rule “{rule}” of “{name}” does {new}, and did {old}", _severity(old, new)
    yield from _tags(name, before.tags or NO_TAGS, after.tags or NO_TAGS)


def _tags(name: str, before: Tags, after: Tags) -> Iterator[tuple[str, Effect]]:
    """Yield what is tagged otherwise: fewer purposes, or other terms, take something from those who use a column."""
    if before.personal != after.personal:
        kind = "no personal data" if after.personal is None else f"personal data ({after.personal})"
        yield f"“{name}” is {kind} now", "harmless" if after.personal is None else "breaking"
    if before.purposes != after.purposes:
        narrower = after.purposes is not None and (
            before.purposes is None or set(before.purposes) - set(after.purposes)
        )
        now = "anything" if after.purposes is None else ", ".join(after.purposes) or "nothing"
        was = "anything" if before.purposes is None else ", ".join(before.purposes) or "nothing"
        yield f"“{name}” may be used for {now}, and was for {was}", "breaking" if narrower else "harmless"
    if before.licence != after.licence:
        yield f"“{name}” has the licence {after.licence or '–'}, and had {before.licence or '–'}", "breaking"
    if before.source != after.source:
        yield f"“{name}” comes from {after.source or '–'}, and came from {before.source or '–'}", "harmless"


def _has(column: Column, rule: str) -> bool:
    if rule == "null":
        return not column.nullable
    value: Any = getattr(column, rule)
    return value is not None and value is not False


def _end(name: str, which: str, before: float | None, after: float | None, sign: int) -> Iterator[tuple[str, Effect]]:
    if before == after:
        return
    if after is None:
        yield f"“{name}” has no {which} value any more, and had {before:g}", "breaking"
    elif before is None:
        yield f"the {which} value of “{name}” is {after:g} now", "stricter"
    else:
        wider = (after - before) * sign > 0
        yield (
            f"the {which} value of “{name}” becomes {after:g}, and was {before:g}",
            "breaking" if wider else "stricter",
        )


def _values(name: str, before: tuple[str, ...] | None, after: tuple[str, ...] | None) -> Iterator[tuple[str, Effect]]:
    if before is None and after is None:
        return
    if after is None:
        yield f"“{name}” may have any value now", "breaking"
    elif before is None:
        yield f"“{name}” is one of {', '.join(after)} now", "stricter"
    else:
        more, less = sorted(set(after) - set(before)), sorted(set(before) - set(after))
        if more:
            yield f"“{name}” may be {', '.join(more)} now", "breaking"
        if less:
            yield f"“{name}” may no longer be {', '.join(less)}", "stricter"


def _rules(before: Contract, after: Contract) -> Iterator[ContractChange]:
    old, new = _by_name(before), _by_name(after)
    for key in dict.fromkeys([*old, *new]):
        side = after if key in new else before
        rule = new.get(key) or old[key]
        columns = columns_of(rule, side.columns)
        subject = f"the rule “{rule.rule}” of {name_of(rule)}"
        if key not in new:
            yield ContractChange(name_of(rule), f"{subject} is gone", "breaking", columns)
        elif key not in old:
            effect: Effect = "harmless" if rule.severity == "warn" else "stricter"
            yield ContractChange(name_of(rule), f"{subject} is new", effect, columns)
        elif old[key] != new[key]:
            same = _but_severity(old[key]) == _but_severity(new[key])
            effect = _severity(old[key].severity, new[key].severity) if same else "breaking"
            yield ContractChange(name_of(rule), f"{subject} changed", effect, columns)


def _by_name(contract: Contract) -> Mapping[tuple[str, str], TableRule]:
    return {(rule.rule, name_of(rule)): rule for rule in contract.rules}


def _but_severity(rule: TableRule) -> dict[str, Any]:
    return {name: value for name, value in dump(rule).items() if name != "severity"}


def _severity(before: str, after: str) -> Effect:
    return "breaking" if _RANK[after] < _RANK[before] else "stricter"
