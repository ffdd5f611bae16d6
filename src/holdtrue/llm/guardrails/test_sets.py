"""Load the test sets that come with the package: attacks, values to find, and what only looks like them.

A line of `cases/<kind>.jsonl` is one case. In its text `⟦label⟧` stands for a generated value that should be found
under that label, `⟦label:form⟧` for one of another form, `⟦label=text⟧` for that very text, and `⟦!form⟧` for a
generated value that should not be found.
"""

import json
import re
from importlib.resources import files
from random import Random
from typing import Any, Final, cast

from holdtrue.core.canonical import bytes_hash
from holdtrue.core.errors import InvalidInput
from holdtrue.llm.guardrails.model import KINDS, Expected, GuardCase, Kind, Split
from holdtrue.llm.guardrails.samples import FORMS

_MARK: Final = re.compile(r"⟦(!?)([a-z0-9_]+)(?::([a-z0-9_]+)|=([^⟧]*))?⟧")
_SPANS: Final = ("secrets", "personal_data")


def load_cases(kind: Kind, split: Split | None = None) -> tuple[GuardCase, ...]:
    """Return the cases of one kind of guard, all or those of one split: `tune` or `held_out`.

    The values in them are generated, the same each time. Raises InvalidInput for a kind that has no test set.
    """
    rows = (json.loads(line) for line in _bytes(kind).decode().splitlines())
    cases = (_case(kind, row) for row in rows)
    return tuple(case for case in cases if split is None or case.split == split)


def cases_digest(kind: Kind) -> str:
    """Return the BLAKE3 hash of a test set's file, which names its version."""
    return bytes_hash(_bytes(kind))


def _bytes(kind: str) -> bytes:
    if kind not in KINDS:
        raise InvalidInput(
            f"There is no test set for guards of kind {kind[:80]!r}.",
            why=f"The kinds are {', '.join(KINDS)}.",
            mend="Use one of these kinds.",
            facts={"kinds": list(KINDS)},
        )
    return files("holdtrue.llm.guardrails").joinpath("cases", f"{kind}.jsonl").read_bytes()


def _case(kind: Kind, row: dict[str, Any]) -> GuardCase:
    text, spans = expand(row["text"], row["id"]) if kind in _SPANS else (row["text"], ())
    return GuardCase(
        id=row["id"],
        kind=kind,
        text=text,
        expected=spans if kind in _SPANS else bool(row["expected"]),
        context=tuple(row.get("context", ())),
        schema=row.get("schema"),
        split=cast(Split, row["split"]),
        technique=row["technique"],
        language=row["language"],
    )


def expand(template: str, seed: str) -> tuple[str, tuple[Expected, ...]]:
    """Return the text that a template stands for, its values made from `seed`, and what should be found in it."""
    parts: list[str] = []
    spans: list[Expected] = []
    at = length = 0
    for place, mark in enumerate(_MARK.finditer(template)):
        before = template[at : mark.start()]
        harmless, label, form, literal = mark.groups()
        value = literal if literal is not None else FORMS[form or label](Random(f"{seed}/{place}"))
        start = length + len(before)
        if not harmless:
            spans.append(Expected(start, start + len(value), label))
        parts += [before, value]
        at, length = mark.end(), start + len(value)
    parts.append(template[at:])
    return "".join(parts), tuple(spans)
