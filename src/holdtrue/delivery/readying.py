"""Whether the features of a release are there before requests are: a view that is new online starts with no rows.

What training saw of a view comes from history; what requests see comes from the online store. A view that no deployed
release has had before knows nothing there until it is filled, and a model would answer from missing values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from holdtrue import catalog
from holdtrue.core.clock import microseconds
from holdtrue.core.errors import Conflict, HoldtrueError
from holdtrue.delivery import store
from holdtrue.delivery.model import PRODUCTION
from holdtrue.features import FeatureSet, View, open_online
from holdtrue.features.freshness import Standing, standing
from holdtrue.storage import Stores
from holdtrue.storage.ledger import Transaction

_FILL: Final = "holdtrue features materialize"


class FeaturesNotReady(Conflict):
    """A release's feature views are not filled up to their freshness objectives."""

    code = "features_not_ready"


@dataclass(frozen=True, slots=True)
class Readiness:
    """Tell how the views stand that a release brings: those that miss their objective, and others without rows.

    `why` says that the online store could not be asked, `brought` names all of these views.
    """

    brought: tuple[str, ...] = ()
    missed: tuple[Standing, ...] = ()
    empty: tuple[Standing, ...] = ()
    why: str = ""

    @property
    def sentence(self) -> str:
        """Return what is wrong, “” if nothing is."""
        return " ".join([*(each.sentence for each in self.missed), *([self.why] if self.why else [])])

    @property
    def notes(self) -> list[str]:
        """Return what is to be said of views that have no objective and no rows, and of the time until it is live."""
        notes = [f"The view {each.view} has no rows online. To fill it: {_FILL}" for each in self.empty]
        if self.brought:
            # Data planes take events for the views of the releases they have: those that come before are recorded only.
            notes.append(
                f"Events for {', '.join(self.brought)} that come before it is live are recorded; a worker of "
                f"`holdtrue up` takes them in, and so does {_FILL}."
            )
        return notes


def readiness(stores: Stores, project: str, service: str, release: str, environment: str = PRODUCTION) -> Readiness:
    """Return how the views stand that a release brings and the one deployed there does not keep up to date."""

    def look(connection: sa.Connection) -> tuple[View, ...]:
        present = store.deployment(connection, project, service, environment)
        running = store.running_rollout(connection, project, service, environment)
        if present is not None and release in (present.release, None if running is None else running.challenger):
            return ()
        before = () if present is None else _views(connection, project, present.release)
        return tuple(view for view in _views(connection, project, release) if view not in before)

    views = stores.ledger.read(look)
    if not views:
        return Readiness()
    brought = tuple(view.name for view in views)
    folder = stores.home / "online"
    newest: Sequence[int | None] = [None] * len(views)
    if stores.online or (folder / project).is_dir():
        try:
            kept = open_online(folder, project, stores.online)
            try:
                newest = kept.newest(views)
            finally:
                kept.close()
        except HoldtrueError as error:
            # What has no objective may start with whatever is there.
            asked = any(view.freshness is not None for view in views)
            return Readiness(brought, why=f"{error.what} {error.why}".strip() if asked else "")
    stand = standing(views, newest, microseconds(stores.clock.now()))
    missed = tuple(each for each in stand if each.misses)
    return Readiness(brought, missed, tuple(each for each in stand if each.state == "empty" and each.allowed is None))


def accept(tx: Transaction, service: str, release: str, environment: str, found: Readiness, stale: str) -> None:
    """Let a release go to production with features that are not ready only for a reason, which is recorded.

    Raises FeaturesNotReady without one. Other environments are for trying things out.
    """
    if not found.sentence or environment != PRODUCTION:
        return
    if not stale.strip():
        raise FeaturesNotReady(
            f"The features of {release} are not ready for {environment}.",
            why=found.sentence,
            mend=f"A worker of `holdtrue up` fills them by itself; or fill them: {_FILL}. "
            f'Or let it go as it is, for a reason: holdtrue promote {service} {release} --stale "REASON"',
            facts={"views": [each.view for each in found.missed]},
        )
    told = {"release": release, "environment": environment, "views": [each.view for each in found.missed]}
    tx.emit("features.accepted", service, told, reason=stale)


def _views(connection: sa.Connection, project: str, release: str) -> tuple[View, ...]:
    try:
        pinned = catalog.release(connection, project, release).manifest.versions.get("features")
        content: Any = None if pinned is None else catalog.get(connection, project, pinned).content
    except HoldtrueError:
        return ()
    return FeatureSet.from_json(content).views if content and "views" in content else ()
