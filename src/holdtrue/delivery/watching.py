"""Count what a rollout shows beside its losses: groups, refused requests, slow answers, and quality as estimated.

All of it is of rows that both releases scored (or requests that both would have taken), so that what makes days and
requests differ falls out; each has a confidence sequence that holds at all times at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from holdtrue.delivery.model import Canary
from holdtrue.delivery.rules import Concern
from holdtrue.stats import matched, sequences
from holdtrue.stats.matched import MatchedDifference
from holdtrue.stats.sequences import MeanSequence

REFUSED: Final = "refused"
SLOW: Final = "slow"
ESTIMATED: Final = "estimated"
_BOUNDS: Final[Mapping[str, float]] = MappingProxyType({REFUSED: 1.0, SLOW: 1.0, ESTIMATED: 0.25})
"""Each is a difference, challenger minus champion, between minus this and this."""
_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        REFUSED: "the share of rows that its contract refuses",
        SLOW: "the share of rows that it takes too long for",
        ESTIMATED: "the Brier score that its own probabilities let expect",
    }
)
_MEASURES: Final[Mapping[str, str]] = MappingProxyType({"error": "share of errors", "positive": "share of yes"})
_MOST_GROUPS: Final = 12
_LEAST_ROWS: Final = 50
OTHER: Final = "(other)"


@dataclass(frozen=True, slots=True)
class Group:
    """Hold what is known of the rows with one value of an input, against all other rows.

    `matched` compares half of (challenger's rate minus champion's) + ½ between both, in blocks of neighbours. `inside`
    and `outside` are rows, and how many of them count by the champion and by the challenger.
    """

    matched: MatchedDifference = field(default_factory=matched.start)
    inside: tuple[int, int, int] = (0, 0, 0)
    outside: tuple[int, int, int] = (0, 0, 0)

    def counted(self, mine: npt.NDArray[np.bool_], champion: npt.NDArray[Any], challenger: npt.NDArray[Any]) -> "Group":
        """Return this with rows added in their order; `mine` bool[n] says which are in the group."""
        moved = (challenger.astype(np.float64) - champion + 1.0) / 2.0
        return Group(
            matched.update(self.matched, mine, moved),
            _added(self.inside, champion[mine], challenger[mine]),
            _added(self.outside, champion[~mine], challenger[~mine]),
        )

    @property
    def gap(self) -> float:
        """Return the challenger's rate in the group minus its rate elsewhere; 0 while one is unknown."""
        if not self.inside[0] or not self.outside[0]:
            return 0.0
        return self.inside[2] / self.inside[0] - self.outside[2] / self.outside[0]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"matched": self.matched.to_json(), "inside": list(self.inside), "outside": list(self.outside)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Group":
        """Build what `to_json` described."""
        (a, b, c), (d, e, f) = data["inside"], data["outside"]
        return cls(MatchedDifference.from_json(data["matched"]), (a, b, c), (d, e, f))


def _added(
    known: tuple[int, int, int], champion: npt.NDArray[Any], challenger: npt.NDArray[Any]
) -> tuple[int, int, int]:
    return known[0] + int(champion.size), known[1] + int(champion.sum()), known[2] + int(challenger.sum())


@dataclass(frozen=True, slots=True)
class Watching:
    """Hold the sequences of differences by name, and by input and value what is known of each group."""

    sequences: dict[str, MeanSequence] = field(default_factory=dict[str, MeanSequence])
    groups: dict[str, dict[str, Group]] = field(default_factory=dict[str, dict[str, Group]])

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "sequences": {name: each.to_json() for name, each in self.sequences.items()},
            "groups": {
                name: {value: each.to_json() for value, each in mine.items()} for name, mine in self.groups.items()
            },
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Watching":
        """Build what `to_json` described."""
        return cls(
            {name: MeanSequence.from_json(each) for name, each in data["sequences"].items()},
            {
                name: {value: Group.from_json(each) for value, each in mine.items()}
                for name, mine in data["groups"].items()
            },
        )

    def counted(self, differences: Mapping[str, Sequence[float]]) -> "Watching":
        """Return this with differences of rows added, by name."""
        grown = dict(self.sequences)
        for name, values in differences.items():
            if len(values):
                bound = _BOUNDS[name]
                grown[name] = sequences.update(grown.get(name) or sequences.start(-bound, bound), values)
        return replace(self, sequences=grown)

    def grouped(self, inputs: Sequence[str], rows: Sequence[tuple[Sequence[str], bool, bool]]) -> "Watching":
        """Return this with rows added in their order: their values of `inputs`, and whether each release's counts.

        What counts is an error or a positive decision, as the canary says. Of each input the first twelve values that
        come are kept apart, all others together.
        """
        if not rows:
            return self
        champion = np.array([row[1] for row in rows], dtype=np.bool_)
        challenger = np.array([row[2] for row in rows], dtype=np.bool_)
        grown = {name: dict(mine) for name, mine in self.groups.items()}
        for place, name in enumerate(inputs):
            mine = grown.setdefault(name, {})
            values = _kept([row[0][place] for row in rows], mine)
            for value in dict.fromkeys([*mine, *values]):
                mine[value] = mine.get(value, Group()).counted(values == value, champion, challenger)
        return replace(self, groups=grown)


def _kept(values: list[str], known: Mapping[str, Group]) -> npt.NDArray[Any]:
    """Return the values, those beyond the most that are kept apart as one."""
    kept = dict.fromkeys(name for name in known if name != OTHER)
    for value in values:
        if len(kept) < _MOST_GROUPS:
            kept.setdefault(value)
    return np.array([value if value in kept else OTHER for value in values], dtype=object)


def concerns(watching: Watching, canary: Canary, alpha: float) -> list[Concern]:
    """Return what is known of all that is judged beside the losses; together their limits err with `alpha`."""
    judged: dict[str, float] = {REFUSED: canary.contract_margin, ESTIMATED: canary.estimate_margin}
    if canary.latency_limit_seconds:
        judged[SLOW] = canary.latency_margin
    wanted = {name: margin for name, margin in judged.items() if margin}
    each = alpha / (len(wanted) + bool(canary.groups)) if wanted or canary.groups else alpha
    found = [
        Concern(
            name=name,
            told=_WORDS[name],
            n=known.n,
            value=known.mean,
            lower=sequences.lower_bound(known, each / 2.0),
            upper=sequences.upper_bound(known, each / 2.0),
            margin=margin,
            breached=sequences.lower_bound(known, each / 2.0) > margin,
        )
        for name, margin in wanted.items()
        for known in [watching.sequences.get(name)]
        if known is not None
    ]
    return [*found, *_of_groups(watching, canary, each)]


def _of_groups(watching: Watching, canary: Canary, alpha: float) -> Iterator[Concern]:
    """Yield what is known of each group: by how much more the challenger errs (or decides so) in it than elsewhere.

    Above 0 means that the group's rate went up against the others' rates, compared with the champion. It counts as
    harm only while the challenger's own gap points the same way: closing a gap is none.
    """
    for number, name, value, group in _in_order(watching):
        if min(group.inside[0], group.outside[0]) < _LEAST_ROWS or not group.matched.blocks.n:
            continue
        # The k-th value gets 1/(k·(k + 1)) of the error: however many come, together they get all of it.
        each = alpha / (2.0 * len(canary.groups) * number * (number + 1))
        lower = 2.0 * matched.lower_bound(group.matched, each)
        upper = 2.0 * matched.upper_bound(group.matched, each)
        both = canary.group_measure == "positive"
        more = lower > canary.group_margin and group.gap > 0.0
        less = both and upper < -canary.group_margin and group.gap < 0.0
        yield Concern(
            name=f"{name} = {value}",
            told=f"the {_MEASURES[canary.group_measure]} where {name} is “{value}”, against all other rows,",
            n=group.inside[0],
            value=2.0 * group.matched.blocks.mean,
            lower=max(lower, -2.0),
            upper=min(upper, 2.0),
            margin=canary.group_margin,
            breached=more or less,
            shown=upper <= canary.group_margin and (lower >= -canary.group_margin or not both),
            group=value,
        )


def _in_order(watching: Watching) -> Iterator[tuple[int, str, str, Group]]:
    for name, mine in watching.groups.items():
        for number, (value, group) in enumerate(mine.items(), 1):
            yield number, name, value, group
