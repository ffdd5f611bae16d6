"""LLM applications: prompts, retrieval, gateway, guardrails, and what answers with them together."""

from typing import TYPE_CHECKING

from holdtrue.core.lazy import attach

if TYPE_CHECKING:
    from holdtrue.llm.publishing import gateway_config

__all__ = ["gateway_config"]

__getattr__ = attach(__name__, {"gateway_config": "publishing"})
