"""The door: how a room declares its routes, and the call a handler gets."""

from holdtrue.door.routes import Call, Dialect, Download, Reply, Route, Routes

__all__ = ["Call", "Dialect", "Download", "Reply", "Route", "Routes"]
