"""What the tests of guardrails share: texts with generated values in them, and guardrails to try."""

import re
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from holdtrue.llm.guardrails import Finding, Guardrails, compile_guardrails
from holdtrue.llm.guardrails.rules import MASKS, PERSONAL, SECRETS
from holdtrue.llm.guardrails.samples import FORMS
from holdtrue.llm.guardrails.test_sets import expand

MASK = "(?:" + "|".join(re.escape(mask) for mask in sorted(MASKS)) + ")+"

# A sentence for each kind of value, in which it should be found.
SENTENCES = (
    "the key ⟦aws_access_key⟧ leaks",
    "aws_secret_access_key = ⟦aws_secret_key⟧",
    "token ⟦github_token⟧ is old",
    "⟦gitlab_token⟧",
    "xo ⟦slack_token⟧,",
    "⟦stripe_key⟧ charged",
    "⟦anthropic_key⟧ and ⟦openai_key⟧",
    "⟦holdtrue_token⟧ expires",
    "postgres://u:⟦connection_password⟧@db/x",
    "password: ⟦generic_secret:human_password⟧ ok",
    "api_key=⟦generic_secret⟧",
    "Bearer ⟦jwt⟧",
    "⟦private_key⟧ end",
    "write to ⟦email=anna.b@firma.example⟧ now",
    "IBAN ⟦iban:iban_spaced⟧.",
    "card ⟦credit_card:visa_spaced⟧ declined",
    "call +⟦phone=4930901820123⟧",
    "from ⟦ip_address=203.0.113.7⟧",
    "SSN ⟦us_ssn⟧",
    "cpf ⟦br_cpf⟧",
    "codice ⟦it_fiscal_code⟧",
)
FILLERS = st.text(st.sampled_from("abc XYZ 012 .,:;-_/@[](){}\n\t'\"=+é€"), max_size=40)


@st.composite
def texts(draw: st.DrawFn, longest: int = 8) -> str:
    """Draw a text of fillers and sentences with values, glued without spaces now and then."""
    parts = draw(st.lists(st.one_of(FILLERS, st.sampled_from(SENTENCES)), max_size=longest))
    seed = draw(st.integers(0, 10_000))
    glue = draw(st.sampled_from([" ", " ", "", "\n"]))
    return expand(glue.join(parts), str(seed))[0]


def guardrail(*guards: dict[str, Any], timer: Any = None) -> Guardrails:
    """Compile a guardrail of some guards, with the default actions unless they say otherwise."""
    content = {"name": "tried", "guards": list(guards)}
    return compile_guardrails(content) if timer is None else compile_guardrails(content, timer=timer, spent=timer)


def masking() -> Guardrails:
    """Return a guardrail that masks secrets and personal data everywhere."""
    slow = {"time_ms": 60_000}
    return guardrail(
        {"kind": "secrets", "action": "mask", "options": slow},
        {"kind": "personal_data", "action": "mask", "options": slow},
    )


def shows_only_masks(text: str, shown: str, findings: Sequence[Finding]) -> bool:
    """Tell whether `shown` is `text` with each stretch that findings cover replaced by masks, and nothing else."""
    covered = [False] * len(text)
    for finding in findings:
        covered[finding.start : finding.end] = [True] * (finding.end - finding.start)
    pattern = ""
    for at, sign in enumerate(text):
        if not covered[at]:
            pattern += re.escape(sign)
        elif at == 0 or not covered[at - 1]:
            pattern += MASK
    return re.fullmatch(pattern, shown) is not None


def every_form() -> tuple[str, ...]:
    """Return the names of the forms that stand for a secret or for personal data under their own label."""
    return tuple(name for name in FORMS if name in SECRETS or name in PERSONAL)
