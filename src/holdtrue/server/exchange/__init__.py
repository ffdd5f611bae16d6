"""Exchange with MLflow: bring over what a server, a folder or a database of one keeps, and send it back."""

from holdtrue.server.exchange.bringing import bring
from holdtrue.server.exchange.model import Report
from holdtrue.server.exchange.sending import send

__all__ = ["Report", "bring", "send"]
