"""LLM applications: prompts, retrieval, gateway, guardrails, and what answers with them together.

Names are imported on first use: the data plane needs the gateway, and no SQL.
"""

from typing import TYPE_CHECKING

from holdtrue.core.lazy import attach

if TYPE_CHECKING:
    from holdtrue.llm.declaring import declare
    from holdtrue.llm.fetching import FetchedPrompt, prompt
    from holdtrue.llm.publishing import gateway_config

__all__ = ["FetchedPrompt", "declare", "gateway_config", "prompt"]

__getattr__ = attach(
    __name__,
    {"FetchedPrompt": "fetching", "declare": "declaring", "gateway_config": "publishing", "prompt": "fetching"},
)
