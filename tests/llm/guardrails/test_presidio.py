"""Presidio as an engine: the real library, over a blank pipeline, and never the network."""

import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from holdtrue.llm.guardrails import Guardrails
from holdtrue.llm.guardrails.rules import PRESIDIO
from holdtrue.llm.guardrails.test_sets import expand
from tests.llm.guardrails.support import guardrail

_WATCH: dict[str, Any] = {"on": False, "seen": []}


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _WATCH["on"] and event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"):
        _WATCH["seen"].append((event, str(arguments)))


@pytest.fixture(scope="module")
def presidio() -> Iterator[Guardrails]:
    sys.addaudithook(_watch)
    level = logging.getLogger("presidio-analyzer").level
    _WATCH["on"] = True
    guard = {"kind": "personal_data", "action": "mask", "options": {"engine": "presidio", "time_ms": 60_000}}
    yield guardrail(guard)
    _WATCH["on"] = False
    logging.getLogger("presidio-analyzer").setLevel(level)


def test_values_are_found_under_the_same_names_and_nothing_asks_the_network(presidio: Guardrails) -> None:
    text, spans = expand(
        "Mail ⟦email=anna@firma.example⟧ or ⟦email=bob@shop.com⟧, phone ⟦phone=+1 212 555 0142⟧, IBAN ⟦iban⟧, "
        "card ⟦credit_card⟧, from ⟦ip_address=203.0.113.7⟧.",
        "presidio",
    )
    verdict = presidio.check_input(text)
    assert verdict.failed == ()
    found = {(each.start, each.end, each.label) for each in verdict.findings}
    assert {(each.start, each.end, each.label) for each in spans} <= found
    for each in spans:
        assert text[each.start : each.end] not in verdict.text
    assert _WATCH["seen"] == []


def test_names_of_persons_are_not_found_as_there_is_no_model(presidio: Guardrails) -> None:
    assert presidio.check_input("Angela Merkel met Barack Obama in Berlin.").action == "pass"


def test_masking_with_presidio_twice_is_masking_once(presidio: Guardrails) -> None:
    once = presidio.check_input("write to anna@firma.example or call +1 212 555 0142")
    assert presidio.check_input(once.text).text is once.text


def test_each_name_of_presidio_has_one_here() -> None:
    assert len(set(PRESIDIO)) == len(PRESIDIO)
