"""Whoever does something: a person, a program on its behalf, or the system itself."""

from dataclasses import dataclass
from typing import Literal

from holdtrue.core.access import Role

ActorKind = Literal["human", "service", "system"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Name who acts, with which roles, in which project (None: in every one).

    `created_by` is the id of the person who made a service's token: a program never
    counts as somebody else than its maker.
    """

    id: str
    kind: ActorKind
    name: str
    roles: frozenset[Role] = frozenset()
    project: str | None = None
    created_by: str | None = None

    @property
    def owner(self) -> str:
        """Return the person who answers for this actor: itself, or the maker of its token."""
        return self.created_by or self.id


SYSTEM = Actor(id="system", kind="system", name="Holdtrue", roles=frozenset({Role.OPERATOR}))
