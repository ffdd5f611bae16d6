"""Rules about a delivery as a whole: how many rows, how fresh, distributed as before; and what they must know."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from holdtrue.core.clock import from_microseconds
from holdtrue.core.errors import InvalidInput
from holdtrue.data.columns import Finding
from holdtrue.data.contract import Contract
from holdtrue.data.profiles import Profile, shift
from holdtrue.data.profiling import profile_table
from holdtrue.data.rules import Distribution, Fresh, KeyInto, RowCount, TableRule, rule_broken, seconds_of


@dataclass(frozen=True, slots=True)
class Around:
    """Hold what a contract needs besides the rows.

    `until` is the present moment, or the end of the window if that is earlier; `keys` are the values of other
    datasets by (dataset, column); `before` is the profile of what was accepted before, None if nothing was.
    """

    until: datetime | None = None
    keys: Mapping[tuple[str, str], Any] = field(default_factory=dict[tuple[str, str], Any])
    before: Profile | None = None

    def keys_of(self, rule: KeyInto) -> Any:
        """Return the values that a rule's column may have; InvalidInput if nobody looked them up."""
        if (rule.dataset, rule.of) not in self.keys:
            raise InvalidInput(
                f"The contract cannot be checked: “{rule.of}” of {rule.dataset} was not given.",
                why=f"Each value of “{rule.column}” has to be in it.",
                mend=f"Take {rule.dataset} in first, and check through its project: holdtrue run --ingest.",
            )
        return self.keys[rule.dataset, rule.of]


NOTHING = Around()


def whole_findings(contract: Contract, columns: Mapping[str, Any], rows: int, around: Around) -> list[Finding]:
    """Return the findings about a delivery as a whole; rules of columns that are not sound are left out."""
    found: list[Finding] = []
    for rule in contract.rules:
        if isinstance(rule, RowCount):
            found += _rows(rule, rows)
        elif isinstance(rule, Fresh) and rule.column in columns:
            found += _fresh(rule, columns[rule.column], around)
        elif isinstance(rule, Distribution) and rule.column in columns:
            found += _distribution(rule, columns[rule.column], around)
    return found


def _rows(rule: RowCount, rows: int) -> list[Finding]:
    if rule.ge is not None and rows < rule.ge:
        return [rule_broken(rule, rows, said=f"The delivery has {rows:,} rows, fewer than {rule.ge:,}.")]
    if rule.le is not None and rows > rule.le:
        return [rule_broken(rule, rows, said=f"The delivery has {rows:,} rows, more than {rule.le:,}.")]
    return []


def _fresh(rule: Fresh, column: Any, around: Around) -> list[Finding]:
    if around.until is None:
        raise _unknown(rule, "the moment up to which rows are wanted")
    newest = pc.call_function("max", [column.cast(pa.int64())]).as_py()
    if newest is None:
        return [rule_broken(rule, 0, said=f"“{rule.column}” has no moment at all.")]
    late = around.until - from_microseconds(newest)
    if late <= timedelta(seconds=seconds_of(rule.within)):
        return []
    said = f"The newest “{rule.column}” is {from_microseconds(newest).isoformat()}, {_span(late)} before the end."
    return [rule_broken(rule, 1, said=f"{said} At most {rule.within} was agreed.")]


def _distribution(rule: Distribution, column: Any, around: Around) -> list[Finding]:
    before = None if around.before is None else around.before.column(rule.column)
    if before is None:
        return []
    (after,) = profile_table(pa.table({rule.column: column})).columns
    moved = shift(before, after)
    distance = moved["distance"]
    if distance is None or distance <= rule.within:
        return []
    said = f"“{rule.column}” is distributed otherwise than before: distance {distance:.3f}, at most {rule.within:g}"
    means = f", mean {moved['mean'][0]} → {moved['mean'][1]}" if before.kind != "text" else ""
    return [rule_broken(rule, after.rows, said=f"{said}{means}.")]


def _unknown(rule: TableRule, what: str) -> InvalidInput:
    return InvalidInput(
        f"The rule “{rule.rule}” cannot be checked without {what}.",
        why="A rule that is not checked must not count as kept.",
        mend="Check through the project: holdtrue run --ingest.",
    )


def _span(late: timedelta) -> str:
    hours = late.total_seconds() / 3600
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} hours"
