"""Evaluation datasets that clients keep: named sets of cases (inputs, expectations, tags), changed record by record."""

from holdtrue.tracking.cases.model import START, CaseSet, NoCaseSet, Place, Record
from holdtrue.tracking.cases.service import (
    create,
    delete,
    delete_tag,
    find,
    link,
    named_after,
    put_tags,
    records,
    remove_records,
    search,
    unlink,
    upsert,
)

__all__ = [
    "START",
    "CaseSet",
    "NoCaseSet",
    "Place",
    "Record",
    "create",
    "delete",
    "delete_tag",
    "find",
    "link",
    "named_after",
    "put_tags",
    "records",
    "remove_records",
    "search",
    "unlink",
    "upsert",
]
