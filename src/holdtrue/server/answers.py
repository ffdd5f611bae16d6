"""Answers: JSON, pages and errors, each with the headers that keep a browser on this server."""

import html
import logging
from collections.abc import Mapping
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

import orjson
from starlette.responses import FileResponse, Response

from holdtrue.core.errors import Corrupt, HoldtrueError, MissingExtra, StorageFull, Unavailable
from holdtrue.door import Dialect, Download, Reply
from holdtrue.server.model import NotServed, TooMany

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'; require-trusted-types-for 'script'"
)
SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_SECURITY_HEADERS = tuple((name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items())
_RETRY_AFTER = {Unavailable: "1", TooMany: "60", StorageFull: "30"}
_LOOK_UP = "Look for the request id in the server's log, then run `holdtrue doctor`."
_log = logging.getLogger("holdtrue.server")


def json_answer(value: Any, status: int = 200) -> Response:
    """Answer with JSON; dataclasses, enums, moments and numpy values are written as such."""
    body = orjson.dumps(value, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, media_type="application/json")


def reply_answer(reply: Reply) -> Response:
    """Answer as a handler says in full."""
    answer = Response(reply.body, reply.status, media_type=reply.media_type)
    for name, value in reply.headers:
        answer.headers.append(name, value)
    return answer


def download_answer(download: Download) -> Response:
    """Answer with a stored file's bytes, which a browser saves and never shows, whatever they are."""
    answer = FileResponse(download.file, media_type="application/octet-stream", filename=download.name)
    answer.headers["content-security-policy"] = "sandbox; default-src 'none'"
    return answer


def html_answer(text: str, status: int = 200) -> Response:
    """Answer with a page."""
    return Response(text, status, media_type="text/html")


def public_error(error: Exception, request_id: str, home: Path) -> HoldtrueError:
    """Return what of an error may leave the server: nothing internal, and never a path of the data folder.

    What happened inside is logged under the request's id, by which an operator finds it.
    """
    if isinstance(error, HoldtrueError) and (
        error.status < 500 or isinstance(error, Unavailable | StorageFull | MissingExtra | NotServed)
    ):
        return _scrubbed(error, str(home))
    if isinstance(error, Corrupt):
        # It names the damaged thing as the data folder knows it, and what mends it: whoever meets it has to know both.
        _log.error("request %s failed: %s", request_id, error.what)
        return _scrubbed(error, str(home))
    _log.error("request %s failed", request_id, exc_info=error)
    if isinstance(error, HoldtrueError):
        # The class and its sentence are documented; the instance may name a file.
        return _same_kind(error, str(type(error).__doc__).partition("\n")[0], mend=_LOOK_UP)
    return HoldtrueError("Something failed inside the server.", mend=_LOOK_UP)


def error_answer(error: HoldtrueError, request_id: str, dialect: Dialect | None = None) -> Response:
    """Answer with an error in the one shape all doors use, with the request's id; or as a protocol's clients
    read it.
    """
    if dialect is not None:
        status, content = dialect.error(error)
        answer = json_answer(content, status)
    else:
        content = error.to_json()
        content["error"]["request_id"] = request_id
        answer = json_answer(content, error.status)
    for kind, seconds in _RETRY_AFTER.items():
        if isinstance(error, kind):
            answer.headers["retry-after"] = seconds
    if error.status == 401:
        answer.headers["www-authenticate"] = 'Bearer realm="holdtrue"'
    return answer


def plain_page(error: HoldtrueError, request_id: str) -> str:
    """Return the plainest page that tells an error."""
    parts = [error.what, error.why, error.mend, f"Request {request_id}"]
    body = "".join(f"<p>{html.escape(part)}</p>" for part in parts if part)
    return f'<!doctype html><html lang="en"><title>Holdtrue</title>{body}</html>'


def finish(answer: Response, request_id: str, *, static: bool, secure: bool) -> Response:
    """Add the headers that every answer has."""
    # On the raw list: a lookup for each header took a quarter of a small request's time.
    own = {name for name, _ in answer.raw_headers}
    answer.raw_headers += [each for each in _SECURITY_HEADERS if each[0] not in own]
    answer.raw_headers.append((b"x-request-id", request_id.encode()))
    answer.raw_headers.append((b"cache-control", b"private, max-age=300" if static else b"no-store"))
    if secure:
        answer.raw_headers.append((b"strict-transport-security", b"max-age=31536000"))
    return answer


def _plain(value: Any) -> Any:
    if isinstance(value, frozenset | set):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, PurePath):
        # A path of this machine in an answer is a mistake of the handler, never a feature.
        raise TypeError("a path is not an answer")
    if isinstance(value, bytes):
        return value.decode()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _scrubbed(error: HoldtrueError, home: str) -> HoldtrueError:
    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace(home, "<home>")
        if isinstance(value, Mapping):
            return {key: clean(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [clean(item) for item in value]
        return value

    return _same_kind(error, clean(error.what), why=clean(error.why), mend=clean(error.mend), facts=clean(error.facts))


def _same_kind(
    error: HoldtrueError, what: str, *, why: str = "", mend: str = "", facts: Mapping[str, Any] | None = None
) -> HoldtrueError:
    """Return an error of the same class with other words; subclasses may be built in ways of their own."""
    shown = type(error).__new__(type(error))
    HoldtrueError.__init__(shown, what, why=why, mend=mend, facts=facts)
    return shown
