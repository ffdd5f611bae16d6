"""SQL of the registry: logged models, registered models, versions, aliases, tags."""

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from holdtrue.core.filters import Condition, Order
from holdtrue.storage.ledger import Transaction, insert, key_of, project_table, scoped
from holdtrue.storage.ledger.querying import Term, compared, is_missing, paged, values_of
from holdtrue.tracking.model import Pair
from holdtrue.tracking.registry.model import LoggedModel, ModelVersion, RegisteredModel, Stage
from holdtrue.tracking.store import model_metrics, model_metrics_of

logged_models = project_table(
    "logged_models",
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("experiment", sa.BigInteger, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("updated_ms", sa.BigInteger, nullable=False),
    sa.Column("artifact_uri", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("model_type", sa.Text, nullable=False),
    sa.Column("source_run", sa.Text, nullable=False),
    sa.Column("lifecycle", sa.Text, nullable=False),
    sa.Index(None, "project", "experiment", "created_ms"),
)

logged_model_pairs = project_table(
    "logged_model_pairs",
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    clustered=True,
)

registered_models = project_table(
    "registered_models",
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("updated_ms", sa.BigInteger, nullable=False),
    sa.Column("user", sa.Text, nullable=False),
    # Grows only: the number of a deleted version is never given again.
    sa.Column("last_number", sa.BigInteger, nullable=False),
)

model_versions = project_table(
    "model_versions",
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("status_message", sa.Text, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("updated_ms", sa.BigInteger, nullable=False),
    sa.Column("user", sa.Text, nullable=False),
    sa.Column("run_link", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("artifact_uri", sa.Text, nullable=False),
    sa.Index(None, "project", "model"),
)

model_aliases = project_table(
    "model_aliases",
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
)

# Number 0 holds the tags of the registered model itself.
model_tags = project_table(
    "model_tags",
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    clustered=True,
)

_MODEL_COLUMNS = (
    "id", "experiment", "name", "created_ms", "updated_ms", "artifact_uri", "status", "model_type",
    "source_run",
)  # fmt: skip
_VERSION_COLUMNS = (
    "name", "number", "source", "run", "model", "description", "stage", "status", "status_message", "created_ms",
    "updated_ms", "user", "run_link", "version", "artifact_uri",
)  # fmt: skip


def insert_logged_model(tx: Transaction, row: LoggedModel) -> None:
    """Insert a logged model with its parameters and tags."""
    values = {name: getattr(row, name) for name in _MODEL_COLUMNS}
    tx.execute(sa.insert(logged_models).values(project=tx.project, lifecycle="active", **values))
    put_model_pairs(tx, row.id, "param", row.params)
    put_model_pairs(tx, row.id, "tag", row.tags)


def change_logged_model(tx: Transaction, id: str, **values: Any) -> None:
    """Change columns of a logged model."""
    mine = (logged_models.c.project == tx.project) & (logged_models.c.id == id)
    tx.execute(sa.update(logged_models).where(mine).values(**values))


def put_model_pairs(tx: Transaction, model: str, kind: str, pairs: Iterable[Pair]) -> None:
    """Set parameters or tags of a logged model."""
    for each in pairs:
        statement = insert(logged_model_pairs).values(
            project=tx.project, model=model, kind=kind, key=each.key, value=each.value
        )
        tx.execute(
            statement.on_conflict_do_update(
                index_elements=["project", "model", "kind", "key"], set_={"value": statement.excluded.value}
            )
        )


def delete_model_tag(tx: Transaction, model: str, key: str) -> bool:
    """Remove a tag of a logged model; tell whether it was there."""
    table = logged_model_pairs
    mine = (table.c.project == tx.project) & (table.c.model == model) & (table.c.kind == "tag") & (table.c.key == key)
    return tx.execute(sa.delete(table).where(mine)).rowcount > 0


def logged_model(connection: sa.Connection, project: str, id: str) -> LoggedModel | None:
    """Return a logged model that is not deleted, or None."""
    query = scoped(logged_models, project).where(logged_models.c.id == id, logged_models.c.lifecycle == "active")
    row = connection.execute(query).first()
    return None if row is None else _whole(connection, project, [row])[0]


def search_logged_models(
    connection: sa.Connection,
    project: str,
    experiments: Sequence[int],
    conditions: Sequence[Condition],
    orders: Sequence[tuple[Order, str, str]],
    datasets: Sequence[tuple[str, str]],
    limit: int,
    after: list[Any] | None,
) -> tuple[list[LoggedModel], list[Any] | None]:
    """Return a page of logged models, and the place of the last one if more follow.

    An order comes with the name and digest of the dataset its metric was measured on ("" for any).
    """
    table = logged_models
    query = sa.select(table).where(table.c.project == project, table.c.lifecycle == "active")
    query = query.where(table.c.experiment.in_(experiments))
    for condition in conditions:
        query = query.where(_of_logged_model(project, condition, datasets))
    terms: list[Term] = []
    for order, name, digest in orders:
        terms += _logged_model_order(project, order, name, digest)
    terms += [Term(table.c.created_ms, ascending=False), Term(table.c.id, ascending=True)]
    rows, last = _page(connection, query, terms, after, limit)
    return _whole(connection, project, rows), last


def _of_logged_model(project: str, condition: Condition, datasets: Sequence[tuple[str, str]]) -> sa.ColumnElement[bool]:
    subject = condition.subject
    if subject.entity == "attribute":
        return compared(logged_models.c[subject.key], condition)
    table = model_metrics if subject.entity == "metric" else logged_model_pairs
    query = sa.select(sa.literal(1)).where(
        table.c.project == project, table.c.model == logged_models.c.id, table.c.key == subject.key
    )
    query = query.correlate(logged_models)
    if subject.entity != "metric":
        query = query.where(logged_model_pairs.c.kind == subject.entity)
    elif datasets:
        query = query.where(sa.or_(*(_on_dataset(name, digest) for name, digest in datasets)))
    if condition.operator == "IS NULL":
        return ~query.exists()
    if subject.entity == "metric" and condition.operator != "IS NOT NULL":
        query = query.where(model_metrics.c.nan == 0)
    return query.where(compared(table.c.value, condition)).exists()


def _on_dataset(name: str, digest: str) -> sa.ColumnElement[bool]:
    """Choose the metrics that were measured on a dataset, in any state of it if `digest` is empty."""
    named = model_metrics.c.dataset_name == name
    return sa.and_(named, model_metrics.c.dataset_digest == digest) if digest else named


def _logged_model_order(project: str, order: Order, name: str, digest: str) -> list[Term]:
    subject = order.subject
    if subject.entity == "attribute":
        return [Term(logged_models.c[subject.key], order.ascending)]
    if subject.entity == "metric":
        return _metric_order(project, order, name, digest)
    table = logged_model_pairs
    query = sa.select(table.c.value).where(
        table.c.project == project,
        table.c.model == logged_models.c.id,
        table.c.kind == subject.entity,
        table.c.key == subject.key,
    )
    value = query.limit(1).correlate(logged_models).scalar_subquery()
    return [Term(is_missing(value), ascending=True), Term(sa.func.coalesce(value, ""), order.ascending)]


def _metric_order(project: str, order: Order, name: str, digest: str) -> list[Term]:
    """Order by the newest value of a metric: numbers, then NaN, then models without it, in both directions."""
    table = model_metrics
    mine = sa.and_(table.c.project == project, table.c.model == logged_models.c.id, table.c.key == order.subject.key)
    if name:
        mine = sa.and_(mine, _on_dataset(name, digest))
    newest = (table.c.timestamp.desc(), table.c.step.desc(), table.c.dataset_name, table.c.dataset_digest)
    value, nan = (
        sa.select(column).where(mine).order_by(*newest).limit(1).correlate(logged_models).scalar_subquery()
        for column in (table.c.value, table.c.nan)
    )
    return [
        Term(sa.func.coalesce(nan, 2), ascending=True),
        Term(sa.func.coalesce(value, 0.0), order.ascending),
    ]


def _whole(connection: sa.Connection, project: str, rows: Sequence[Any]) -> list[LoggedModel]:
    """Return logged models with everything that belongs to them."""
    ids = [row.id for row in rows]
    pairs: dict[tuple[str, str], list[Pair]] = {}
    query = scoped(logged_model_pairs, project).where(logged_model_pairs.c.model.in_(ids))
    for each in connection.execute(query.order_by(*key_of(logged_model_pairs))):
        pairs.setdefault((each.model, each.kind), []).append(Pair(each.key, each.value))
    registered: dict[str, list[tuple[str, int]]] = {}
    query = scoped(model_versions, project).where(model_versions.c.model.in_(ids))
    for each in connection.execute(query.order_by(*key_of(model_versions))):
        registered.setdefault(each.model, []).append((each.name, each.number))
    metrics = model_metrics_of(connection, project, ids)
    return [
        LoggedModel(
            *(getattr(row, name) for name in _MODEL_COLUMNS),
            params=tuple(pairs.get((row.id, "param"), ())),
            tags=tuple(pairs.get((row.id, "tag"), ())),
            metrics=tuple(metrics[row.id]),
            registrations=tuple(registered.get(row.id, ())),
        )
        for row in rows
    ]


def insert_registered_model(tx: Transaction, row: RegisteredModel) -> None:
    """Insert a registered model with its tags."""
    tx.execute(
        sa.insert(registered_models).values(
            project=tx.project,
            name=row.name,
            description=row.description,
            created_ms=row.created_ms,
            updated_ms=row.updated_ms,
            user=row.user,
            last_number=0,
        )
    )
    put_tags(tx, row.name, 0, row.tags)


def change_registered_model(tx: Transaction, name: str, **values: Any) -> None:
    """Change columns of a registered model."""
    mine = (registered_models.c.project == tx.project) & (registered_models.c.name == name)
    tx.execute(sa.update(registered_models).where(mine).values(**values))


def rename(tx: Transaction, name: str, new: str) -> None:
    """Give a registered model, and all that is kept under its name, another one."""
    for table in (registered_models, model_versions, model_aliases, model_tags):
        tx.execute(sa.update(table).where(table.c.project == tx.project, table.c.name == name).values(name=new))


def delete_registered_model(tx: Transaction, name: str) -> None:
    """Remove a registered model and all that is kept under its name."""
    for table in (model_aliases, model_tags, model_versions, registered_models):
        tx.execute(sa.delete(table).where(table.c.project == tx.project, table.c.name == name))


def take_number(tx: Transaction, name: str, wanted: int | None = None) -> int:
    """Return the number of the next version, or the wanted one; it is never given again."""
    mine = (registered_models.c.project == tx.project) & (registered_models.c.name == name)
    last = tx.execute(sa.select(registered_models.c.last_number).where(mine)).scalar_one()
    number = int(last) + 1 if wanted is None else wanted
    tx.execute(sa.update(registered_models).where(mine).values(last_number=max(int(last), number)))
    return number


def registered_model(connection: sa.Connection, project: str, name: str) -> RegisteredModel | None:
    """Return a registered model with tags, aliases and the newest version of each stage; or None."""
    row = connection.execute(scoped(registered_models, project).where(registered_models.c.name == name)).first()
    return None if row is None else _registered(connection, project, [row])[0]


def search_registered_models(
    connection: sa.Connection,
    project: str,
    conditions: Sequence[Condition],
    orders: Sequence[Order],
    limit: int,
    after: list[Any] | None,
    *,
    prompts: sa.ColumnElement[bool] | None = None,
) -> tuple[list[RegisteredModel], list[Any] | None]:
    """Return a page of registered models, and the place of the last one if more follow."""
    table = registered_models
    terms = [Term(table.c[order.subject.key], order.ascending) for order in orders]
    if not any(order.subject.key == "name" for order in orders):
        terms.append(Term(table.c.name, ascending=True))
    query = _matching(project, table, sa.literal(0), conditions, prompts)
    rows, last = _page(connection, query, terms, after, limit)
    return _registered(connection, project, rows), last


def _matching(
    project: str,
    table: sa.Table,
    number: Any,
    conditions: Sequence[Condition],
    prompts: sa.ColumnElement[bool] | None,
) -> sa.Select[Any]:
    query = scoped(table, project)
    if prompts is not None:
        query = query.where(prompts)
    for condition in conditions:
        query = query.where(_by_tag(project, table, number, condition))
    return query


def _page(
    connection: sa.Connection, query: sa.Select[Any], terms: Sequence[Term], after: list[Any] | None, limit: int
) -> tuple[Sequence[Any], list[Any] | None]:
    """Return up to `limit` rows, and the place of the last one if more follow."""
    rows = connection.execute(paged(query, terms, after, limit + 1)).fetchall()
    return rows[:limit], values_of(rows[limit - 1]) if len(rows) > limit else None


def is_prompt(project: str, tag: str, *, versions: bool, wanted: bool) -> sa.ColumnElement[bool]:
    """Return the condition under which a registered model (or a version's model) is a prompt, or is none."""
    table = model_versions if versions else registered_models
    query = sa.select(sa.literal(1)).where(
        model_tags.c.project == project,
        model_tags.c.name == table.c.name,
        model_tags.c.number == 0,
        model_tags.c.key == tag,
        sa.func.lower(model_tags.c.value) == "true",
    )
    has = query.correlate(table).exists()
    return has if wanted else ~has


def _by_tag(project: str, table: sa.Table, number: Any, condition: Condition) -> sa.ColumnElement[bool]:
    if condition.subject.entity == "attribute":
        return compared(table.c[condition.subject.key], condition)
    query = sa.select(sa.literal(1)).where(
        model_tags.c.project == project,
        model_tags.c.name == table.c.name,
        model_tags.c.number == number,
        model_tags.c.key == condition.subject.key,
    )
    query = query.correlate(table)
    if condition.operator == "IS NULL":
        return ~query.exists()
    return query.where(compared(model_tags.c.value, condition)).exists()


def _registered(connection: sa.Connection, project: str, rows: Sequence[Any]) -> list[RegisteredModel]:
    names = [row.name for row in rows]
    tags: dict[str, list[Pair]] = {}
    query = scoped(model_tags, project).where(model_tags.c.name.in_(names), model_tags.c.number == 0)
    for each in connection.execute(query.order_by(*key_of(model_tags))):
        tags.setdefault(each.name, []).append(Pair(each.key, each.value))
    aliases: dict[str, list[tuple[str, int]]] = {}
    query = scoped(model_aliases, project).where(model_aliases.c.name.in_(names))
    for each in connection.execute(query.order_by(*key_of(model_aliases))):
        aliases.setdefault(each.name, []).append((each.alias, each.number))
    latest: dict[str, list[ModelVersion]] = {}
    for each in latest_versions(connection, project, names):
        latest.setdefault(each.name, []).append(each)
    return [
        RegisteredModel(
            row.name,
            row.description,
            row.created_ms,
            row.updated_ms,
            row.user,
            tuple(tags.get(row.name, ())),
            tuple(aliases.get(row.name, ())),
            tuple(latest.get(row.name, ())),
        )
        for row in rows
    ]


def latest_versions(connection: sa.Connection, project: str, names: Sequence[str]) -> list[ModelVersion]:
    """Return the newest version of each stage of each name."""
    table = model_versions
    newest = (
        sa.select(table.c.name, sa.func.max(table.c.number).label("number"))
        .where(table.c.project == project, table.c.name.in_(names))
        .group_by(table.c.name, table.c.stage)
        .subquery()
    )
    query = scoped(table, project).join(
        newest, sa.and_(newest.c.name == table.c.name, newest.c.number == table.c.number)
    )
    return _versions(connection, project, connection.execute(query.order_by(table.c.name, table.c.number)).fetchall())


def insert_version(tx: Transaction, row: ModelVersion) -> None:
    """Insert a version with its tags."""
    values = {name: getattr(row, name) for name in _VERSION_COLUMNS}
    tx.execute(sa.insert(model_versions).values(project=tx.project, **values))
    put_tags(tx, row.name, row.number, row.tags)


def change_version(tx: Transaction, name: str, number: int, **values: Any) -> None:
    """Change columns of a version."""
    table = model_versions
    mine = (table.c.project == tx.project) & (table.c.name == name) & (table.c.number == number)
    tx.execute(sa.update(table).where(mine).values(**values))


def archive_stage(tx: Transaction, name: str, stage: Stage, except_number: int, now: int) -> None:
    """Archive the other versions of a stage."""
    table = model_versions
    mine = (table.c.project == tx.project) & (table.c.name == name) & (table.c.stage == stage)
    others = mine & (table.c.number != except_number)
    tx.execute(sa.update(table).where(others).values(stage="Archived", updated_ms=now))


def delete_version(tx: Transaction, name: str, number: int) -> None:
    """Remove a version, its tags and the aliases that pointed to it."""
    for table in (model_aliases, model_tags, model_versions):
        mine = (table.c.project == tx.project) & (table.c.name == name) & (table.c.number == number)
        tx.execute(sa.delete(table).where(mine))


def version(connection: sa.Connection, project: str, name: str, number: int) -> ModelVersion | None:
    """Return a version, or None."""
    table = model_versions
    row = connection.execute(scoped(table, project).where(table.c.name == name, table.c.number == number)).first()
    return None if row is None else _versions(connection, project, [row])[0]


def search_versions(
    connection: sa.Connection,
    project: str,
    conditions: Sequence[Condition],
    orders: Sequence[Order],
    limit: int,
    after: list[Any] | None,
    *,
    prompts: sa.ColumnElement[bool] | None = None,
) -> tuple[list[ModelVersion], list[Any] | None]:
    """Return a page of versions, and the place of the last one if more follow."""
    table = model_versions
    terms = [Term(table.c[order.subject.key], order.ascending) for order in orders]
    if not terms:
        terms = [Term(table.c.updated_ms, ascending=False)]
    keys = {order.subject.key for order in orders}
    terms += [Term(table.c[key], up) for key, up in (("name", True), ("number", False)) if key not in keys]
    query = _matching(project, table, table.c.number, conditions, prompts)
    rows, last = _page(connection, query, terms, after, limit)
    return _versions(connection, project, rows), last


def _versions(connection: sa.Connection, project: str, rows: Sequence[Any]) -> list[ModelVersion]:
    """Return versions with tags and aliases, in the order of `rows`."""
    names = sorted({row.name for row in rows})
    tags: dict[tuple[str, int], list[Pair]] = {}
    query = scoped(model_tags, project).where(model_tags.c.name.in_(names), model_tags.c.number > 0)
    for each in connection.execute(query.order_by(*key_of(model_tags))) if names else ():
        tags.setdefault((each.name, each.number), []).append(Pair(each.key, each.value))
    aliases: dict[tuple[str, int], list[str]] = {}
    query = scoped(model_aliases, project).where(model_aliases.c.name.in_(names))
    for each in connection.execute(query.order_by(*key_of(model_aliases))):
        aliases.setdefault((each.name, each.number), []).append(each.alias)
    return [
        ModelVersion(
            *(getattr(row, name) for name in _VERSION_COLUMNS),
            tags=tuple(tags.get((row.name, row.number), ())),
            aliases=tuple(sorted(aliases.get((row.name, row.number), ()))),
        )
        for row in rows
    ]


def put_tags(tx: Transaction, name: str, number: int, tags: Iterable[Pair]) -> None:
    """Set tags of a version, or (number 0) of the registered model."""
    for each in tags:
        statement = insert(model_tags).values(
            project=tx.project, name=name, number=number, key=each.key, value=each.value
        )
        tx.execute(
            statement.on_conflict_do_update(
                index_elements=["project", "name", "number", "key"], set_={"value": statement.excluded.value}
            )
        )


def delete_tag(tx: Transaction, name: str, number: int, key: str) -> None:
    """Remove a tag of a version or registered model."""
    table = model_tags
    mine = (table.c.project == tx.project) & (table.c.name == name) & (table.c.number == number) & (table.c.key == key)
    tx.execute(sa.delete(table).where(mine))


def put_alias(tx: Transaction, name: str, alias: str, number: int) -> int | None:
    """Point an alias to a version; return the number it pointed to before."""
    before = alias_number(tx.connection, tx.project, name, alias)
    statement = insert(model_aliases).values(project=tx.project, name=name, alias=alias, number=number)
    tx.execute(
        statement.on_conflict_do_update(
            index_elements=["project", "name", "alias"], set_={"number": statement.excluded.number}
        )
    )
    return before


def delete_alias(tx: Transaction, name: str, alias: str) -> bool:
    """Remove an alias; tell whether it was there."""
    table = model_aliases
    mine = (table.c.project == tx.project) & (table.c.name == name) & (table.c.alias == alias)
    return tx.execute(sa.delete(table).where(mine)).rowcount > 0


def alias_number(connection: sa.Connection, project: str, name: str, alias: str) -> int | None:
    """Return the number of the version an alias points to."""
    table = model_aliases
    query = sa.select(table.c.number).where(table.c.project == project, table.c.name == name, table.c.alias == alias)
    return connection.execute(query).scalar()
