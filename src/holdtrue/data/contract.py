"""What data must look like: one definition, compiled to a table scan and to a request check."""

from dataclasses import dataclass, field, replace

from holdtrue.core.errors import ConfigurationError
from holdtrue.data.columns import Column, Finding, check_column
from holdtrue.data.rules import Expect, TableRule, Unique, check_rule, columns_of


@dataclass(frozen=True, slots=True)
class Contract:
    """Hold what a table, and each request made of its columns, must look like."""

    columns: tuple[Column, ...]
    rules: tuple[TableRule, ...] = ()

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigurationError(
                f"The contract describes “{twice[0]}” twice.",
                why="A column has one description.",
                mend="Join the two descriptions into one.",
            )
        for column in self.columns:
            check_column(column)
        for rule in self.rules:
            check_rule(rule, self.columns)

    def only(self, names: "tuple[str, ...]") -> "Contract":
        """Return what a request made of the columns in `names`, in that order, has to keep."""
        known = {column.name: column for column in self.columns}
        # What a column may be used for is no matter of a request.
        chosen = tuple(replace(known[name], tags=None) for name in names if name in known)
        # A request knows neither other datasets nor other deliveries.
        rules = tuple(
            rule
            for rule in self.rules
            if isinstance(rule, Expect | Unique) and set(columns_of(rule, self.columns)) <= set(names)
        )
        return Contract(chosen, rules)


@dataclass(frozen=True, slots=True)
class Report:
    """Hold what a check found; it passed if nothing blocks. `quarantined` are row numbers, ascending."""

    rows: int
    findings: tuple[Finding, ...]
    quarantined: tuple[int, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """Tell whether the delivery may be taken in (without its quarantined rows)."""
        return all(finding.severity != "block" for finding in self.findings)
