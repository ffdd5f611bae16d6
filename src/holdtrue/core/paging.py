"""Page tokens: where a listing goes on, bound to the question that it answers."""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import orjson

from holdtrue.core.canonical import content_hash
from holdtrue.core.errors import InvalidInput


def token_of(question: Any, place: Sequence[Any]) -> str:
    """Return a token that says: this question, after this place."""
    body = orjson.dumps([content_hash(question)[:12], list(place)])
    return base64.urlsafe_b64encode(body).decode().rstrip("=")


def place_of(question: Any, token: str | None) -> list[Any] | None:
    """Return the place that a token of the same question names; None for no token.

    A token of another question, or one nobody gave, raises InvalidInput.
    """
    if not token:
        return None
    try:
        digest, place = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (binascii.Error, ValueError, TypeError):
        digest, place = "", None
    plain = isinstance(place, list) and all(isinstance(each, str | int | float) for each in place)
    if digest != content_hash(question)[:12] or not plain:
        raise InvalidInput(
            "Invalid page token.",
            why="It is not one that this search gave for the same filter and order.",
            mend="Start again without a page token.",
        )
    assert isinstance(place, list)
    return place
