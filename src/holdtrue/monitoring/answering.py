"""What a release answers with, read from its model and its manifest."""

import sqlalchemy as sa

from holdtrue import catalog
from holdtrue.core.codec import load
from holdtrue.core.errors import HoldtrueError
from holdtrue.monitoring.measuring import CLASSES, NUMBER, Answering
from holdtrue.stats.conformal import Ranges


def answers_with(connection: sa.Connection, project: str, release: str) -> Answering:
    """Return what a release answers with; of one that is not known, a chance."""
    try:
        manifest = catalog.release(connection, project, release).manifest
        model = manifest.versions.get("model")
        content = {} if model is None else catalog.get(connection, project, model).content
        ranges = manifest.config.get("ranges")
        if content.get("classes"):
            return Answering(CLASSES, classes=len(content["classes"]))
        # A file that is served as it is does not say that it answers with a number; ranges say so.
        if content.get("number") or ranges is not None:
            return Answering(NUMBER, None if ranges is None else load(Ranges, ranges, "The ranges of a release"))
    except HoldtrueError:
        pass
    return Answering()
