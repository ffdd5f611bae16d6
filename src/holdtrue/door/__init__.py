"""The door: how a room declares its routes, and the call a handler gets."""

from holdtrue.door.routes import Call, Route, Routes

__all__ = ["Call", "Route", "Routes"]
