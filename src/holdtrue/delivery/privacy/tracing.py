"""Follow data to the models that were trained on it, and on to where they answer."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from holdtrue import catalog
from holdtrue.core.errors import InvalidInput, NotFound
from holdtrue.core.ids import PREFIXES
from holdtrue.data.erasure import Entity, all_versions, columns_of, mask_of
from holdtrue.data.reading import read_rows
from holdtrue.data.tags import KINDS
from holdtrue.delivery import store
from holdtrue.delivery.privacy.model import Trained, Used
from holdtrue.storage import BlobStore, Stores

_PAGE = 500
_VIEW = f"{PREFIXES['feature_view']}_"
_DATASET = f"{PREFIXES['dataset']}_"


def used(stores: Stores, project: str, asked: Used) -> list[Trained]:
    """Return the models that used what is asked for, the newest of each name first.

    Raises NotFound for a name that nothing in the project's data has: to a misspelt one “no model” would be a lie.
    """
    _check_known(stores, project, asked)
    if asked.entity is not None:
        entity = entity_of(asked.entity)
        held = stores.ledger.read(lambda connection: fragments(connection, project))
        hit = {digest for digest in held if _holds(stores.blobs, digest, entity)}
        return stores.ledger.read(lambda connection: trained_on(connection, project, hit, entity.column))
    return stores.ledger.read(lambda connection: _of_columns(connection, project, asked))


def _check_known(stores: Stores, project: str, asked: Used) -> None:
    versions = stores.ledger.read(lambda connection: list(all_versions(connection, project, "dataset")))
    tags = [each for version in versions for each in version.content.get("tags", {}).values()]
    if asked.source is not None:
        names = {version.name for version in versions} | {each["source"] for each in tags if each.get("source")}
        _check_among("source", asked.source, names)
    elif asked.licence is not None:
        _check_among("licence", asked.licence, {each["licence"] for each in tags if each.get("licence")})
    elif asked.personal is not None:
        _check_among("kind of personal data", asked.personal, {*KINDS, "any"})
    else:
        held = {
            (version.name, column)
            for version in versions
            for part in version.content.get("fragments", {}).values()
            for column in _columns(stores.blobs, part["digest"])
        }
        if asked.column is not None:
            _check_among("column", asked.column, {f"{dataset}.{column}" for dataset, column in held})
        elif asked.entity is not None:
            _check_among("column", entity_of(asked.entity).column, {column for _, column in held})


def _check_among(what: str, given: str, names: set[str]) -> None:
    if given in names:
        return
    close = difflib.get_close_matches(given, sorted(names), n=1)
    raise NotFound(
        f"The project's data has no {what} “{given[:80]}”.",
        why=f"Known are {', '.join(sorted(names)[:12]) or 'none'}{' and more' if len(names) > 12 else ''}.",
        mend=f"Did you mean “{close[0]}”?"
        if close
        else "Check how it is written: names are compared letter by letter.",
    )


def _columns(blobs: BlobStore, digest: str) -> list[str]:
    """Return the columns of a fragment, none where its rows are gone."""
    try:
        return columns_of(blobs, digest)
    except NotFound:
        return []


def entity_of(text: str) -> Entity:
    """Return the entity that “column=value” names."""
    column, mark, value = text.partition("=")
    if not mark:
        raise InvalidInput(
            f"{text[:80]!r} names no entity.",
            why="An entity is a column and its value there.",
            mend="Write it like tailnum=N14228.",
        )
    return Entity(column.strip(), value)


def trained_on(connection: sa.Connection, project: str, digests: set[str], column: str = "") -> list[Trained]:
    """Return the models whose training read one of these fragments, by what each says it was trained on."""
    found: list[Trained] = []
    versions = _of_fragments(connection, project, digests)
    for model in all_versions(connection, project, "model"):
        data = _training(model)
        pairs = [
            (dataset, window)
            for dataset, parts in data.items()
            for window, digest in parts.items()
            if digest in digests
        ]
        if not data:
            # Whoever registered it said no more than of which versions it was made.
            above = {each.id for each in _made_of(connection, project, model)} & versions.keys()
            pairs = [pair for version in above for pair in versions[version]]
        if pairs:
            found.append(
                Trained(
                    model=model.id,
                    name=model.name,
                    label=model.label,
                    columns=tuple(f"{dataset}.{column}" for dataset in _sorted(dataset for dataset, _ in pairs)),
                    datasets=_sorted(dataset for dataset, _ in pairs),
                    windows=_sorted(window for _, window in pairs),
                )
            )
    return _placed(connection, project, found)


def fragments(connection: sa.Connection, project: str) -> dict[str, tuple[str, str]]:
    """Return dataset and window of each fragment of any version, by its digest."""
    return {
        part["digest"]: (version.name, window)
        for version in all_versions(connection, project, "dataset")
        for window, part in version.content.get("fragments", {}).items()
    }


def flow(connection: sa.Connection, project: str, model: catalog.Version) -> list[dict[str, Any]]:
    """Return each column that a model was trained on with the tags of the version it was read from, and its uses.

    A model that says of a dataset only that it read it is taken to have read all of its columns.
    """
    said = model.content.get("columns", {}) if isinstance(model.content, Mapping) else {}
    read: Mapping[str, Mapping[str, Any]] = said if isinstance(said, Mapping) else {}
    found: list[dict[str, Any]] = []
    for dataset in sorted(datasets_of(connection, project, model), key=lambda each: each.name):
        tags: Mapping[str, Any] = dataset.content.get("tags", {})
        known: Mapping[str, Any] = read.get(dataset.name, {})
        uses = known or {name: ["everything"] for name in tags}
        found += [
            {"dataset": dataset.name, "column": name, "uses": list(uses[name]), **tags.get(name, {})}
            for name in sorted(uses)
        ]
    return found


def _of_columns(connection: sa.Connection, project: str, asked: Used) -> list[Trained]:
    wanted, column = (asked.column or "").partition(".")[::2]
    if asked.column is not None and not (wanted and column):
        raise InvalidInput(f"{asked.column[:80]!r} names no column.", mend="Write it like flights.tailnum.")
    found: list[Trained] = []
    for model in all_versions(connection, project, "model"):
        mine = [each for each in flow(connection, project, model) if _meets(each, asked, wanted, column)]
        if mine or _reads(connection, project, model, asked):
            found.append(
                Trained(
                    model=model.id,
                    name=model.name,
                    label=model.label,
                    columns=tuple(f"{each['dataset']}.{each['column']}" for each in mine),
                    datasets=_sorted(each["dataset"] for each in mine) or ((asked.source or ""),),
                )
            )
    return _placed(connection, project, found)


def _meets(each: Mapping[str, Any], asked: Used, dataset: str, column: str) -> bool:
    if asked.column is not None:
        return (each["dataset"], each["column"]) == (dataset, column)
    if asked.licence is not None:
        return each.get("licence") == asked.licence
    if asked.personal is not None:
        return each.get("personal") == asked.personal or (asked.personal == "any" and "personal" in each)
    return asked.source in (each.get("source"), each["dataset"])


def _reads(connection: sa.Connection, project: str, model: catalog.Version, asked: Used) -> bool:
    """Tell whether a model read the dataset that is asked for as a source, none of whose columns is known or tagged."""
    if asked.source is None:
        return False
    return any(each.name == asked.source for each in datasets_of(connection, project, model))


def datasets_of(connection: sa.Connection, project: str, model: catalog.Version) -> list[catalog.Version]:
    """Return the versions of datasets that a model says it was made of, else of each in its lineage the newest."""
    made_of = _made_of(connection, project, model)
    training = model.content.get("training") if isinstance(model.content, Mapping) else None
    said = set((training.get("versions") or {}).values()) if isinstance(training, Mapping) else set[str]()
    named = [each for each in made_of if each.id in said]
    if named:
        return named
    newest: dict[str, catalog.Version] = {}
    for each in made_of:
        if each.name not in newest or each.number > newest[each.name].number:
            newest[each.name] = each
    return list(newest.values())


def _made_of(connection: sa.Connection, project: str, model: catalog.Version) -> list[catalog.Version]:
    """Return all versions of datasets that a model names, else those that its feature sets name."""
    direct = {edge.source for edge in catalog.origins(connection, project, [model.id])}
    found = {each for each in direct if each.startswith(_DATASET)}
    if not found:
        # Not beside its own: a feature set is shared by models of other versions.
        views = sorted(each for each in direct if each.startswith(_VIEW))
        above = catalog.origins(connection, project, views)
        found = {edge.source for edge in above if edge.source.startswith(_DATASET)}
    return [catalog.get(connection, project, each) for each in sorted(found)]


def fragments_of(model: catalog.Version) -> set[str]:
    """Return the digests of the fragments that a model says it was trained on."""
    return {digest for parts in _training(model).values() for digest in parts.values()}


def _training(model: catalog.Version) -> Mapping[str, Mapping[str, str]]:
    training = model.content.get("training") if isinstance(model.content, Mapping) else None
    data = training.get("data") if isinstance(training, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def _of_fragments(connection: sa.Connection, project: str, digests: set[str]) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for version in all_versions(connection, project, "dataset"):
        for window, part in version.content.get("fragments", {}).items():
            if part["digest"] in digests:
                found.setdefault(version.id, []).append((version.name, window))
    return found


def _placed(connection: sa.Connection, project: str, found: list[Trained]) -> list[Trained]:
    """Return models with their releases, and the environments in which one of these answers."""
    models = {each.model for each in found}
    releases: dict[str, list[str]] = {}
    for release in all_releases(connection, project):
        model = release.manifest.versions.get("model")
        if model in models:
            releases.setdefault(str(model), []).append(release.id)
    deployed = store.list_deployments(connection, project)
    return [
        replace(
            each,
            releases=tuple(mine := releases.get(each.model, [])),
            answers=tuple(f"{one.service} in {one.environment}" for one in deployed if one.release in mine),
        )
        for each in found
    ]


def all_releases(connection: sa.Connection, project: str) -> Iterable[catalog.Release]:
    """Yield all releases, the newest first."""
    after: str | None = None
    while True:
        page = catalog.releases(connection, project, limit=_PAGE, after=after)
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1].id


def _holds(blobs: BlobStore, digest: str, entity: Entity) -> bool:
    try:
        if entity.column not in columns_of(blobs, digest):
            return False
        return bool(mask_of(entity, read_rows(blobs, digest, [entity.column])).any())
    except NotFound:
        return False


def _sorted(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(values)))
