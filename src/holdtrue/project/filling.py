"""Fill the views of feature versions, as a job asks for it."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Protocol

from holdtrue.core.clock import SystemClock
from holdtrue.core.codec import dump
from holdtrue.features import FeatureSet, open_online
from holdtrue.features.taking import taking
from holdtrue.project.definitions import Project
from holdtrue.project.materialising import Materialise, materialised
from holdtrue.storage import BlobStore, make_folder
from holdtrue.storage.journal import Journal

# A data plane that takes events waits for a commit as long as it lasts.
_BATCH: Final = 4_000


class Reader(Protocol):
    """Read what the control plane knows."""

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON of a GET."""
        ...


def fill(project: Project, home: Path, api: Reader, payload: Mapping[str, Any], *, online: str = "") -> dict[str, Any]:
    """Take into the online store what came since for the views of the versions `features`; return what was taken.

    `now` of the payload is the moment (µs) of production, `online` the address of the server of online features.
    Views whose source the project file does not declare any more are left out, and named.
    """
    root = f"/api/projects/{project.name}"
    contents = [api.get(f"{root}/versions/{each}")["content"] for each in payload["features"]]
    views = list(dict.fromkeys(view for each in contents for view in FeatureSet.from_json(each).views))
    known = [view for view in views if view.source in project.sources]
    make_folder(home / "online" / project.name)
    with (
        taking(home / "online", project.name),
        closing(open_online(home / "online", project.name, online)) as store,
        closing(Journal(home / "journal", SystemClock())) as journal,
    ):
        asked = Materialise(
            project,
            known,
            store,
            journal,
            BlobStore(home / "blobs"),
            lambda name: api.get(f"{root}/datasets/{name}")["fragments"],
            payload["now"],
            batch=_BATCH,
        )
        taken = [dump(each) for each in materialised(asked)]
    return {"taken": taken, "left_out": [view.name for view in views if view not in known]}
