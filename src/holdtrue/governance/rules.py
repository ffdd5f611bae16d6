"""Judge evidence by policy: facts in, findings out."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from holdtrue.core.errors import HoldtrueError
from holdtrue.governance import expressions
from holdtrue.governance.calendar import check_calendar
from holdtrue.governance.model import EVIDENCE_NAMES, FACTS, BadRule, Finding, Outcome, Policy, Rule

if TYPE_CHECKING:
    import cel

MAX_EXPRESSION: Final = 1000
MAX_DEPTH: Final = 2
MAX_RULES: Final = 50
MAX_STEPS: Final = 250_000
_SHOWN: Final = 5

_FUNCTIONS: Final = frozenset(
    {"contains", "double", "endsWith", "int", "matches", "size", "startsWith", "string", "uint"}
)
_AFTER_CHANGE: Final = "Change the rule in the project file and run `holdtrue apply`, or record what it asks for."
_MEND_MISSING: Final = "Run `holdtrue run`: it evaluates the release and records what the policy asks for."
_RECORDED: Final = frozenset(
    {
        "answers",
        "baseline",
        "comparison",
        "coverage",
        "data",
        "guardrails",
        "metric",
        "parity",
        "performance",
        "privacy",
        "retrieval",
        "slices",
    }
)
_MEND_FOREIGN: Final = (
    "`holdtrue run` does not record this kind: record it at POST /api/projects/{{project}}/evidence "
    "with the kind “{kind}”, then ask again with `holdtrue gate`."
)
_MEND_FALSE: Final = (
    "Make a release that meets the rule, or change the policy in the project file and run `holdtrue apply`."
)
_MEND_PLACE: Final = (
    "Bring it into the environment that the rule names first: holdtrue promote SERVICE RELEASE -e ENVIRONMENT. "
    "Then ask again with `holdtrue gate`."
)


def names() -> frozenset[str]:
    """Return every name a rule may use."""
    return frozenset(name for known in EVIDENCE_NAMES.values() for name in known) | {FACTS}


def reads(expression: str) -> frozenset[str]:
    """Return the names of evidence, and of facts about the release, that a rule's expression uses."""
    return frozenset(path.root for path in expressions.paths(expression))


def check_policy(policy: Policy) -> None:
    """Compile every rule; raise BadRule that names the rule, the place and the mend."""
    if not policy.rules or len(policy.rules) > MAX_RULES:
        raise BadRule(
            f"The policy of {policy.environment} has {len(policy.rules)} rules.",
            why=f"A policy has between 1 and {MAX_RULES}: without any, everything would be allowed.",
            mend="Declare at least one rule.",
        )
    if not 0 <= policy.approvals <= 10:
        raise BadRule(
            f"The policy of {policy.environment} asks for {policy.approvals} approvals.",
            why="The number of people who approve is between 0 and 10.",
            mend="Choose a number in that range; production should have at least 1.",
        )
    check_calendar(policy)
    seen: set[str] = set()
    for rule in policy.rules:
        if not rule.name or rule.name in seen:
            raise BadRule(
                f"The policy of {policy.environment} has a rule without a name of its own: “{rule.name}”.",
                why="Findings are known by the rule's name.",
                mend="Give every rule another name.",
            )
        seen.add(rule.name)
        check_rule(rule)


def check_rule(rule: Rule) -> None:
    """Compile one rule; raise BadRule for bad syntax, unknown names, and what is too long or too deep."""
    text = rule.expression
    if len(text) > MAX_EXPRESSION:
        raise _bad(
            rule,
            f"It has {len(text)} characters, more than {MAX_EXPRESSION}.",
            "Split it into several rules.",
        )
    try:
        program = _compiler()(text)
    except ValueError as error:
        raise _syntax(rule, str(error)) from None
    if expressions.depth(text) > MAX_DEPTH:
        raise _bad(rule, f"Loops in it are nested more than {MAX_DEPTH} deep.", "Split it into several rules.")
    for name in program.functions():
        if name[0].isalpha() and name not in _FUNCTIONS:
            raise _bad(
                rule,
                f"It calls “{name}”, which does not exist here.",
                _suggest(name, _FUNCTIONS | expressions.MACROS | {"has"}, "functions"),
            )
    for name in sorted(set(program.variables()) - expressions.bound(text)):
        if name not in names():
            raise _bad(rule, f"It uses “{name}”, which no evidence gives.", _suggest(name, names(), "names"))


def build_context(evidence: Iterable[tuple[str, Any]], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what rules see: each kind's content under its names, and facts of the release under `release`.

    What is null or empty is left out, at any depth: a condition on all of nothing would be true, and
    missing evidence must never pass a gate.
    """
    context: dict[str, Any] = {}
    for kind, content in evidence:
        known = EVIDENCE_NAMES.get(kind, ())
        if known == (kind,):
            context[kind] = content
            continue
        for name in known:
            if isinstance(content, Mapping) and name in content:
                context[name] = content[name]
    # Facts about the release are always known, also that it was deployed nowhere yet.
    return {**_without_nothing(context), FACTS: dict(facts)}


def _without_nothing(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {key: _without_nothing(each) for key, each in value.items()}
        return {key: each for key, each in kept.items() if each is not None and each not in ([], {})}
    if isinstance(value, list | tuple):
        return [_without_nothing(each) for each in value]
    return value


def evaluate(policy: Policy, context: Mapping[str, Any], subject: str = "the release") -> tuple[Finding, ...]:
    """Apply every rule of `policy` to `context` (name → JSON); missing evidence is a failed finding."""
    return tuple(_apply(rule, context, subject) for rule in policy.rules)


def decide(findings: Sequence[Finding], approvals: int, needed: int) -> Outcome:
    """Return the outcome of a gate: all rules must hold, then people must have approved."""
    if not all(finding.passed for finding in findings):
        return Outcome.REFUSED
    return Outcome.ALLOWED if approvals >= needed else Outcome.WAITING


def _apply(rule: Rule, context: Mapping[str, Any], subject: str) -> Finding:
    text = rule.expression
    used = expressions.paths(text)
    values = {str(path): _shown(value) for path, value in _known(used, context)}

    def finding(passed: bool, why: str, mend: str) -> Finding:
        return Finding(rule.name, text, passed, why, values, "" if passed else mend)

    if _steps(text, context) > MAX_STEPS:
        return finding(False, "The evidence has too many entries for the loops of this rule.", _AFTER_CHANGE)
    try:
        check_rule(rule)
        result = _compiler()(text).execute(dict(context))
    except HoldtrueError as error:
        return finding(False, f"{error.what} {error.why}", error.mend)
    except (KeyError, RuntimeError, TypeError, ValueError, ArithmeticError, IndexError) as error:
        why, mend = _explain(error, used, context, subject)
        return finding(False, why, mend)
    if not isinstance(result, bool):
        return finding(False, f"The rule gives {_text(result)}, not true or false.", _AFTER_CHANGE)
    if not result:
        values.update(_culprits(text, context))
    told = "" if result else _failures(used, context)
    mend = _MEND_PLACE if any(path.parts[:1] == ("deployed_in",) for path in used) else _MEND_FALSE
    return finding(result, _story(text, values, context, passed=result) + told, mend)


def _explain(
    error: Exception, used: Sequence[expressions.Path], context: Mapping[str, Any], subject: str
) -> tuple[str, str]:
    """Say in plain words why a rule could not be computed, and what mends it."""
    for path in used:
        if path.root not in context:
            mend = _MEND_MISSING if path.root in _RECORDED else _MEND_FOREIGN.format(kind=path.root)
            return f"No {path.root} evidence exists for {subject}.", mend
        missing = _first_missing(path, context)
        if missing is not None:
            before, part, known = missing
            close = difflib.get_close_matches(part, known, n=1)
            hint = f" Did you mean “{close[0]}”?" if close else ""
            held = ", ".join(known) or "nothing"
            return f"{before} has no “{part}”; it has {held}.{hint}", _AFTER_CHANGE
    if isinstance(error, KeyError):
        return f"An entry of the evidence has no “{error.args[0]}”.", _AFTER_CHANGE
    if isinstance(error, TypeError):
        seen = ", ".join(f"{path} is {_text(value)}" for path, value in _known(used, context))
        return f"The rule compares values of different kinds: {seen}.", _AFTER_CHANGE
    return f"The rule cannot be computed: {str(error).splitlines()[0][:200]}", _AFTER_CHANGE


class _Missing:
    """Mark what a path does not lead to; None is a value that evidence may have."""


_MISSING: Final = _Missing()


def _value(path: expressions.Path, context: Mapping[str, Any]) -> Any:
    value: Any = context.get(path.root, _MISSING)
    for part in path.parts:
        value = _step(value, part)
    return value


def _known(used: Sequence[expressions.Path], context: Mapping[str, Any]) -> list[tuple[expressions.Path, Any]]:
    """Return the paths that lead to a value, with it."""
    found = [(path, _value(path, context)) for path in used]
    return [(path, value) for path, value in found if value is not _MISSING]


def _step(value: Any, part: str | int) -> Any:
    if isinstance(part, int):
        return value[part] if isinstance(value, list | tuple) and part < len(value) else _MISSING
    return value.get(part, _MISSING) if isinstance(value, Mapping) else _MISSING


def _first_missing(path: expressions.Path, context: Mapping[str, Any]) -> tuple[str, str, list[str]] | None:
    """Return where a path breaks off: what was reached, the part it lacks, the parts it has."""
    value: Any = context[path.root]
    reached = path.root
    for part in path.parts:
        following = _step(value, part)
        if following is _MISSING:
            known = sorted(str(key) for key in value) if isinstance(value, Mapping) else []
            return reached, str(part), known
        value, reached = following, f"{reached}.{part}"
    return None


def _steps(text: str, context: Mapping[str, Any]) -> int:
    """Return an upper estimate of how many steps the loops of a rule take."""
    longest = max([_longest(value) for value in context.values()], default=0) + len(text)
    return longest ** expressions.depth(text)


def _longest(value: Any) -> int:
    if isinstance(value, Mapping):
        return max([len(value), *(_longest(each) for each in value.values())])
    if isinstance(value, list | tuple):
        return max([len(value), *(_longest(each) for each in value)])
    return 0


def _culprits(text: str, context: Mapping[str, Any]) -> dict[str, Any]:
    """Return, for each `list.all(x, …)` of a failed rule, the entries for which it does not hold."""
    found: dict[str, Any] = {}
    for loop in expressions.loops(text):
        entries = _value(loop.over, context)
        if loop.macro != "all" or not isinstance(entries, list | tuple):
            continue
        program = _compiler()(loop.body)
        failing = [entry for entry in entries if _holds(program, {**context, loop.variable: entry}) is False]
        if failing:
            found[str(loop.over)] = {
                "entries": len(entries),
                "failing": len(failing),
                "first": failing[:_SHOWN],
            }
    return found


def _failures(used: Sequence[expressions.Path], context: Mapping[str, Any]) -> str:
    """Tell what failed in each piece of evidence that a rule read, from the nearest `failures` around what it read.

    Evidence may carry `failures`, a list of {"what", "why"}; `failed`, how many there are if only some are listed; and
    `failures_title`, the words that say of what.
    """
    told: dict[int, str] = {}
    for path in used:
        holder: Any = None
        value: Any = context.get(path.root)
        for part in (*path.parts, None):
            if isinstance(value, Mapping) and isinstance(value.get("failures"), list | tuple):
                holder = value
            value = None if part is None else _step(value, part)
        if holder is not None:
            told[id(holder)] = _listed(holder)
    return "".join(f". {each}" for each in told.values() if each)


def _listed(holder: Mapping[str, Any]) -> str:
    """Name the first failures and how many more there are."""
    entries = [each for each in holder["failures"] if isinstance(each, Mapping) and "what" in each]
    if not entries:
        return ""
    counted = holder.get("failed")
    count = max(len(entries), counted) if isinstance(counted, int) else len(entries)
    title = str(holder.get("failures_title") or f"{count} failed")[:200]
    shown = [f"{_text(each['what'])} ({_text(each['why'])})" if "why" in each else _text(each["what"])
             for each in entries[:_SHOWN]]  # fmt: skip
    more = count - len(shown)
    among = ", among them" if more else ""
    rest = f"; and {more} more" if more else ""
    return f"{title[:1].upper()}{title[1:]}{among}: {'; '.join(shown)}{rest}"


def _compiler() -> "Callable[[str], cel.Program]":
    """Return the compiler; imported late, for its package loads a terminal toolkit along with it."""
    import cel

    return cel.compile


def _holds(program: "cel.Program", context: dict[str, Any]) -> bool | None:
    try:
        return bool(program.execute(context))
    except (KeyError, RuntimeError, TypeError, ValueError, ArithmeticError, IndexError):
        return None


def _story(text: str, values: Mapping[str, Any], context: Mapping[str, Any], *, passed: bool) -> str:
    parts: list[str] = []
    for name, value in values.items():
        if isinstance(value, Mapping) and "failing" in value:
            first = value["first"][0]
            parts.append(f"{value['failing']} of {value['entries']} in {name} fail, first {_text(first)}")
        elif isinstance(value, Mapping) and "entries" in value:
            parts.append(f"{name} has {value['entries']} entries" if value["entries"] else f"{name} is empty")
        else:
            parts.append(f"{name} is {_text(value)}")
    missing = sorted({path.root for path in expressions.paths(text)} - set(context))
    parts += [f"{name} is missing" for name in missing]
    seen = "; ".join(parts) or "The rule uses no evidence"
    return f"{seen}." if passed else f"{seen}. The rule asks for: {text}"


def _shown(value: Any) -> Any:
    """Return a value small enough to stand in a finding."""
    if isinstance(value, list | tuple):
        return {"entries": len(value)}
    if isinstance(value, Mapping):
        return {"entries": len(value)} if len(value) > 12 or _longest(value) > 12 else dict(value)
    return value


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(each)}" for key, each in list(value.items())[:6])
    if value is None:
        return "empty"
    # Evidence may quote what a model said: signs that steer a terminal are not passed on.
    whole = str(value)
    told = "".join(sign if sign.isprintable() else " " for sign in whole[:200])
    return told if len(whole) <= 200 else f"{told}…"


def _syntax(rule: Rule, message: str) -> BadRule:
    """Show where a rule's text breaks."""
    found = re.search(r"<input>:(\d+):(\d+): (?:Syntax error: )?([^\n]*)", message)
    if found is None:
        return _bad(rule, "It is not a CEL expression.", "Correct the expression.")
    line, column, reason = int(found[1]), int(found[2]), found[3]
    lines = rule.expression.splitlines() or [""]
    shown = lines[min(line, len(lines)) - 1]
    error = _bad(
        rule,
        f"At line {line}, column {column}: {reason[:120]}\n  {shown}\n  {' ' * (column - 1)}^",
        "Correct the expression; docs of the language are at https://cel.dev.",
    )
    error.facts.update({"line": line, "column": column})
    return error


def _bad(rule: Rule, why: str, mend: str) -> BadRule:
    return BadRule(f"The rule “{rule.name}” cannot be used.", why=why, mend=mend, facts={"rule": rule.name})


def _suggest(name: str, known: Iterable[str], what: str) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    listed = ", ".join(sorted(known))
    return f"Did you mean “{close[0]}”?" if close else f"The {what} that exist: {listed}."
