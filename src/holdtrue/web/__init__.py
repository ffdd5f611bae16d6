"""The web: server-rendered pages, and the report of a replayed year.

Names are imported on first use: the report needs no database.
"""

from typing import TYPE_CHECKING

from holdtrue.core.lazy import attach

if TYPE_CHECKING:
    from holdtrue.web.pages import error_page, routes
    from holdtrue.web.report import render_report

__all__ = ["error_page", "render_report", "routes"]

__getattr__ = attach(__name__, {"error_page": "pages", "render_report": "report", "routes": "pages"})
