"""What an index holds, and what differs between two versions of one."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from holdtrue.catalog import differences
from holdtrue.llm.retrieval.building import read_manifest
from holdtrue.storage import BlobStore

_MOST_NAMED = 200
_LONGEST_NAME = 200


def show_index(blobs: BlobStore, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what people look at in an index: its content, and its first 200 documents and refusals."""
    manifest = read_manifest(blobs, content)
    return {
        **{name: content[name] for name in ("spec", "embedder", "documents", "chunks", "skipped", "files")},
        "first_documents": [
            {"id": each["id"], "title": each["title"], "chunks": each["chunks"]}
            for each in manifest["documents"][:_MOST_NAMED]
        ],
        "left_out": [
            {name: each[name] for name in ("uri", "reason", "detail")} for each in manifest["skipped"][:_MOST_NAMED]
        ],
    }


def diff_indexes(blobs: BlobStore, before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return what differs between two contents: documents by id, counts, how they are read, cut, embedded, searched.

    A document is changed if what it was made from is; `made_anew` counts those that are the same and were cut or
    embedded otherwise. At most 200 ids of each kind are named; the counts are of all.
    """
    old = {each["id"]: each for each in read_manifest(blobs, before)["documents"]}
    new = {each["id"]: each for each in read_manifest(blobs, after)["documents"]}
    both = [name for name in new if name in old]
    changed = [name for name in both if old[name]["digest"] != new[name]["digest"]]
    anew = [
        name for name in both if old[name]["digest"] == new[name]["digest"] and old[name]["key"] != new[name]["key"]
    ]
    found, more = differences(
        {name: before[name] for name in ("spec", "embedder")}, {name: after[name] for name in ("spec", "embedder")}
    )
    return {
        "same": not found and old == new,
        "settings": [dataclasses.asdict(each) for each in found],
        "settings_truncated": more,
        "documents": {
            "before": len(old),
            "after": len(new),
            "unchanged": len(both) - len(changed),
            "added": _named([name for name in new if name not in old]),
            "removed": _named([name for name in old if name not in new]),
            "changed": _named(changed),
            "made_anew": len(set(anew) - set(changed)),
        },
        "chunks": {"before": before["chunks"], "after": after["chunks"]},
        "skipped": {"before": dict(before["skipped"]), "after": dict(after["skipped"])},
    }


def _named(names: list[str]) -> dict[str, Any]:
    """Return how many, and the first of them by name."""
    first = [name[:_LONGEST_NAME] for name in sorted(names)[:_MOST_NAMED]]
    return {"count": len(names), "first": first, "truncated": len(names) > len(first)}
