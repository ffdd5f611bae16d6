"""Evaluation datasets that clients keep: named sets of cases (inputs, expectations, tags), changed record by record."""

from holdtrue.tracking.cases.model import CaseSet, NoCaseSet, Record
from holdtrue.tracking.cases.service import (
    create,
    delete,
    delete_tag,
    erase,
    find,
    link,
    put_tags,
    records,
    remove_records,
    search,
    unlink,
    upsert,
)

__all__ = [
    "CaseSet",
    "NoCaseSet",
    "Record",
    "create",
    "delete",
    "delete_tag",
    "erase",
    "find",
    "link",
    "put_tags",
    "records",
    "remove_records",
    "search",
    "unlink",
    "upsert",
]
