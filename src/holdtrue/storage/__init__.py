"""The three stores: blobs, the ledger, the journal; and the folder that holds them.

Names are imported on first use, so the data plane can append to the journal without loading the database.
"""

from typing import TYPE_CHECKING

from holdtrue.core.lazy import attach

if TYPE_CHECKING:
    from holdtrue.storage.actions import ActionCache
    from holdtrue.storage.blobs import BlobStore
    from holdtrue.storage.clockfile import FileClock
    from holdtrue.storage.files import make_folder, write_atomic
    from holdtrue.storage.journal import Journal, Writer
    from holdtrue.storage.lock import FolderLock
    from holdtrue.storage.places import check_digest
    from holdtrue.storage.stores import Stores, open_stores

__all__ = [
    "ActionCache",
    "BlobStore",
    "FileClock",
    "FolderLock",
    "Journal",
    "Stores",
    "Writer",
    "check_digest",
    "make_folder",
    "open_stores",
    "write_atomic",
]

__getattr__ = attach(
    __name__,
    {
        "ActionCache": "actions",
        "BlobStore": "blobs",
        "FileClock": "clockfile",
        "FolderLock": "lock",
        "Journal": "journal",
        "Stores": "stores",
        "Writer": "journal",
        "check_digest": "places",
        "make_folder": "files",
        "open_stores": "stores",
        "write_atomic": "files",
    },
)
