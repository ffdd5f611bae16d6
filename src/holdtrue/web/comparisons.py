"""Read what the page that compares runs shows."""

from collections.abc import Mapping, Sequence
from typing import Final

import sqlalchemy as sa

from holdtrue import tracking
from holdtrue.tracking import Run
from holdtrue.tracking import rules as names
from holdtrue.tracking.comparing import (
    Comparison,
    Contrast,
    compare,
    lowest_is_best,
    named_runs,
    seed_of,
    setting_of,
)
from holdtrue.tracking.costs import Cost, read_costs
from holdtrue.tracking.model import DATASET_CONTEXT, ENDED
from holdtrue.tracking.service import whole_runs
from holdtrue.web import curves, runs, texts, urls
from holdtrue.web.model import ComparedRun, ComparisonPage, CostRow, Estimate, SettingRow

MOST_METRICS: Final = 100
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

Params = tuple[tuple[str, str], ...]


def page(connection: sa.Connection, project: str, query: Mapping[str, str]) -> ComparisonPage:
    """Return the runs that a query names side by side; InvalidInput for fewer than two, NoRun for an unknown one."""
    ids = named_runs(query.get("runs", ""))
    lowest = lowest_is_best(query.get("best", ""))
    found = whole_runs(connection, project, [tracking.find_run_info(connection, project, each) for each in ids])
    every = runs.plain_metrics(found)
    metric = names.check_key(query["metric"], "metric") if query.get("metric") else next(iter(every), "")
    compared = compare(found, metric, lowest=lowest)
    groups = _groups(found, compared)
    letters = {params: _letter(place) for place, params in enumerate(groups)}
    differing, shared = _params(groups)
    rows = _settings(groups, letters, differing, compared)
    bounds = [each for row in rows if row.value for each in (row.value.value, row.value.lower, row.value.upper)]
    known = [each for each in bounds if each is not None]
    by_id = {run.info.id: run for run in found}
    best = "lowest" if lowest else "highest"
    cost = read_costs(connection, project, found)
    lines = [(f"{letters[params]}", [run.info.id for run in members]) for params, members in groups.items()]
    return ComparisonPage(
        runs=_compared(connection, project, found, letters, ids, {"metric": metric, "best": best}),
        metric=metric,
        metrics=tuple(every),
        best=best,
        asked=",".join(ids),
        more=urls.runs(project, picked=",".join(ids)),
        settings=rows,
        low=min(known, default=0.0),
        high=max(known, default=1.0),
        left_out=tuple(by_id[each].info.name for each in compared.left_out) if metric else (),
        cautions=_cautions(found, compared),
        others=tuple(_other(found, each, groups, letters) for each in every[:MOST_METRICS]),
        unshown=max(0, len(every) - MOST_METRICS),
        params=tuple((name, tuple(dict(each).get(name, texts.MISSING) for each in groups)) for name in differing),
        shared=shared,
        costs=_costs(project, found, letters, cost),
        known_by=_known_by(cost),
        total=_total(cost),
        curve=curves.of_runs(connection, project, metric, lines) if metric else None,
        undrawn=max(0, len(lines) - curves.MOST_LINES),
    )


def _groups(found: Sequence[Run], compared: Comparison) -> dict[Params, list[Run]]:
    """Return the runs by setting, in the order of the comparison; settings without a value come last."""
    groups: dict[Params, list[Run]] = {tuple(sorted(each.params.items())): [] for each in compared.settings}
    for run in found:
        groups.setdefault(setting_of(run), []).append(run)
    return groups


def _letter(place: int) -> str:
    """Name a setting: A to Z, then AA, AB and so on."""
    return (_letter(place // 26 - 1) if place >= 26 else "") + _LETTERS[place % 26]


def _params(groups: Mapping[Params, Sequence[Run]]) -> tuple[list[str], Params]:
    """Return the parameters that are not the same in all settings, and the others with their value."""
    own = [dict(each) for each in groups]
    every = sorted({name for each in own for name in each})
    differing = [name for name in every if len({each.get(name) for each in own}) > 1]
    return differing, tuple((name, own[0][name]) for name in every if name not in differing)


def _settings(
    groups: Mapping[Params, Sequence[Run]],
    letters: Mapping[Params, str],
    differing: Sequence[str],
    compared: Comparison,
) -> tuple[SettingRow, ...]:
    measured = dict(enumerate(compared.settings))
    contrasts = {each.setting: each for each in compared.contrasts}
    rows: list[SettingRow] = []
    for place, (params, members) in enumerate(groups.items()):
        mine, contrast = measured.get(place), contrasts.get(place)
        said = [f"{name} = {dict(params)[name]}" for name in differing if name in dict(params)]
        seeds = [seed for run in members if (seed := seed_of(run))]
        rows.append(
            SettingRow(
                name=letters[params],
                words=texts.plain(", ".join(said)) if said else "",
                runs=len(members),
                seeds=texts.plain(", ".join(seeds)),
                value=None if mine is None else Estimate(mine.mean, *(mine.interval or ())),
                difference=None if contrast is None else Estimate(contrast.difference, *(contrast.interval or ())),
                p=None if contrast is None else contrast.p,
                verdict=_verdict(place, contrast, mine is not None),
            )
        )
    return tuple(rows)


def _verdict(place: int, contrast: Contrast | None, measured: bool) -> str:
    if contrast is not None:
        return "one seed only" if contrast.p is None else contrast.verdict
    if not measured:
        return "no number"
    return "best" if place == 0 else ""


def _other(
    found: Sequence[Run], metric: str, groups: Mapping[Params, Sequence[Run]], letters: Mapping[Params, str]
) -> tuple[str, tuple[Estimate | None, ...], str]:
    """Return one metric's value in each setting, and which settings it tells apart."""
    compared = compare(found, metric)
    values = {tuple(sorted(each.params.items())): each for each in compared.settings}
    cells = tuple(
        Estimate(values[params].mean, *(values[params].interval or ())) if params in values else None
        for params in groups
    )
    # What was run once can be told apart from nothing, and would stand in the way of the others.
    repeated = {one for each in compared.settings if len(each.values) > 1 for one in each.runs}
    tested = compare([run for run in found if run.info.id in repeated], metric)
    order = [letters[tuple(sorted(each.params.items()))] for each in tested.settings]
    apart = [order[each.setting] for each in tested.contrasts if each.verdict == "different"]
    if apart:
        return metric, cells, f"{order[0]} above {', '.join(apart)}"
    if tested.contrasts:
        return metric, cells, f"not told apart: {', '.join(order)}"
    return metric, cells, "one seed only" if compared.contrasts else texts.MISSING


def _compared(
    connection: sa.Connection,
    project: str,
    found: Sequence[Run],
    letters: Mapping[Params, str],
    ids: Sequence[str],
    asked: Mapping[str, str],
) -> tuple[ComparedRun, ...]:
    experiments = runs.experiment_names(connection, project, found)
    rows = [
        ComparedRun(
            run=run,
            url=urls.run(project, run.info.id),
            setting=letters[setting_of(run)],
            seed=seed_of(run),
            started=runs.started(run),
            experiment=experiments[run.info.experiment],
            commit=runs.tag(run, runs.COMMIT),
            datasets=tuple(_dataset(each.name, each.digest, dict(each.tags)) for each in run.datasets),
            without=urls.comparison(project, [each for each in ids if each != run.info.id], **asked)
            if len(ids) > 2
            else None,
        )
        for run in found
    ]
    order = list(letters.values())
    return tuple(sorted(rows, key=lambda each: order.index(each.setting)))


def _dataset(name: str, digest: str, tags: Mapping[str, str]) -> str:
    use = tags.get(DATASET_CONTEXT)
    return f"{name} {texts.short(digest)}{f' ({use})' if use else ''}"


def _cautions(found: Sequence[Run], compared: Comparison) -> tuple[str, ...]:
    """Return what a reader should know before believing the numbers."""
    commits = {runs.tag(run, runs.COMMIT) for run in found} - {""}
    changed = sum(commit.endswith("-dirty") for commit in (runs.tag(run, runs.COMMIT) for run in found))
    data = {tuple(sorted((each.name, each.digest) for each in run.datasets)) for run in found if run.datasets}
    going = sum(run.info.status not in ENDED for run in found)
    told: list[str] = []
    if len(commits) > 1:
        told.append(f"The runs were made from {len(commits)} commits: their parameters are not all that differs.")
    if changed:
        told.append(f"Made from code that was changed since its commit: {texts.plural(changed, 'run')}.")
    if len(data) > 1:
        told.append(f"The runs used {len(data)} different sets of data: their parameters are not all that differs.")
    if going:
        told.append(f"Not ended yet: {texts.plural(going, 'run')}. Their newest values so far are compared.")
    if len(compared.settings) > 1 and all(len(each.values) == 1 for each in compared.settings):
        told.append(
            "Every setting was run once, so nobody knows how much chance alone moves the result. "
            "Run each again with other seeds, logged as the parameter seed."
        )
    return tuple(told)


def _costs(
    project: str, found: Sequence[Run], letters: Mapping[Params, str], cost: Mapping[str, Cost]
) -> tuple[CostRow, ...]:
    rows = [
        CostRow(
            run.info.name,
            urls.run(project, run.info.id),
            letters[setting_of(run)],
            runs.cost_words(cost[run.info.id]),
        )
        for run in found
    ]
    order = list(letters.values())
    return tuple(sorted(rows, key=lambda each: order.index(each.setting)))


def _known_by(cost: Mapping[str, Cost]) -> tuple[tuple[str, str], ...]:
    """Return once for all runs how their figures are known, and why others are not."""
    told: dict[tuple[str, str], int] = {}
    for each in cost.values():
        for name, value, how in runs.told(each):
            said = (name, f"not known: {how}" if value == runs.UNKNOWN else how)
            told[said] = told.get(said, 0) + 1
    return tuple((name, f"{how} ({texts.plural(count, 'run')})") for (name, how), count in told.items())


def _total(cost: Mapping[str, Cost]) -> str:
    known = [figure.value for each in cost.values() if (figure := each.figure("seconds"))]
    return f"{texts.took(sum(known))}, {len(known)} of {texts.plural(len(cost), 'run')}" if known else texts.MISSING
