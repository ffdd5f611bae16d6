"""One byte form for JSON values, and the hashes that name things by it."""

from typing import Any, TypeAlias

import rfc8785
from blake3 import blake3

from holdtrue.core.errors import InvalidInput

Json: TypeAlias = "dict[str, Json] | list[Json] | tuple[Json, ...] | str | int | float | bool | None"


def canonical_bytes(value: Any) -> bytes:
    """Return the RFC 8785 (JCS) form of a JSON value.

    Integers beyond ±2⁵³−1, NaN and infinities have no such form and raise InvalidInput.
    """
    try:
        return rfc8785.dumps(value)
    except rfc8785.CanonicalizationError as error:
        raise InvalidInput(
            "A value has no canonical JSON form.",
            why=str(error),
            mend="Use strings for integers beyond 2^53 - 1; leave out NaN and infinities.",
        ) from error


def bytes_hash(data: bytes) -> str:
    """Return the BLAKE3 hash of `data` as 64 hexadecimal digits."""
    return blake3(data).hexdigest()


def content_hash(value: Any) -> str:
    """Return the BLAKE3 hash of the canonical form of a JSON value, as 64 hexadecimal digits."""
    return bytes_hash(canonical_bytes(value))
