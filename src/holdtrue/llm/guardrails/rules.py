"""Pure rules of guardrails: which declarations can work, what is masked with what, what a set of findings comes to."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, get_args

from holdtrue.core import codec
from holdtrue.core.ids import check_name
from holdtrue.llm.guardrails.model import (
    KINDS,
    RANK,
    Action,
    BadGuardrail,
    Decision,
    Failure,
    Finding,
    Guard,
    GuardrailSpec,
    Kind,
    On,
    OnFailure,
)

MOST_GUARDS: Final = 20
MOST_ALLOWED: Final = 1_000
MASKABLE: Final[tuple[Kind, ...]] = ("secrets", "personal_data")

SECRETS: Final = (
    "anthropic_key",
    "aws_access_key",
    "aws_secret_key",
    "azure_storage_key",
    "connection_password",
    "generic_secret",
    "github_token",
    "gitlab_token",
    "google_api_key",
    "google_oauth_secret",
    "holdtrue_token",
    "huggingface_token",
    "jwt",
    "npm_token",
    "openai_key",
    "private_key",
    "pypi_token",
    "sendgrid_key",
    "slack_token",
    "slack_webhook",
    "stripe_key",
    "telegram_token",
)
PERSONAL: Final = (
    "be_national",
    "br_cpf",
    "credit_card",
    "de_tax_id",
    "email",
    "es_dni",
    "fi_hetu",
    "fr_nir",
    "iban",
    "ip_address",
    "it_fiscal_code",
    "nl_bsn",
    "phone",
    "pl_pesel",
    "se_personnummer",
    "uk_nhs",
    "uk_nino",
    "us_ssn",
)

# What presidio calls the things that it finds, and what they are called here.
PRESIDIO: Final[Mapping[str, str]] = {
    "EMAIL_ADDRESS": "email",
    "PHONE_NUMBER": "phone",
    "IBAN_CODE": "iban",
    "CREDIT_CARD": "credit_card",
    "IP_ADDRESS": "ip_address",
    "US_SSN": "us_ssn",
    "UK_NHS": "uk_nhs",
    "UK_NINO": "uk_nino",
    "ES_NIF": "es_dni",
    "ES_NIE": "es_dni",
    "IT_FISCAL_CODE": "it_fiscal_code",
    "PL_PESEL": "pl_pesel",
    "FI_PERSONAL_IDENTITY_CODE": "fi_hetu",
    "SE_PERSONNUMMER": "se_personnummer",
    "DE_TAX_ID": "de_tax_id",
}


@dataclass(frozen=True, slots=True)
class Option:
    """Describe an option of a kind of guard: its default, and what its value must be."""

    default: Any
    must: str
    fits: Callable[[Any], bool]


def _share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 < value <= 1.0


def _names(*known: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and len(value) > 0 and all(each in known for each in value)


def _texts(value: Any) -> bool:
    return (
        isinstance(value, list | tuple) and len(value) <= MOST_ALLOWED and all(isinstance(each, str) for each in value)
    )


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _one_of(*known: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in known


_SHARE: Final = "a number above 0 and at most 1"
_COMMON: Final[Mapping[str, Option]] = {
    "time_ms": Option(100, "a whole number of milliseconds from 1 to 60000", _whole(1, 60_000)),
    "max_chars": Option(100_000, "a whole number from 100 to 1000000", _whole(100, 1_000_000)),
}

OPTIONS: Final[Mapping[Kind, Mapping[str, Option]]] = {
    "secrets": {
        **_COMMON,
        "kinds": Option(SECRETS, f"a list of any of {', '.join(SECRETS)}", _names(*SECRETS)),
        "allow": Option((), f"a list of at most {MOST_ALLOWED} texts", _texts),
        "threshold": Option(0.5, _SHARE, _share),
    },
    "personal_data": {
        **_COMMON,
        "kinds": Option(PERSONAL, f"a list of any of {', '.join(PERSONAL)}", _names(*PERSONAL)),
        "allow": Option((), f"a list of at most {MOST_ALLOWED} texts", _texts),
        "threshold": Option(0.5, _SHARE, _share),
        "engine": Option("own", "“own” or “presidio”", _one_of("own", "presidio")),
    },
    "injection": {
        **_COMMON,
        "threshold": Option(0.5, _SHARE, _share),
        "decode": Option(True, "true or false", _flag),
    },
    "schema": {
        **_COMMON,
        "schema": Option(None, "a JSON Schema", lambda value: isinstance(value, Mapping | bool)),
        "most_errors": Option(5, "a whole number from 1 to 50", _whole(1, 50)),
    },
    "grounding": {
        **_COMMON,
        "threshold": Option(0.8, _SHARE, _share),
        "support": Option(0.6, _SHARE, _share),
        "numbers": Option(True, "true or false", _flag),
        "names": Option(True, "true or false", _flag),
        "citations": Option("check", "“ignore”, “check” or “require”", _one_of("ignore", "check", "require")),
        "similarity": Option("none", "“none” or “e5”", _one_of("none", "e5")),
        "similarity_threshold": Option(0.92, _SHARE, _share),
    },
}
_PRESIDIO_THRESHOLD: Final = 0.4  # what its telephone numbers have when no word beside them says what they are
_SLOW: Final = 2_000  # milliseconds for presidio and for embeddings, where the guard says nothing else
_PLACES: Final[Mapping[Kind, tuple[On, ...]]] = {
    "secrets": ("input", "output", "both", "context"),
    "personal_data": ("input", "output", "both", "context"),
    "injection": ("input", "output", "both", "context"),
    "schema": ("output",),
    "grounding": ("output",),
}


def read_spec(content: Any) -> GuardrailSpec:
    """Return the guardrail that a catalog version's content describes; what cannot work raises BadGuardrail."""
    if isinstance(content, GuardrailSpec):
        spec = content
    else:
        if isinstance(content, Mapping):
            _check_words(content)
        spec = codec.load(GuardrailSpec, content, "A guardrail")
    check_spec(spec)
    return spec


_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "kind": KINDS,
    "on": get_args(On),
    "action": get_args(Action),
    "on_failure": get_args(OnFailure),
    "options": (),
}


def _check_words(content: Mapping[str, Any]) -> None:
    """Name the close word where a guard's field, or its kind, place, action or policy, is misspelt."""
    guards = content.get("guards")
    for guard in guards if isinstance(guards, list | tuple) else ():
        if not isinstance(guard, Mapping):
            continue
        for name, value in guard.items():
            if name not in _FIELDS:
                raise _unknown(str(name), "a field of a guard", tuple(_FIELDS))
            if isinstance(value, str) and _FIELDS[name] and value not in _FIELDS[name]:
                raise _unknown(value, f"a guard's {name.replace('_', ' ')}", _FIELDS[name])


def _unknown(word: str, what: str, known: tuple[str, ...]) -> BadGuardrail:
    return BadGuardrail(
        f"“{word[:80]}” is not {what}.",
        why=f"Known: {', '.join(known)}.",
        mend=_closest(word, known),
        facts={"word": word[:80]},
    )


def check_spec(spec: GuardrailSpec) -> None:
    """Raise BadGuardrail for a guardrail that cannot work, saying what, why and how to mend it."""
    check_name(spec.name, "guardrail name")
    if not 1 <= len(spec.guards) <= MOST_GUARDS:
        raise BadGuardrail(
            f"The guardrail “{spec.name}” has {len(spec.guards)} guards.",
            why=f"A guardrail has between 1 and {MOST_GUARDS}: without any it would let everything through.",
            mend="Declare at least one guard.",
        )
    for name, guard in zip(spec.names(), spec.guards, strict=True):
        _check_guard(name, guard)
    twice = [name for name, guard in zip(spec.names(), spec.guards, strict=True) if spec.guards.count(guard) > 1]
    if twice:
        raise BadGuardrail(
            f"The guardrail “{spec.name}” declares the same guard twice: {', '.join(twice)}.",
            why="The second one would only cost time.",
            mend="Leave one of them out, or let them differ.",
        )


def _check_guard(name: str, guard: Guard) -> None:
    if guard.on not in _PLACES[guard.kind]:
        raise BadGuardrail(
            f"The guard {name} cannot be on the {guard.on}.",
            why=f"A guard of kind {guard.kind} judges an answer.",
            mend=f"Put it on: {', '.join(_PLACES[guard.kind])}.",
        )
    if guard.action == "mask" and guard.kind not in MASKABLE:
        raise BadGuardrail(
            f"The guard {name} cannot mask.",
            why=f"What a guard of kind {guard.kind} finds is the text itself, not a value in it.",
            mend="Use the action “block” or “log”; only secrets and personal data can be masked.",
        )
    known = OPTIONS[guard.kind]
    for option, value in guard.options.items():
        if option not in known:
            raise BadGuardrail(
                f"The guard {name} has no option “{str(option)[:80]}”.",
                why=f"Known: {', '.join(known)}.",
                mend=_closest(str(option), tuple(known)),
                facts={"option": str(option)},
            )
        if not known[option].fits(value):
            raise BadGuardrail(
                f"The option “{option}” of the guard {name} cannot be {str(value)[:80]!r}.",
                why=f"It must be {known[option].must}.",
                mend=_mend_value(option, value, guard.kind),
                facts={"option": option},
            )
    _check_engine(name, guard)


def _check_engine(name: str, guard: Guard) -> None:
    if guard.kind != "personal_data" or guard.options.get("engine") != "presidio" or "kinds" not in guard.options:
        return
    beyond = sorted(set(guard.options["kinds"]) - set(PRESIDIO.values()))
    if beyond:
        raise BadGuardrail(
            f"The guard {name} asks presidio for {', '.join(beyond)}.",
            why="Presidio has no recogniser for that here.",
            mend="Leave it out, or declare a second guard with the engine “own” for it.",
        )


def _mend_value(option: str, value: Any, kind: Kind) -> str:
    known = {"secrets": SECRETS, "personal_data": PERSONAL}.get(kind, ())
    if option == "kinds" and isinstance(value, list | tuple):
        strange = [str(each) for each in value if each not in known]
        if strange:
            return f"“{strange[0][:80]}” is none of them. {_closest(strange[0], known)}"
    return "Correct the value, or leave the option out to have its default."


def _closest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"Did you mean “{close[0]}”?" if close else "Use one of those."


def options_of(guard: Guard) -> dict[str, Any]:
    """Return the options of a guard with their defaults; slow engines have more time, presidio a lower threshold."""
    found = {name: guard.options.get(name, option.default) for name, option in OPTIONS[guard.kind].items()}
    if "time_ms" not in guard.options and (found.get("engine") == "presidio" or found.get("similarity") == "e5"):
        found["time_ms"] = _SLOW
    if "threshold" not in guard.options and found.get("engine") == "presidio":
        found["threshold"] = _PRESIDIO_THRESHOLD
    return found


def mask_of(kind: Kind, label: str) -> str:
    """Return what stands in the place of a masked value."""
    return f"[secret:{label}]" if kind == "secrets" else f"[{label}]"


MASKS: Final = frozenset(mask_of("secrets", label) for label in SECRETS) | frozenset(
    mask_of("personal_data", label) for label in PERSONAL
)


@dataclass(frozen=True, slots=True)
class Cover:
    """Say that the signs from `start` to `end` of a text are replaced by `mask`, and how sure that label is."""

    start: int
    end: int
    mask: str
    score: float


def covers(findings: Sequence[Finding]) -> tuple[Cover, ...]:
    """Return what must be masked, in order; what overlaps becomes one, under the mask of the surest."""
    result: list[Cover] = []
    for finding in sorted(findings, key=lambda each: (each.start, each.end)):
        cover = Cover(finding.start, finding.end, mask_of(finding.kind, finding.label), finding.score)
        if result and cover.start < result[-1].end:
            last = result[-1]
            surer = cover if (cover.score, cover.end - cover.start) > (last.score, last.end - last.start) else last
            result[-1] = replace(surer, start=last.start, end=max(last.end, cover.end))
        else:
            result.append(cover)
    return tuple(result)


def masked(text: str, covered: Sequence[Cover]) -> str:
    """Return `text` with each cover in its place."""
    parts: list[str] = []
    at = 0
    for cover in covered:
        parts += [text[at : cover.start], cover.mask]
        at = cover.end
    parts.append(text[at:])
    return "".join(parts)


def original_span(start: int, end: int, covered: Sequence[Cover]) -> tuple[int, int]:
    """Return the place in the original text of the signs from `start` to `end` of the masked one.

    A place that touches a mask stands for all that the mask covers.
    """
    shift, first, last = 0, -1, -1
    for cover in covered:
        left = cover.start + shift
        right = left + len(cover.mask)
        if first < 0 and start < right:
            first = cover.start if start >= left else start - shift
        if end <= left:
            last = end - shift
            break
        if end <= right:
            last = cover.end
            break
        shift += len(cover.mask) - (cover.end - cover.start)
    return (start - shift if first < 0 else first), (end - shift if last < 0 else last)


def decide(actions: Sequence[Action], failed: Sequence[Failure]) -> Decision:
    """Return the gravest of what findings ask for; a failed guard that is closed blocks."""
    decision: Decision = "pass"
    for action in actions:
        decision = action if RANK[action] > RANK[decision] else decision
    return "block" if any(failure.on_failure == "closed" for failure in failed) else decision
