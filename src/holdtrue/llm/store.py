"""All SQL of this room: providers, budgets and switches of the gateway. Project "" is the whole house."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from holdtrue.core.codec import dump, load
from holdtrue.llm.gateway import Budget, Capture, Period, Provider
from holdtrue.storage.ledger import Timestamp, Transaction, project_table, scoped

providers = project_table(
    "gateway_providers",
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("content", sa.JSON, nullable=False),
    sa.Column("updated_at", Timestamp, nullable=False),
    sa.Column("updated_by", sa.Text, nullable=False),
)

budgets = project_table(
    "gateway_budgets",
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("period", sa.Text, primary_key=True),
    sa.Column("content", sa.JSON, nullable=False),
    sa.Column("updated_at", Timestamp, nullable=False),
    sa.Column("updated_by", sa.Text, nullable=False),
)

switches = project_table(
    "gateway_switches",
    sa.Column("stopped", sa.Text, nullable=False),
    sa.Column("capture", sa.Text, nullable=False),
    sa.Column("updated_at", Timestamp, nullable=False),
    sa.Column("updated_by", sa.Text, nullable=False),
)


def put_provider(tx: Transaction, provider: Provider) -> None:
    """Add a provider, or replace the one of its name."""
    remove_provider(tx, provider.name)
    tx.execute(sa.insert(providers).values(**_own(tx), name=provider.name, content=dump(provider)))


def remove_provider(tx: Transaction, name: str) -> None:
    """Remove a provider, if there is one of that name."""
    tx.execute(sa.delete(providers).where(providers.c.project == tx.project, providers.c.name == name))


def provider(connection: sa.Connection, project: str, name: str) -> Provider | None:
    """Return a project's own provider, or None."""
    row = connection.execute(scoped(providers, project).where(providers.c.name == name)).first()
    return None if row is None else _provider(row)


def all_providers(connection: sa.Connection) -> Iterator[tuple[str, Provider]]:
    """Yield (project, provider) of all projects, in order."""
    for row in connection.execute(sa.select(providers).order_by(providers.c.project, providers.c.name)):
        yield row.project, _provider(row)


def put_budget(tx: Transaction, budget: Budget) -> None:
    """Add a budget, or replace the one of its key and period."""
    remove_budget(tx, budget.key, budget.period)
    values = {"key": budget.key, "period": budget.period.value, "content": dump(budget)}
    tx.execute(sa.insert(budgets).values(**_own(tx), **values))


def remove_budget(tx: Transaction, key: str, period: Period) -> bool:
    """Remove a budget; tell whether there was one."""
    mine = (budgets.c.project == tx.project) & (budgets.c.key == key) & (budgets.c.period == period.value)
    return tx.execute(sa.delete(budgets).where(mine)).rowcount > 0


def all_budgets(connection: sa.Connection) -> Iterator[tuple[str, Budget]]:
    """Yield (project, budget) of all projects, in order."""
    query = sa.select(budgets).order_by(budgets.c.project, budgets.c.key, budgets.c.period)
    for row in connection.execute(query):
        yield row.project, load(Budget, row.content, "A stored budget")


def put_switches(tx: Transaction, stopped: str, capture: Capture) -> None:
    """Set why all calls of the project are refused ("": they are not), and what is kept of their content."""
    tx.execute(sa.delete(switches).where(switches.c.project == tx.project))
    tx.execute(sa.insert(switches).values(**_own(tx), stopped=stopped, capture=capture))


def all_switches(connection: sa.Connection) -> dict[str, tuple[str, Capture]]:
    """Return (stopped, capture) of every project that has set them."""
    rows = connection.execute(sa.select(switches).order_by(switches.c.project))
    return {row.project: (row.stopped, row.capture) for row in rows}


def _own(tx: Transaction) -> dict[str, Any]:
    return {"project": tx.project, "updated_at": tx.now, "updated_by": tx.context.actor.id}


def _provider(row: sa.Row[Any]) -> Provider:
    return load(Provider, row.content, "A stored provider")
