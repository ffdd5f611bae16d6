"""Artifacts: names in a table, bytes in blobs; whole uploads, and uploads in parts."""

from holdtrue.tracking.artifacts.service import (
    NoArtifact,
    begin_upload,
    check_secret,
    delete,
    entries,
    files_below,
    join_parts,
    keep,
    need,
    need_upload,
    receive,
)
from holdtrue.tracking.artifacts.store import Stored, Upload, abandoned, end_upload, parts_of, put_part

__all__ = [
    "NoArtifact",
    "Stored",
    "Upload",
    "abandoned",
    "begin_upload",
    "check_secret",
    "delete",
    "end_upload",
    "entries",
    "files_below",
    "join_parts",
    "keep",
    "need",
    "need_upload",
    "parts_of",
    "put_part",
    "receive",
]
