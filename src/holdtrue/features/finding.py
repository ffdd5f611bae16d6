"""What the online store knows of one entity, said so that a missing value has its reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from holdtrue.features.kept import Found
from holdtrue.features.model import Latest, View
from holdtrue.features.online import OnlineStore

_EVER: Final = "36500d"

State = Literal["known", "expired", "outside", "unseen"]


@dataclass(frozen=True, slots=True)
class Known:
    """Hold a view's features of an entity, the moment (µs) of the newest row they are made of, and why none are.

    `last` is the newest row (µs) that is too old to count. `entity` is what the entity is called where it was found.
    """

    view: View
    entity: str | int
    found: Found
    state: State
    last: int | None = None

    @property
    def sentence(self) -> str:
        """Return why nothing is known, “” if something is."""
        if self.state == "expired" and isinstance(self.view, Latest):
            return f"older than {self.view.ttl}"
        if self.state == "outside" and not isinstance(self.view, Latest):
            return f"no row in the window of {self.view.window}"
        return "never seen by then" if self.state == "unseen" else ""


def find(store: OnlineStore, views: Sequence[View], entities: Mapping[str, str], moment: int) -> list[Known]:
    """Return what is known at `moment` (µs) of entities that somebody wrote, in the order of the views.

    A text of digits may be a text or a whole number: it is what has rows, a text if neither has. Views of entities
    that are not named are left out.
    """
    return [_find(store, view, entities[view.entity], moment) for view in views if view.entity in entities]


def _find(store: OnlineStore, view: View, written: str, moment: int) -> Known:
    tried = [_known(store, view, entity, moment) for entity in (written, *_numbers(written))]
    for state in ("known", "expired"):
        for each in tried:
            if each.state == state:
                return each
    return tried[0]


def _known(store: OnlineStore, view: View, entity: str | int, moment: int) -> Known:
    ((found,),) = store.dated([view], {view.entity: [entity]}, [moment])
    if found.moment is not None:
        return Known(view, entity, found, "known")
    if not isinstance(view, Latest):
        return Known(view, entity, found, "outside")
    ((ever,),) = store.dated([replace(view, ttl=_EVER)], {view.entity: [entity]}, [moment])
    return Known(view, entity, found, "unseen" if ever.moment is None else "expired", ever.moment)


def _numbers(written: str) -> tuple[int, ...]:
    digits = written.removeprefix("-")
    return (int(written),) if digits.isascii() and digits.isdigit() and str(int(written)) == written else ()
