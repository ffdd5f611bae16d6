"""LLM applications: prompts, retrieval, gateway, guardrails, and what answers with them together.

Names are imported on first use: the data plane needs the gateway, and no SQL.
"""

from typing import TYPE_CHECKING

from holdtrue.core.lazy import attach

if TYPE_CHECKING:
    from holdtrue.llm.service import gateway_config

__all__ = ["gateway_config"]

__getattr__ = attach(__name__, {"gateway_config": "service"})
