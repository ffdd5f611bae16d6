"""Test doubles that are part of the product: real servers with faults on demand."""

from typing import TYPE_CHECKING

from holdtrue.core.lazy import attach

if TYPE_CHECKING:
    from holdtrue.testing.faults import Fault
    from holdtrue.testing.provider import FakeProvider, Received

__all__ = ["FakeProvider", "Fault", "Received"]

__getattr__ = attach(__name__, {"FakeProvider": "provider", "Fault": "faults", "Received": "provider"})
