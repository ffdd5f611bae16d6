"""A stream of Redis as messages and answers: one consumer of a group, answering and acknowledging in one step.

Commands: XREADGROUP, XAUTOCLAIM, XPENDING, XACK, XADD (https://redis.io/docs/latest/develop/data-types/streams/).
"""

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from holdtrue.core.errors import InvalidInput, MissingExtra, Unavailable
from holdtrue.server.consuming import Message, Told

if TYPE_CHECKING:
    from collections.abc import Generator

FIELD: Final = "row"
_MEND_ADDRESS: Final = "Write it like redis://127.0.0.1:6379/0, with --redis or in REDIS_URL."
_MEND_AWAY: Final = "Start it, or name its address with --redis or in REDIS_URL."
# Who has acknowledged a message has told its answer: both happen, or neither.
_SETTLE: Final = """
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 1 then
  redis.call('XADD', KEYS[2], '*', unpack(ARGV, 3))
  return 1
end
return 0
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Name a stream of requests and one of answers, the group that reads it, and the consumer within the group.

    What a consumer has held for `idle_seconds` without an answer is taken over by another; after `deliveries` of these
    a message is given up.
    """

    requests: str
    answers: str
    group: str
    consumer: str
    idle_seconds: float = 60.0
    deliveries: int = 5


class RedisStream:
    """Take requests from one stream of Redis and put answers into another; the group is made if there is none."""

    def __init__(self, url: str, place: Place) -> None:
        """`url` is redis://, rediss:// or unix://. Raises MissingExtra, InvalidInput, Unavailable."""
        try:
            import redis
            import redis.exceptions
        except ImportError:
            raise MissingExtra.of("redis", "redis") from None
        self._errors = redis.exceptions
        self._place = place
        try:
            self._client: Any = redis.Redis.from_url(url, protocol=2, socket_timeout=30, socket_connect_timeout=5)
        except ValueError as error:
            raise InvalidInput(
                "The address of Redis cannot be used.", why=f"{error}.".replace("..", "."), mend=_MEND_ADDRESS
            ) from None
        self._settle = self._client.register_script(_SETTLE)
        self._own = "0"
        self._claimed_from = "0-0"
        with self._reaching():
            self._make_group()

    def take(self, most: int, seconds: float) -> Sequence[Message]:
        """Return what this consumer left before, then what dead ones left, then what is new."""
        with self._reaching():
            if self._own != ">":
                # What was taken under this name by a process that ended: until there is no more of it.
                mine = self._read(most, self._own, None)
                if mine:
                    self._own = mine[-1].id
                    return self._counted(mine)
                self._own = ">"
            left = self._left_behind(most)
            if left:
                return self._counted(left)
            return self._read(most, ">", max(round(seconds * 1000), 1))

    def settle(self, told: Sequence[Told]) -> int:
        """Put the answers out and acknowledge their messages, each in one step of Redis."""
        place, done = self._place, 0
        with self._reaching():
            for each in told:
                fields = {"message": each.message.id, "answer" if each.good else "error": each.body}
                if each.prediction:
                    fields["prediction_id"] = each.prediction
                given = [part for pair in fields.items() for part in pair]
                keys = [place.requests, place.answers]
                done += int(self._settle(keys=keys, args=[place.group, each.message.id, *given]))
        return done

    def close(self) -> None:
        """Close the connection; what was taken and not answered waits for the next one of this name, or another."""
        self._client.close()

    def _read(self, most: int, start: str, block: int | None) -> list[Message]:
        place = self._place
        found = self._client.xreadgroup(place.group, place.consumer, {place.requests: start}, count=most, block=block)
        return [_message(name, fields) for _, entries in found or () for name, fields in entries]

    def _left_behind(self, most: int) -> list[Message]:
        place = self._place
        idle = max(round(place.idle_seconds * 1000), 1)
        found = self._client.xautoclaim(
            place.requests, place.group, place.consumer, idle, start_id=self._claimed_from, count=most
        )
        self._claimed_from = _text(found[0])
        return [_message(name, fields) for name, fields in found[1]]

    def _counted(self, messages: list[Message]) -> list[Message]:
        """Give those up that were delivered too often: whoever takes them dies of them, as it seems."""
        place = self._place
        pending = self._client.xpending_range(
            place.requests, place.group, min=messages[0].id, max=messages[-1].id, count=10 * len(messages) + 100
        )
        often = {_text(each["message_id"]): each["times_delivered"] for each in pending}
        return [
            Message(each.id, each.body, f"It was taken {often[each.id]} times and never answered.")
            if often.get(each.id, 0) > place.deliveries
            else each
            for each in messages
        ]

    def _make_group(self) -> None:
        try:
            self._client.xgroup_create(self._place.requests, self._place.group, id="0", mkstream=True)
        except self._errors.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    @contextmanager
    def _reaching(self) -> "Generator[None]":
        """Say of every failure of Redis that it may pass, but for what it refuses for good."""
        errors = self._errors
        try:
            yield
        except errors.ResponseError as error:
            if str(error).startswith("NOGROUP"):
                self._make_group()
                raise Unavailable("The group was taken away, and is made anew.") from None
            raise InvalidInput("Redis refuses what it is asked.", why=str(error)[:200]) from None
        except (errors.AuthenticationError, errors.AuthorizationError) as error:
            mend = "Name the user and password in the address: redis://user:password@host:6379/0"
            raise InvalidInput("Redis does not let this consumer in.", why=str(error)[:200], mend=mend) from None
        except errors.RedisError as error:
            why = str(error)[:200] or type(error).__name__
            raise Unavailable("Redis does not answer.", why=why, mend=_MEND_AWAY) from None


def _message(name: Any, fields: Mapping[Any, Any] | None) -> Message:
    given = {} if fields is None else {_text(key): value for key, value in fields.items()}
    body = given.get(FIELD)
    # What was trimmed away meanwhile is nothing, and what has another form is an error like any other row.
    if fields is not None and body is None:
        held = ", ".join(sorted(given)[:5]) or "none"
        return Message(_text(name), b"null", wrong=f"It has no field “{FIELD}”; it has {held[:100]}.")
    return Message(_text(name), body if isinstance(body, bytes) else b"null")


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
