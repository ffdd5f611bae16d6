"""Checks of one answer: their definitions as data, and the pure functions that grade by them."""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np

from holdtrue.core.canonical import content_hash
from holdtrue.core.codec import dump, load
from holdtrue.core.errors import HoldtrueError
from holdtrue.evaluation.judges import Complete, Rubric, check_rubric, judge
from holdtrue.evaluation.matching import BadCheck, check_pattern, check_schema, found_at, matched_calls, schema_faults
from holdtrue.evaluation.options import (
    Abstention,
    Citation,
    Contains,
    Cost,
    Exact,
    JsonSchema,
    Latency,
    Length,
    Regex,
    Similarity,
    Tools,
    check_options,
)
from holdtrue.evaluation.testsets import Case
from holdtrue.evaluation.views import MAX_ANSWER, AnswerView, Grade, short
from holdtrue.evaluation.wording import folded, token_f1, unsupported, words

MAX_CHECKS: Final = 40
MAX_WHY: Final = 600
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_BEGINNING: Final = 240

Embed: TypeAlias = Callable[[Sequence[str]], Sequence[Sequence[float]]]
"""Turn texts into vectors of one length, in order."""

Found: TypeAlias = tuple[float, bool, str]
"""A score in [0, 1], whether it is enough, and why."""


@dataclass(frozen=True, slots=True)
class Check:
    """Define one check: its kind, the options of that kind, and the name under which its results stand."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    name: str = ""

    @property
    def label(self) -> str:
        """Return the name of the check's results: its own, or its kind."""
        return self.name or self.kind


@dataclass(frozen=True, slots=True)
class Helpers:
    """Hold what some checks call: `embed` for similarity by meaning, `complete` for model judges."""

    embed: Embed | None = None
    complete: Complete | None = None


def checks_from_json(data: Any, helpers: Helpers | None = None) -> tuple[Check, ...]:
    """Return checks from a list of {"kind", "options", "name"}; BadCheck names the check and the wrong option."""
    if not isinstance(data, Sequence) or isinstance(data, str):
        raise BadCheck("Checks are a list.", why=f"This is {type(data).__name__}.", mend='Write [{"kind": "exact"}].')
    return check_checks([_read(f"Check {at}", each) for at, each in enumerate(data, 1)], helpers)


def _read(place: str, data: Any) -> Check:
    return _placed(place, lambda: load(Check, data, place))


def check_checks(checks: Iterable[Check], helpers: Helpers | None = None) -> tuple[Check, ...]:
    """Return `checks` if answers can be graded by them (with `helpers`, if given), else raise BadCheck."""
    found = tuple(checks)
    if not 1 <= len(found) <= MAX_CHECKS:
        raise BadCheck(
            f"There are {len(found)} checks.",
            why=f"An evaluation has between 1 and {MAX_CHECKS}: without any, every answer would pass.",
            mend='Declare at least one, for example {"kind": "exact"}.',
        )
    taken: set[str] = set()
    for check in found:
        if check.label in taken or _NAME.fullmatch(check.label) is None:
            raise BadCheck(
                f"“{short(check.label, 60)}” cannot name a check here.",
                why="A name is taken once, starts with a letter and has letters, digits and underscores: "
                "rules read answers.checks.NAME.mean.",
                mend="Give the check another name.",
            )
        taken.add(check.label)
        options = _placed(f"The check “{check.label}”", lambda check=check: _checked(check))
        _need_helper(check, options, helpers)
    return found


def checks_digest(checks: Iterable[Check]) -> str:
    """Return the hash of what checks do: kinds, names and options, those left out with their defaults."""
    return content_hash([[each.kind, each.label, dump(options_of(each))] for each in checks])


def options_of(check: Check) -> Any:
    """Return the options of `check` as the frozen value of its kind; BadCheck for what its kind does not know."""
    kind = KINDS.get(check.kind)
    if kind is None:
        close = difflib.get_close_matches(check.kind, KINDS, n=1)
        raise BadCheck(
            f"There is no kind of check “{short(check.kind, 60)}”.",
            why=f"The kinds are {', '.join(sorted(KINDS))}.",
            mend=f"Did you mean “{close[0]}”?" if close else "Use one of them.",
        )
    return load(kind.options, dict(check.options), f"The check “{check.label}”")


def applies(check: Check, case: Case) -> bool:
    """Tell whether `check` has something to say about `case`: what it compares with is there."""
    return KINDS[check.kind].applies(options_of(check), case)


def declined(answer: AnswerView, checks: Iterable[Check] = ()) -> bool:
    """Tell whether an answer declines: it says so, or begins with a phrase of the check “abstention” among `checks`."""
    options = next((options_of(each) for each in checks if each.kind == "abstention"), Abstention())
    return not answer.error and _declines(options, answer)


def grade(check: Check, case: Case, answer: AnswerView, helpers: Helpers | None = None) -> Grade:
    """Grade one answer by one check; an answer that failed with an error fails with that error.

    The same input gives the same grade, apart from a model judge, which is asked through `helpers`.
    """
    if answer.error:
        return Grade(check.label, 0.0, False, short(f"no answer: {answer.error}", MAX_WHY))
    options = options_of(check)
    if isinstance(options, Rubric):
        assert helpers is not None
        assert helpers.complete is not None
        verdict = judge(options, case, answer, helpers.complete)
        return Grade(check.label, verdict.score, verdict.passed, short(verdict.why, MAX_WHY), verdict.abstained)
    if len(answer.text) > MAX_ANSWER:
        why = f"the answer has {len(answer.text):,} characters; at most {MAX_ANSWER:,} are graded"
        return Grade(check.label, 0.0, False, why)
    if isinstance(options, Similarity):
        score, passed, why = _similarity(options, case, answer, helpers)
    else:
        score, passed, why = KINDS[check.kind].find(options, case, answer)
    return Grade(check.label, score, passed, short(why, MAX_WHY))


def _checked(check: Check) -> Any:
    options = options_of(check)
    if isinstance(options, Rubric):
        check_rubric(options)
    check_options(options)
    return options


def check_case(check: Check, case: Case) -> None:
    """Raise BadCheck where a case's own pattern or schema cannot be used."""
    if check.kind == "regex" and case.expected.pattern:
        _placed(f"The case “{case.id}”", lambda: check_pattern(case.expected.pattern))
    if check.kind == "json_schema" and case.expected.json_schema is not None:
        schema = case.expected.json_schema
        _placed(f"The case “{case.id}”", lambda: check_schema(schema))


def _need_helper(check: Check, options: Any, helpers: Helpers | None) -> None:
    if helpers is None:
        return
    if isinstance(options, Rubric) and helpers.complete is None:
        raise BadCheck(
            f"The check “{check.label}” needs a model that judges, and none is there.",
            mend="Give the gateway a provider: holdtrue provider add NAME.",
        )
    if isinstance(options, Similarity) and options.by == "embedding" and helpers.embed is None:
        raise BadCheck(
            f"The check “{check.label}” needs an embedding, and none is there.",
            mend='Compare by words ({"by": "words"}), or name an embedding model.',
        )


def _placed(place: str, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except BadCheck as error:
        raise BadCheck(f"{place}: {error.what}", why=error.why, mend=error.mend, facts=error.facts) from None
    except HoldtrueError as error:
        if error.code != "configuration":
            raise
        what = error.what.replace("has no setting", "has no option")
        what = what if place in what else f"{place}: {what}"
        raise BadCheck(what, why=error.why, mend=error.mend, facts=error.facts) from None


def _exact(options: Exact, case: Case, answer: AnswerView) -> Found:
    def form(text: str) -> Any:
        plain = folded(text, case=options.ignore_case)
        # A reference without words, such as “+”, is compared as it stands.
        return (options.ignore_punctuation and words(plain, case=options.ignore_case)) or plain

    if any(form(answer.text) == form(reference) for reference in case.expected.answers):
        return 1.0, True, "is a reference answer"
    return 0.0, False, f"“{short(answer.text, 80)}” is not “{short(case.expected.answers[0], 80)}”"


def _contains(options: Contains, case: Case, answer: AnswerView) -> Found:
    def form(text: str) -> str:
        return folded(text, case=options.ignore_case)

    text = form(answer.text)
    wanted = [form(each) in text for each in case.expected.contains]
    must = [form(each) in text for each in options.must]
    banned = [each for each in options.never if form(each) in text]
    faults = [f"“{short(each, 60)}” is in it" for each in banned]
    if options.any and wanted and not any(wanted):
        faults.append("none of " + ", ".join(f"“{short(each, 40)}”" for each in case.expected.contains) + " is in it")
    asked = [*zip(options.must, must, strict=True)]
    asked += [] if options.any else [*zip(case.expected.contains, wanted, strict=True)]
    faults += [f"“{short(each, 60)}” is not in it" for each, there in asked if not there]
    parts = [there for _, there in asked] + ([any(wanted)] if options.any and wanted else [])
    parts += [each not in banned for each in options.never]
    return sum(parts) / len(parts), not faults, "; ".join(faults) or "has all that it must"


def _regex(options: Regex, case: Case, answer: AnswerView) -> Found:
    pattern = case.expected.pattern or options.pattern
    there = found_at(pattern, answer.text) >= 0
    verb = "matches" if there else "does not match"
    return float(there != options.absent), there != options.absent, f"it {verb} “{short(pattern, 80)}”"


def _json_schema(options: JsonSchema, case: Case, answer: AnswerView) -> Found:
    schema = case.expected.json_schema if case.expected.json_schema is not None else options.json_schema
    assert schema is not None
    faults = schema_faults(schema, answer.text, fenced=options.fenced)
    return float(not faults), not faults, " ".join(faults) or "fits the schema"


def _tools(options: Tools, case: Case, answer: AnswerView) -> Found:
    expected = case.expected.tool_calls or ()
    score, faults = matched_calls(
        expected, answer.tool_calls, exact=options.exact, ordered=options.ordered, extra=options.extra
    )
    return score, not faults, " ".join(faults) or "the expected tools were called"


def _similarity(options: Similarity, case: Case, answer: AnswerView, helpers: Helpers | None) -> Found:
    references = case.expected.answers
    if options.by == "words":
        score = max(token_f1(answer.text, each) for each in references)
    else:
        assert helpers is not None
        assert helpers.embed is not None
        first, *others = helpers.embed([answer.text, *references])
        score = max(_cosine(first, each) for each in others)
    passed = score >= options.minimum
    limit = "at least" if passed else "less than"
    return score, passed, f"likeness by {options.by} is {score:.2f}, {limit} {options.minimum:g}"


def _cosine(one: Sequence[float], two: Sequence[float]) -> float:
    first, second = np.asarray(one, dtype=np.float64), np.asarray(two, dtype=np.float64)
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    return min(1.0, max(0.0, float(first @ second) / size)) if size > 0.0 and math.isfinite(size) else 0.0


def _citation(options: Citation, case: Case, answer: AnswerView) -> Found:
    retrieved = {each.id: each for each in answer.passages}
    if not answer.citations:
        return 0.0, False, "it cites nothing"
    cited = list(dict.fromkeys(answer.citations))
    known = [each for each in cited if each in retrieved]
    faults = [f"it cites “{short(each, 40)}”, which was not retrieved" for each in cited if each not in retrieved][:3]
    parts = [len(known) / len(cited)]
    if case.expected.sources and options.source != "anywhere":
        looked = known if options.source == "cited" else list(retrieved)
        places = {name for each in looked for name in (each, retrieved[each].document)}
        missing = [each for each in case.expected.sources if each not in places]
        good = not missing if options.all_sources else len(missing) < len(case.expected.sources)
        parts.append(float(good))
        if not good:
            named = ", ".join(sorted({short(retrieved[each].document, 40) for each in looked})[:3]) or "nothing"
            verb = "cites" if options.source == "cited" else "retrieved"
            faults.append(f"it {verb} {named}, not the source {short(', '.join(missing), 80)}")
    if options.support > 0.0:
        bad, count = unsupported(answer.text, [retrieved[each].text for each in known], options.support)
        share = 1.0 - len(bad) / count if count else 1.0
        parts.append(share)
        if share < options.sentences:
            faults.append(f"{len(bad)} of {count} sentences are not in what it cites: “{short(bad[0], 100)}”")
    return sum(parts) / len(parts), not faults, "; ".join(faults) or "cites what holds the answer"


def _abstention(options: Abstention, case: Case, answer: AnswerView) -> Found:
    said = _declines(options, answer)
    if case.expected.answerable:
        why = f"it declined, though the answer is known: “{short(answer.text, 80)}”" if said else "it answered"
        return float(not said), not said, why
    why = "it declined" if said else f"it answered what cannot be answered: “{short(answer.text, 80)}”"
    return float(said), said, why


def _declines(options: Abstention, answer: AnswerView) -> bool:
    beginning = folded(answer.text[: 4 * _BEGINNING])[:_BEGINNING]
    return answer.abstained or any(folded(each) in beginning for each in options.phrases)


def _length(options: Length, _: Case, answer: AnswerView) -> Found:
    counts = {"words": len(words(answer.text)), "characters": len(answer.text)}
    bounds = {
        "words": (options.min_words, options.max_words),
        "characters": (options.min_characters, options.max_characters),
    }
    for name, (least, most) in bounds.items():
        if counts[name] < least:
            return 0.0, False, f"{counts[name]} {name}, fewer than {least}"
        if most is not None and counts[name] > most:
            return 0.0, False, f"{counts[name]} {name}, more than {most}"
    return 1.0, True, f"{counts['words']} words"


def _latency(options: Latency, _: Case, answer: AnswerView) -> Found:
    if answer.seconds is None:
        return 0.0, False, "how long it took was not measured"
    fast = answer.seconds <= options.max_seconds
    return float(fast), fast, f"it took {answer.seconds:.2f} s of at most {options.max_seconds:g} s"


def _cost(options: Cost, _: Case, answer: AnswerView) -> Found:
    if answer.cost_micros is None:
        return 0.0, False, "what it cost was not measured"
    cheap = answer.cost_micros <= options.max_micros
    return float(cheap), cheap, f"it cost {answer.cost_micros:,} micros of at most {options.max_micros:,}"


@dataclass(frozen=True, slots=True)
class Kind:
    """Hold what there is of a kind of check: its options, to which cases it applies, and how it grades."""

    options: type[Any]
    applies: Callable[[Any, Case], bool]
    find: Callable[[Any, Case, AnswerView], Found]


def _elsewhere(_: Any, __: Case, ___: AnswerView) -> Found:
    raise AssertionError("checks that need helpers are graded where those are")


def _always(_: Any, __: Case) -> bool:
    return True


def _answerable(_: Any, case: Case) -> bool:
    return case.expected.answerable


def _has_answers(_: Any, case: Case) -> bool:
    return bool(case.expected.answers)


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "exact": Kind(Exact, _has_answers, _exact),
        "contains": Kind(
            Contains,
            lambda options, case: (
                case.expected.answerable and bool(case.expected.contains or options.must or options.never)
            ),
            _contains,
        ),
        "regex": Kind(
            Regex,
            lambda options, case: case.expected.answerable and bool(case.expected.pattern or options.pattern),
            _regex,
        ),
        "json_schema": Kind(
            JsonSchema,
            lambda options, case: (
                case.expected.answerable and (case.expected.json_schema is not None or options.json_schema is not None)
            ),
            _json_schema,
        ),
        "tool_call": Kind(Tools, lambda _, case: case.expected.tool_calls is not None, _tools),
        "similarity": Kind(Similarity, _has_answers, _elsewhere),
        "citation": Kind(Citation, _answerable, _citation),
        "abstention": Kind(Abstention, _always, _abstention),
        "length": Kind(Length, _always, _length),
        "latency": Kind(Latency, _always, _latency),
        "cost": Kind(Cost, _always, _cost),
        "judge": Kind(Rubric, _answerable, _elsewhere),
    }
)
