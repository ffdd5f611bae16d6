"""Registered models brought over from another system: their versions are scanned as registered ones are."""

from typing import Any

from holdtrue.core.access import Permission
from holdtrue.door import Call, Routes
from holdtrue.protocols.mlflow import gate
from holdtrue.tracking import importing

routes = Routes("protocols.mlflow")


@routes.post("/api/projects/{project}/imported-models", Permission.VERSIONS_WRITE, summary="Bring a model over")
def bring_model(call: Call, body: importing.ImportedModel) -> Any:
    """Register the versions of a model that came from runs brought over; no alias enters production so.

    What each version's bytes are becomes evidence about it.
    """
    return {"versions": importing.bring_model(call.stores, call.context(), body, gate.note_scan)}
