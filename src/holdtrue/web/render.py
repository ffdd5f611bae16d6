"""Templates: one environment, everything escaped, unknown names an error."""

from datetime import datetime
from functools import lru_cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup, escape

from holdtrue.web import charts, texts, urls

STATE_TONES = {
    "good": (
        "allowed",
        "promoted",
        "resolved",
        "closed",
        "passed",
        "live",
        "full",
        "ready",
        "accepted",
        "done",
        "ok",
        "finished",
    ),
    "bad": (
        "refused",
        "rolled_back",
        "open",
        "failed",
        "blocked",
        "dead",
        "revoked",
        "error",
        "switched off",
        "killed",
    ),
    "busy": ("running", "canary", "waiting_approval", "waiting", "quarantined", "pending", "mended", "leased"),
}


@lru_cache(maxsize=1)
def environment() -> jinja2.Environment:
    """Return the environment of all templates."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("holdtrue.web", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(
        ratio=texts.ratio,
        number=texts.number,
        signed=texts.signed,
        count=texts.count,
        percent=texts.percent,
        day=texts.day,
        month=texts.month,
        short=texts.short,
        plain=texts.plain,
        elapsed=texts.elapsed,
        took=texts.took,
        hours=texts.hours,
        money=texts.money,
        metric=texts.metric,
        month_name=texts.month_name,
        moment=moment,
        words=words,
        tone=tone,
    )
    # Jinja types this dictionary by its own first members.
    shared: dict[str, Any] = made.globals
    shared.update(urls=urls, charts=charts, span=texts.span, days=texts.days, plural=texts.plural)
    return made


def render(template: str, **view: Any) -> str:
    """Return the page that `template` makes of `view`."""
    return environment().get_template(template).render(view)


@lru_cache(maxsize=16)
def asset(name: str) -> str:
    """Return the text of one of this room's own static files."""
    return resources.files("holdtrue.web").joinpath("static", name).read_text("utf-8")


def moment(value: datetime | None) -> Markup:
    """Write a moment as a `time` element that machines read too."""
    if value is None:
        return escape(texts.MISSING)
    return Markup('<time datetime="{}">{}</time>').format(value.isoformat(timespec="seconds"), texts.clock_time(value))


def words(state: str) -> str:
    """Write a state's name as words: “rolled_back” → “rolled back”."""
    return state.replace("_", " ")


def tone(state: str) -> str:
    """Return the tone in which a state is shown: good, bad, busy or plain."""
    return next((name for name, states in STATE_TONES.items() if state in states), "plain")
