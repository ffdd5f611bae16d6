"""Frozen dataclasses from JSON and back, refusing what they do not know."""

import difflib
import typing
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from holdtrue.core.errors import ConfigurationError

T = TypeVar("T")


@lru_cache(maxsize=512)
def _adapter(cls: Any) -> TypeAdapter[Any]:
    _forbid_extra(cls, set())
    return TypeAdapter(cls)


def _forbid_extra(cls: Any, seen: set[Any]) -> None:
    """Set pydantic's configuration on a dataclass and on the dataclasses its fields hold."""
    for inner in getattr(cls, "__args__", ()):
        _forbid_extra(inner, seen)
    if not is_dataclass(cls) or cls in seen:
        return
    seen.add(cls)
    if "__pydantic_config__" not in vars(cls):
        with_config(ConfigDict(extra="forbid"))(cls)  # type: ignore[arg-type]  # dataclasses are documented
    for hint in typing.get_type_hints(cls).values():
        _forbid_extra(hint, seen)


def load(cls: type[T], data: Any, what: str = "") -> T:
    """Build a `cls` from JSON `data`; an unknown or invalid key raises ConfigurationError naming it."""
    try:
        return _adapter(cls).validate_python(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        unknown = {"extra_forbidden", "unexpected_keyword_argument"}
        # A misspelt key is also a missing one: the misspelling is what the reader needs to see.
        first = next((entry for entry in found if entry["type"] in unknown), found[0])
        path = ".".join(str(part) for part in first["loc"])
        subject = what or cls.__name__
        known = [field.name for field in fields(cls)] if is_dataclass(cls) else []
        if first["type"] in unknown:
            close = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
            mend = f"Did you mean “{close[0]}”?" if close else "Remove it, or correct its spelling."
            raise ConfigurationError(
                f"{subject} has no setting “{path}”.",
                why=f"Known here: {', '.join(known) or 'see the documentation'}.",
                mend=mend,
                facts={"path": path},
            ) from None
        raise ConfigurationError(
            f"{subject}: “{path}” is not valid." if path else f"{subject} is not valid.",
            why=f"{first['msg']}.",
            mend="Correct the value and try again.",
            facts={"path": path},
        ) from None


def dump(value: Any) -> Any:
    """Return the JSON form of a dataclass (or of any value pydantic knows)."""
    return _adapter(type(value)).dump_python(value, mode="json")
