"""What a column is tagged with: kind of personal data, purposes it may be used for, licence, source."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from holdtrue.core.errors import ConfigurationError

KINDS: Final = (
    "identifier",
    "contact",
    "demographic",
    "location",
    "financial",
    "behaviour",
    "health",
    "biometric",
    "genetic",
    "belief",
    "other",
)
"""The kinds of personal data that a column may hold."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+/:-]{0,99}")


@dataclass(frozen=True, slots=True)
class Tags:
    """Say what a column holds and what it may be used for.

    `personal` is a kind of personal data, `purposes` what it may be used for (None: anything; none: nothing),
    `licence` the terms under which it came, `source` where it came from.
    """

    personal: str | None = None
    purposes: tuple[str, ...] | None = None
    licence: str | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        if self.personal is not None and self.personal not in KINDS:
            raise _unfit(f"“{self.personal}” is no kind of personal data", f"The kinds are {', '.join(KINDS)}.")
        for what, text in (("purpose", each) for each in self.purposes or ()):
            _check_text(what, text)
        for what, text in (("licence", self.licence), ("source", self.source)):
            if text is not None:
                _check_text(what, text)

    def over(self, general: "Tags") -> "Tags":
        """Return these tags with what they leave open taken from `general`; personal data is said of a column alone."""
        return Tags(
            self.personal,
            general.purposes if self.purposes is None else self.purposes,
            self.licence or general.licence,
            self.source or general.source,
        )

    def allows(self, purpose: str) -> bool:
        """Tell whether the column may be used for a purpose; one that nobody stated is none of a list."""
        return self.purposes is None or purpose in self.purposes

    def to_json(self) -> dict[str, Any]:
        """Return what is said, without what is left open."""
        said: dict[str, Any] = {
            "personal": self.personal,
            "purposes": None if self.purposes is None else sorted(self.purposes),
            "licence": self.licence,
            "source": self.source,
        }
        return {name: value for name, value in said.items() if value is not None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Tags":
        """Build tags from their JSON form."""
        purposes = data.get("purposes")
        return cls(
            data.get("personal"), None if purposes is None else tuple(purposes), data.get("licence"), data.get("source")
        )


NO_TAGS: Final = Tags()


def made(personal: str | None, purposes: Iterable[str] | None, licence: str | None, source: str | None) -> Tags | None:
    """Return tags, None if nothing is said."""
    found = Tags(personal, None if purposes is None else tuple(purposes), licence, source)
    return None if found == NO_TAGS else found


def told(tags: Mapping[str, Any]) -> str:
    """Return the JSON form of tags in a few words."""
    parts: list[str] = []
    if tags.get("personal"):
        parts.append(f"personal data ({tags['personal']})")
    if tags.get("purposes") is not None:
        parts.append(f"for {', '.join(tags['purposes']) or 'nothing'}")
    if tags.get("licence"):
        parts.append(f"licence {tags['licence']}")
    if tags.get("source"):
        parts.append(f"from {tags['source']}")
    return ", ".join(parts)


def _check_text(what: str, text: str) -> None:
    if _NAME.fullmatch(text) is None:
        raise _unfit(f"{text[:80]!r} cannot be a {what}", "It is 1 to 100 letters, digits, spaces and . _ + / : -.")


def _unfit(what: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"A column cannot be tagged so: {what}.", why=why, mend="Correct the tag.")
