"""Whether a release may use what it was trained on: evidence “privacy”, from the lineage of its model."""

from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa

from holdtrue import catalog
from holdtrue.data import Tags
from holdtrue.data.erasure import erased_blobs
from holdtrue.delivery.privacy.tracing import datasets_of, flow, fragments_of

KIND: Final = "privacy"
ANY: Final = "any"
_MOST: Final = 200


def judged(connection: sa.Connection, project: str, release: catalog.Release) -> dict[str, Any] | None:
    """Return what the columns behind a release's model allow; None for a release that pins no model.

    `allowed` is true if the lineage is known and each column's purposes allow the model's. What is not said is there
    as a word, “any” or “none”, so that a rule can ask of every column.
    """
    pinned = release.manifest.versions.get("model")
    if pinned is None:
        return None
    model = catalog.get(connection, project, pinned)
    purpose = str(model.content.get("purpose", "")) if isinstance(model.content, Mapping) else ""
    columns = flow(connection, project, model)
    traced = bool(datasets_of(connection, project, model))
    tagged = [(each, Tags.from_json(each)) for each in columns]
    refused = [each for each, tags in tagged if not tags.allows(purpose)]
    gone = erased_blobs(connection, project)
    erased = {gone[digest].erasure for digest in fragments_of(model) if digest in gone}
    failures = [_failure(each, purpose) for each in refused]
    if not traced:
        failures.append({"what": model.label, "why": "nothing tells which data it was trained on"})
    return {
        "purpose": purpose or "none",
        "traced": traced,
        "allowed": traced and not refused,
        "refused": len(refused),
        "personal": sum(tags.personal is not None for _, tags in tagged),
        "erased": len(erased),
        "kinds": sorted({tags.personal for _, tags in tagged if tags.personal}),
        "licences": sorted({tags.licence for _, tags in tagged if tags.licence}),
        "sources": sorted({tags.source for _, tags in tagged if tags.source}),
        "columns": [_column(each, tags) for each, tags in tagged[:_MOST]],
        "failures": failures[:_MOST],
        "failed": len(failures),
        "failures_title": f"{len(failures)} column{'s' if len(failures) != 1 else ''} may not be used so",
    }


def _column(each: Mapping[str, Any], tags: Tags) -> dict[str, Any]:
    return {
        "dataset": each["dataset"],
        "column": each["column"],
        "uses": list(each["uses"]),
        "personal": tags.personal or "none",
        "purposes": [ANY] if tags.purposes is None else list(tags.purposes) or ["none"],
        "licence": tags.licence or "none",
        "source": tags.source or "none",
    }


def _failure(each: Mapping[str, Any], purpose: str) -> dict[str, str]:
    allowed = ", ".join(each["purposes"]) or "nothing"
    asked = f"the model's purpose is {purpose}" if purpose else "the model states no purpose"
    return {"what": f"{each['dataset']}.{each['column']}", "why": f"it may be used for {allowed}, and {asked}"}
