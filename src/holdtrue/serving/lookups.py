"""Features of entities over HTTP: what a release would be given, each value with the moment of its newest row."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import orjson

from holdtrue.core.access import Permission
from holdtrue.core.errors import InvalidInput, TooLarge
from holdtrue.core.ids import check_name
from holdtrue.features.kept import Found
from holdtrue.features.model import View
from holdtrue.serving.endpoints import Endpoint, Reply, Request
from holdtrue.serving.engine import Engine
from holdtrue.serving.times import read_times

Dated: TypeAlias = Callable[[Sequence[View], Mapping[str, Sequence[Any]], Sequence[int]], list[list[Found]]]

MAX_ENTITIES: Final = 1000
_MOST_SHAPES: Final = 256


class BadLookup(InvalidInput):
    """A request for features does not have the form that is asked for."""

    code = "bad_lookup"


def lookup_endpoints(engine: Engine, dated: Callable[[str], Dated]) -> tuple[Endpoint, ...]:
    """Return the endpoint that looks features up; `dated` gives the function that does so for a project."""

    shapes = _Shapes()

    async def features(request: Request) -> Reply:
        service = check_name(request.path[0], "service name")
        plan = engine.plan(request.project, service)
        release = plan.route.arms[0].release
        loaded = plan.loaded.get(release)
        entities, times = _asked(request.body, engine.now_us)
        shape = shapes.of(service, () if loaded is None else loaded.assembly.views, entities)
        found = dated(request.project)(shape.views, entities, times)
        if len(times) == 1:
            numbers: list[Any] = [[value] for rows in found for value in rows[0].values]
        else:
            numbers = [column for rows in found for column in zip(*(row.values for row in rows), strict=True)]
        values = dict(zip(shape.features, numbers, strict=True))
        moments = {name: [row.moment for row in rows] for name, rows in zip(shape.names, found, strict=True)}
        # A value that is not known is NaN, which becomes null.
        return Reply(200, orjson.dumps({"release": release, "features": values, "moments": moments}))

    return (Endpoint("POST", "/features/{service}", Permission.PREDICT, features),)


@dataclass(frozen=True, slots=True)
class _Shape:
    """Hold the views of some entities, and the names of views and features in the order of the answer."""

    views: tuple[View, ...]
    names: tuple[str, ...]
    features: tuple[str, ...]


class _Shapes:
    """Keep what has been worked out of a release's views for the entities of a request, which are mostly the same."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, tuple[str, ...]], tuple[tuple[View, ...], _Shape]] = {}

    def of(self, service: str, views: tuple[View, ...], entities: Mapping[str, Any]) -> _Shape:
        """Return the shape of an answer; raise BadLookup if no view has one of the entities."""
        key = (id(views), tuple(entities))
        found = self._known.get(key)
        # The views are held, so that nothing else can have their identity.
        if found is not None and found[0] is views:
            return found[1]
        known = {view.entity for view in views}
        unknown = sorted(entities.keys() - known)
        if unknown:
            raise BadLookup(
                f"No feature view of {service} has the entity {unknown[0][:60]!r}.",
                why=f"Its entities: {', '.join(sorted(known)) or 'none'}.",
                mend="Ask for one of these.",
            )
        wanted = tuple(view for view in views if view.entity in entities)
        shape = _Shape(
            wanted, tuple(view.name for view in wanted), tuple(name for view in wanted for name in view.features)
        )
        if len(self._known) >= _MOST_SHAPES:
            self._known.clear()
        self._known[key] = views, shape
        return shape


def _asked(body: bytes, now_us: Callable[[], int]) -> tuple[dict[str, list[Any]], list[int]]:
    """Return the entities by column, and the moment (µs) of each row."""
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _bad(f"The body is not JSON: {error}") from None
    if type(asked) is not dict or not asked.keys() <= {"entities", "time"}:
        raise _bad("The body is not an object of the fields entities and time.")
    entities = asked.get("entities")
    if type(entities) is not dict or not entities:
        raise _bad("The field entities is not an object of lists.")
    rows = -1
    for name, values in entities.items():
        if type(values) is not list or not values or rows not in (-1, len(values)):
            raise _bad(f"The entities {name[:60]!r} are not a list of as many values as others.")
        if not all(type(value) in (str, int, type(None)) for value in values):
            raise _bad(f"The entities {name[:60]!r} are not all texts, whole numbers or null.")
        rows = len(values)
    if rows > MAX_ENTITIES:
        raise TooLarge(f"There are {rows} rows; {MAX_ENTITIES} are allowed in one request.")
    times = asked.get("time")
    if times is None:
        return entities, [now_us()] * rows
    given = times if type(times) is list else [times] * rows
    if len(given) != rows:
        raise _bad(f"The field time has {len(given)} moments for {rows} rows.")
    return entities, read_times("time", given)


def _bad(what: str) -> BadLookup:
    return BadLookup(what, mend='Write it like {"entities": {"origin": ["EWR"]}, "time": "2013-03-01T12:00:00Z"}.')
