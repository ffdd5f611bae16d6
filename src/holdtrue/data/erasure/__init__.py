"""Whoever was erased: a list of keyed hashes that deliveries are held against, and rows taken out of what is kept."""

from typing import TYPE_CHECKING

from holdtrue.core.lazy import attach

if TYPE_CHECKING:
    from holdtrue.data.erasure.cleaning import clean_delivery, clean_files, columns_of, standing, standing_in
    from holdtrue.data.erasure.marking import Entity, Key, Standing, mask_of, open_key
    from holdtrue.data.erasure.model import Cleaned, ErasedBlob, Erasure, ErasureMoved, Held, RowsErased, State
    from holdtrue.data.erasure.rewriting import (
        Rewritten,
        all_versions,
        drop_cached,
        droppable,
        erase_examples,
        left,
        register_rewritten,
        rewrite,
    )
    from holdtrue.data.erasure.store import (
        add_blobs,
        blobs_of,
        collectable,
        erased_blobs,
        erasure_of,
        erasures,
        finish,
        progress,
        request,
    )

__all__ = [
    "Cleaned",
    "Entity",
    "ErasedBlob",
    "Erasure",
    "ErasureMoved",
    "Held",
    "Key",
    "Rewritten",
    "RowsErased",
    "Standing",
    "State",
    "add_blobs",
    "all_versions",
    "blobs_of",
    "clean_delivery",
    "clean_files",
    "collectable",
    "columns_of",
    "drop_cached",
    "droppable",
    "erase_examples",
    "erased_blobs",
    "erasure_of",
    "erasures",
    "finish",
    "left",
    "mask_of",
    "open_key",
    "progress",
    "register_rewritten",
    "request",
    "rewrite",
    "standing",
    "standing_in",
]

_MODULES = {
    "cleaning": ("clean_delivery", "clean_files", "columns_of", "standing", "standing_in"),
    "marking": ("Entity", "Key", "Standing", "mask_of", "open_key"),
    "model": ("Cleaned", "ErasedBlob", "Erasure", "ErasureMoved", "Held", "RowsErased", "State"),
    "rewriting": (
        "Rewritten",
        "all_versions",
        "drop_cached",
        "droppable",
        "erase_examples",
        "left",
        "register_rewritten",
        "rewrite",
    ),
    "store": (
        "add_blobs",
        "blobs_of",
        "collectable",
        "erased_blobs",
        "erasure_of",
        "erasures",
        "finish",
        "progress",
        "request",
    ),
}
__getattr__ = attach(__name__, {name: module for module, names in _MODULES.items() for name in names})
