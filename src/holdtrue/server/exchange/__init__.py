"""Exchange with MLflow: bring over what a server, a folder or a database of one keeps, and send it back."""

from holdtrue.server.exchange.bringing import bring
from holdtrue.server.exchange.model import Report

__all__ = ["Report", "bring"]
