"""Personal data through the whole house: who used it, whether that was allowed, and how it is erased."""

from typing import TYPE_CHECKING

from holdtrue.core.lazy import attach

if TYPE_CHECKING:
    from holdtrue.delivery.privacy.erasing import erase
    from holdtrue.delivery.privacy.model import Erase, ErasureRunning, Progress, Trained, Used
    from holdtrue.delivery.privacy.tracing import flow, used

__all__ = ["Erase", "ErasureRunning", "Progress", "Trained", "Used", "erase", "flow", "used"]

__getattr__ = attach(
    __name__,
    {
        "Erase": "model",
        "ErasureRunning": "model",
        "Progress": "model",
        "Trained": "model",
        "Used": "model",
        "erase": "erasing",
        "flow": "tracing",
        "used": "tracing",
    },
)
