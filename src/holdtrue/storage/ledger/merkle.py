"""Merkle tree of RFC 9162 (section 2.1), kept as the stack of its perfect subtrees."""

import hashlib

Frontier = tuple[bytes, ...]


def leaf_hash(entry: bytes) -> bytes:
    """Return SHA-256(0x00 ‖ entry), the hash of a leaf (RFC 9162, section 2.1.1)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 ‖ left ‖ right), the hash of an inner node (RFC 9162, section 2.1.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def push(frontier: Frontier, size: int, leaf: bytes) -> Frontier:
    """Return the frontier after appending `leaf` to a tree of `size` leaves.

    The frontier holds the roots of the perfect subtrees, largest first: one for each 1 bit of `size`.
    """
    stack = list(frontier)
    while size & 1:
        leaf = node_hash(stack.pop(), leaf)
        size >>= 1
    stack.append(leaf)
    return tuple(stack)


def root(frontier: Frontier) -> bytes:
    """Return the root hash of the tree with this frontier (RFC 9162, section 2.1.1)."""
    if not frontier:
        return hashlib.sha256(b"").digest()
    result = frontier[-1]
    for subtree in reversed(frontier[:-1]):
        result = node_hash(subtree, result)
    return result
