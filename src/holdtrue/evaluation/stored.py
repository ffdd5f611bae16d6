"""Test sets in the catalog: a version holds what is in the set, a blob its cases."""

from holdtrue import catalog
from holdtrue.catalog import Version
from holdtrue.core.errors import InvalidInput
from holdtrue.evaluation.testsets import TestSet, read_test_set
from holdtrue.storage import BlobStore
from holdtrue.storage.ledger import Transaction


def keep_test_set(tx: Transaction, blobs: BlobStore, test_set: TestSet) -> Version:
    """Store a test set's cases and register the version; the same cases again are the same version."""
    digest = blobs.put(test_set.blob())
    return catalog.register(tx, "test_set", test_set.name, test_set.content(), blobs=[digest])


def stored_test_set(blobs: BlobStore, version: Version) -> TestSet:
    """Return the test set of a version; raises NotFound, Corrupt."""
    if version.kind != "test_set":
        raise InvalidInput(
            f"{version.id} is no test set.", why=f"It is a version of a {version.kind}.", mend="Give an id tst_…"
        )
    return read_test_set(version.name, blobs.get(version.content["digest"]))
