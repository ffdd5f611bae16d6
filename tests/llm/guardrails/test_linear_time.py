"""Hostile texts must not cost more than others: nothing here may take quadratic time, let alone worse.

No time is measured. The long suite reads, with each detector, texts of 200,000 signs made of what patterns begin with:
in linear time each takes a second or less, in quadratic time minutes, which its limit does not give it.
"""

import pytest

from tests.llm.guardrails.support import guardrail

SEEDS = (
    "a", "1", " ", "-", "@", "a@", "a.", "1 ", "1.", "(1", "+1 ", "00", "://", "://a:", "a:b@", "eyJ", "eyJa.",
    "eyJaaaaaaaa.eyJaaaaaaaa.", "sk-a", "password=", "password is ", "pwpw:", "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\\n", "bearer a", "xoxb-a", "![a](http://a", "<img ", "<|", "[INST]", "“a", "'a' ",
    "ignore previous ", "reveal your ", "i g n o r e ", "a b ", "%41", "&#", "\\u0041", "DE12 1234 ", "::", "f:",
    "\nsystem: ", "\n ", "http://a?a=", "send data link ", "not tell user ", "ＡＢ", "a\u200b", "\U000e0041", "aа",
    "1a",
    "aaa", "erongi ", "A/", "4111 1111 1111 111", "X1234567", "aaaaaa1", "300-", "[1]", "; and ", "the context ", "! A",
)  # fmt: skip
OPTIONS = {"time_ms": 60_000, "max_chars": 1_000_000}


KINDS = ("secrets", "personal_data", "injection", "grounding")
CONTEXT = ("A passage, of which nothing is said. It has two sentences.",)


def read(kind: str, seed: str, length: int) -> None:
    guardrails = guardrail({"kind": kind, "on": "output", "options": OPTIONS})
    verdict = guardrails.check_output((seed * (length // len(seed) + 1))[:length], CONTEXT)
    assert verdict.failed == ()


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_texts_are_read_to_their_end(kind: str) -> None:
    for seed in SEEDS:
        read(kind, seed, 3_000)


@pytest.mark.long
@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_long_hostile_texts_are_read_in_linear_time(kind: str, seed: str) -> None:
    read(kind, seed, 200_000)
