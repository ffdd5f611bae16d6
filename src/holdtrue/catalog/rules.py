"""Pure rules of the catalog: what may be registered, and what differs between two contents."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from holdtrue.catalog.model import Difference
from holdtrue.core.errors import Conflict, InvalidInput
from holdtrue.core.ids import PREFIXES, check_name

MOST_DIFFERENCES = 500
ENVIRONMENTS = frozenset({"production", "staging", "dev"})
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_IDENTITIES = ("name", "id", "key", "path", "rule")


def check_kind(kind: str) -> str:
    """Return `kind` if assets of that kind exist, else raise InvalidInput naming the close one."""
    if kind in PREFIXES and kind != "release":
        return kind
    kinds = [known for known in PREFIXES if known != "release"]
    close = difflib.get_close_matches(kind, kinds, n=1)
    raise InvalidInput(
        f"{kind[:80]!r} is not a kind of asset.",
        why=f"The kinds are {', '.join(kinds)}.",
        mend=f"Did you mean “{close[0]}”?" if close else "Use one of these kinds.",
        facts={"kinds": kinds},
    )


def check_alias(alias: str) -> str:
    """Return `alias` if it may name a version; a mere number, which counts versions, may not."""
    if alias.isdigit():
        raise InvalidInput(
            f"{alias!r} cannot be an alias.",
            why="A number after “@” means the version with that number.",
            mend="Use a word, for example “production”.",
        )
    return check_name(alias, "alias")


def check_free_alias(alias: str) -> str:
    """Return `alias` if anybody may move it: one named like an environment moves with its deployments only."""
    if alias not in ENVIRONMENTS:
        return alias
    raise Conflict(
        f"The alias {alias!r} cannot be moved by hand.",
        why="It names what is deployed in that environment, and nothing gets there but by a decision.",
        mend="Make a release, let its gate decide, and promote it: `holdtrue promote`.",
    )


def check_blobs(blobs: Sequence[str]) -> tuple[str, ...]:
    """Return `blobs` if each is a blob's digest: 64 hexadecimal digits."""
    for digest in blobs:
        if _DIGEST.fullmatch(digest) is None:
            raise InvalidInput(
                f"{digest[:80]!r} is not a blob's digest.",
                why="A digest is 64 hexadecimal digits.",
                mend="Store the bytes first and use the digest that gives.",
            )
    return tuple(blobs)


def plain(value: Any) -> Any:
    """Return a JSON value as dicts and lists, the form in which it comes back from the database."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def differences(before: Any, after: Any) -> tuple[list[Difference], bool]:
    """Return what differs between two JSON values, by path, and whether more was left out."""
    found: list[Difference] = []
    for difference in _walk("", plain(before), plain(after)):
        if len(found) == MOST_DIFFERENCES:
            return found, True
        found.append(difference)
    return found, False


def _walk(path: str, before: Any, after: Any) -> Iterator[Difference]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from _member(_dotted(path, key), before, after, key)
    elif isinstance(before, list) and isinstance(after, list):
        yield from _lists(path, before, after)
    elif before != after or isinstance(before, bool) is not isinstance(after, bool):
        # Numbers are what they are worth: JSON writes 30 and 30.0 alike.
        yield Difference(path or "$", "changed", before, after)


def _member(path: str, before: dict[Any, Any], after: dict[Any, Any], key: Any) -> Iterator[Difference]:
    if key not in before:
        yield Difference(path, "added", None, after[key])
    elif key not in after:
        yield Difference(path, "removed", before[key], None)
    else:
        yield from _walk(path, before[key], after[key])


def _lists(path: str, before: list[Any], after: list[Any]) -> Iterator[Difference]:
    """Compare lists: things with a name by their name, plain values by sequence, the rest by place."""
    identity = _identity(before, after)
    if identity is not None:
        old = {item[identity]: item for item in before}
        new = {item[identity]: item for item in after}
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _member(f"{path}[{identity}={key}]", old, new, key)
        kept = [key for key in old if key in new]
        order = [key for key in new if key in old]
        if kept != order:
            yield Difference(f"{path}[order]", "changed", kept, order)
    elif all(not isinstance(item, dict | list) for item in (*before, *after)):
        yield from _sequence(path, before, after)
    else:
        for index in range(max(len(before), len(after))):
            place = f"{path}[{index}]"
            if index >= len(before):
                yield Difference(place, "added", None, after[index])
            elif index >= len(after):
                yield Difference(place, "removed", before[index], None)
            else:
                yield from _walk(place, before[index], after[index])


def _sequence(path: str, before: list[Any], after: list[Any]) -> Iterator[Difference]:
    """Compare lists of plain values, so that one inserted value is one difference."""
    old = [(type(item).__name__, item) for item in before]
    new = [(type(item).__name__, item) for item in after]
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for _, start, end, new_start, new_end in (code for code in matcher.get_opcodes() if code[0] != "equal"):
        shared = min(end - start, new_end - new_start)
        for step in range(shared):
            index = start + step
            yield Difference(f"{path}[{index}]", "changed", before[index], after[new_start + step])
        for index in range(start + shared, end):
            yield Difference(f"{path}[{index}]", "removed", before[index], None)
        for index in range(new_start + shared, new_end):
            yield Difference(f"{path}[{index}]", "added", None, after[index])


def _identity(before: list[Any], after: list[Any]) -> str | None:
    """Return the key by which the elements of both lists can be told apart, if there is one."""
    both = (*before, *after)
    if not both or not all(isinstance(item, dict) for item in both):
        return None
    for key in _IDENTITIES:
        if all(isinstance(item.get(key), str) for item in both) and all(
            len({item[key] for item in side}) == len(side) for side in (before, after)
        ):
            return key
    return None


def _dotted(path: str, key: str) -> str:
    if _PLAIN_KEY.fullmatch(key) is None:
        return f"{path}[{key!r}]"
    return f"{path}.{key}" if path else key
