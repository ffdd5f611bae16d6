"""Guardrails: what may go in and come out, measured."""

from typing import TYPE_CHECKING

from holdtrue.core.lazy import attach

if TYPE_CHECKING:
    from holdtrue.llm.guardrails.measuring import measure
    from holdtrue.llm.guardrails.model import (
        BadGuardrail,
        CannotStream,
        Expected,
        Failure,
        Finding,
        Guard,
        GuardCase,
        GuardrailSpec,
        Verdict,
    )
    from holdtrue.llm.guardrails.rules import read_spec
    from holdtrue.llm.guardrails.service import Guardrails, compile_guardrails
    from holdtrue.llm.guardrails.test_sets import cases_digest, load_cases
    from holdtrue.llm.guardrails.window import OutputWindow

__all__ = [
    "BadGuardrail",
    "CannotStream",
    "Expected",
    "Failure",
    "Finding",
    "Guard",
    "GuardCase",
    "GuardrailSpec",
    "Guardrails",
    "OutputWindow",
    "Verdict",
    "cases_digest",
    "compile_guardrails",
    "load_cases",
    "measure",
    "read_spec",
]

__getattr__ = attach(
    __name__,
    {
        "BadGuardrail": "model",
        "CannotStream": "model",
        "Expected": "model",
        "Failure": "model",
        "Finding": "model",
        "Guard": "model",
        "GuardCase": "model",
        "GuardrailSpec": "model",
        "Guardrails": "service",
        "OutputWindow": "window",
        "Verdict": "model",
        "cases_digest": "test_sets",
        "compile_guardrails": "service",
        "load_cases": "test_sets",
        "measure": "measuring",
        "read_spec": "rules",
    },
)
