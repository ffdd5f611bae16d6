"""The gate before production: what MLflow calls an alias or a stage is a change of production here."""

from holdtrue import catalog, governance
from holdtrue.core.codec import dump
from holdtrue.core.errors import Conflict, Forbidden
from holdtrue.storage.ledger import Transaction
from holdtrue.tracking import registry
from holdtrue.tracking.registry import ModelVersion, Scan

_PAGE = 500
_MOST = 20


class ReleaseNeeded(Forbidden):
    """A model version may not enter production without an approved release that pins it."""

    code = "release_needed"


def is_production(name: str) -> bool:
    """Tell whether an alias or stage of this name means production."""
    return name.lower() == registry.PRODUCTION


def need_release(tx: Transaction, version: ModelVersion) -> None:
    """Return if an approved release pins this version, decided now, in this transaction; else raise ReleaseNeeded."""
    label = f"{version.name} version {version.number}"
    pinning = [each for each in _releases(tx) if version.version in each.manifest.versions.values()]
    refusal: Conflict | None = None
    for release in pinning[:_MOST]:
        try:
            governance.need_allowed(tx, release.id, registry.PRODUCTION)
        except Conflict as error:
            refusal = refusal or error
        else:
            return
    if refusal is not None:
        raise ReleaseNeeded(
            f"{label} may not enter production: {refusal.what}",
            why=refusal.why,
            mend=refusal.mend,
            facts={"version": version.version, **refusal.facts},
        )
    raise ReleaseNeeded(
        f"{label} may not enter production: no release pins it.",
        why="A change of production is a decision on a release and its evidence.",
        mend=f"Make a release that pins model {version.version} (`holdtrue release "
        f"'{version.name}/{version.number}'`, or POST /api/projects/{tx.project}/releases), have it approved "
        "(`holdtrue approve RELEASE`), then move the alias again.",
        facts={"version": version.version},
    )


def note_scan(tx: Transaction, version: ModelVersion, scanned: Scan) -> None:
    """Keep the scan of a version's bytes as evidence about it."""
    if version.version:
        governance.record_evidence(tx, "scan", version.version, dump(scanned))


def _releases(tx: Transaction) -> list[catalog.Release]:
    found: list[catalog.Release] = []
    after: str | None = None
    while True:
        page = catalog.releases(tx.connection, tx.project, None, limit=_PAGE, after=after)
        found += page
        if len(page) < _PAGE:
            return found
        after = page[-1].id
