"""Commands that search traces and show one."""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from holdtrue.cli.context import AsJson, Home, ProjectName, base, lines, listing, open_client, project_name, show
from holdtrue.core.errors import ConfigurationError
from holdtrue.traces.model import StoredSpan
from holdtrue.traces.rules import nested

group = typer.Typer(help="Search traces, the newest first, or show one.", invoke_without_command=True)


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    group.callback()(traces)
    group.command("show")(traces_show)
    app.add_typer(group, name="traces")


def traces(
    context: typer.Context,
    text: Annotated[str | None, typer.Option("--text", "-t", help="Words that the messages have.")] = None,
    service: Annotated[str | None, typer.Option("--service", help="Service that has a span.")] = None,
    release: Annotated[str | None, typer.Option("--release", help="Release that has a span.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of a span.")] = None,
    status: Annotated[str | None, typer.Option("--status", help="Status of a span: ok, error, unset.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Model that was asked.")] = None,
    user: Annotated[str | None, typer.Option("--user", help="User.")] = None,
    session: Annotated[str | None, typer.Option("--session", help="Session or conversation.")] = None,
    since: Annotated[str | None, typer.Option("--since", help="From this moment on (ISO 8601).")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Before this moment (ISO 8601).")] = None,
    min_duration: Annotated[float | None, typer.Option("--min-duration", help="Milliseconds a span took.")] = None,
    attribute: Annotated[list[str] | None, typer.Option("--attribute", "-a", help="name=value; repeatable.")] = None,
    feedback: Annotated[str | None, typer.Option("--feedback", help="Name of feedback that was given.")] = None,
    least: Annotated[float | None, typer.Option("--least", help="Least value of that feedback.")] = None,
    most: Annotated[float | None, typer.Option("--most", help="Greatest value of that feedback.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=500, help="How many.")] = 20,
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Search traces, the newest first, or show one."""
    if context.invoked_subcommand is not None:
        return
    query = {
        "text": text,
        "service": service,
        "release": release,
        "name": name,
        "status": status,
        "model": model,
        "user": user,
        "session": session,
        "since": since,
        "until": until,
        "min_duration": min_duration,
        "attributes": _attributes(attribute or []),
        "feedback": feedback,
        "feedback_least": least,
        "feedback_most": most,
        "limit": limit,
    }
    with open_client(home) as client:
        found = client.get(f"{base(project_name(client, project))}/traces", **query)["items"]
    columns = {
        "trace": lambda each: each["trace_id"],
        "started": lambda each: each["started_at"],
        "name": lambda each: each["name"],
        "service": lambda each: each["service"],
        "status": lambda each: each["status"],
        "took": lambda each: _took(each["duration"]),
        "spans": lambda each: each["span_count"],
        "question": lambda each: (each["input"] or "")[:60].replace("\n", " ") or None,
    }
    listing(found, as_json, columns, empty="No trace matches. How to send spans: docs/guide/traces.md")


def traces_show(
    trace: Annotated[str, typer.Argument(help="Trace id: 32 hexadecimal digits.")],
    home: Home = None,
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Show one trace: its spans as a tree, the conversation, feedback."""
    with open_client(home) as client:
        # The trace names its project where the token does not.
        found = client.get(f"/api/traces/{trace}", project=project)
    show(found, as_json, lambda value: lines(told(value)))


def told(trace: Mapping[str, Any]) -> list[str]:
    """Return the lines of a trace for a terminal."""
    return [*_head(trace), *_tree(trace), *_talk(trace), *_opinions(trace)]


def _head(trace: Mapping[str, Any]) -> Iterator[str]:
    yield f"trace     {trace['trace_id']}, {trace['status']}, started {trace['started_at'][:19].replace('T', ' ')}"
    yield f"service   {', '.join(trace['services'])}" + (f", release {trace['release']}" if trace["release"] else "")
    tokens = f"{trace['input_tokens'] or 0:,} in, {trace['output_tokens'] or 0:,} out"
    cost = "" if trace["cost"] is None else f", cost {trace['cost']:.6g}"
    yield f"took      {_took(trace['duration'])}, {trace['span_count']} spans; tokens {tokens}{cost}"


def _tree(trace: Mapping[str, Any]) -> Iterator[str]:
    spans = {span["span_id"]: span for span in trace["spans"]}
    order = nested([_bare(span) for span in trace["spans"]])
    for bare, depth in order:
        span = spans[bare.span_id]
        error = f"  error {span['message']}".rstrip() if span["status"] == "error" else ""
        yield f"  {'  ' * depth}{span['name']}  {_took(span['duration'])}{error}"


def _bare(span: Mapping[str, Any]) -> StoredSpan:
    """Return what the tree needs of a span."""
    names = ("parent_id", "release", "prompt", "operation", "provider", "model", "input_tokens", "output_tokens")
    more = ("cost", "user", "session", "prediction_id", "input", "output")
    return StoredSpan(
        trace_id=span["trace_id"],
        span_id=span["span_id"],
        service=span["service"],
        name=span["name"],
        kind=span["kind"],
        start=span["start"],
        end=span["end"],
        status=span["status"],
        message=span["message"],
        scope=span["scope"],
        clamped=span["clamped"],
        redacted=span["redacted"],
        dropped=span["dropped"],
        **{name: span[name] for name in (*names, *more)},
    )


def _talk(trace: Mapping[str, Any]) -> Iterator[str]:
    """Yield the messages of the first span that has some."""
    for span in trace["spans"]:
        messages = [*span["messages"]["input"], *span["messages"]["output"]]
        if messages:
            yield f"messages of {span['name']}"
            for message in messages:
                yield f"  {message['role'] or 'text'}: {message['text'] or message['tool_answer']}"
                for call in message["tool_calls"]:
                    yield f"    calls {call['name']} {call['arguments']}"
            return


def _opinions(trace: Mapping[str, Any]) -> Iterator[str]:
    for each in trace["feedback"]:
        by = f", {each['user']}" if each["user"] else ""
        yield f"feedback  {each['name']}: {each['value']}{by}{': ' + each['comment'] if each['comment'] else ''}"


def _took(microseconds: int) -> str:
    return f"{microseconds / 1000:,.1f} ms" if microseconds < 1_000_000 else f"{microseconds / 1_000_000:,.2f} s"


def _attributes(given: list[str]) -> str | None:
    if not given:
        return None
    pairs = [each.partition("=") for each in given]
    for (name, mark, _), each in zip(pairs, given, strict=True):
        if not mark or not name:
            raise ConfigurationError(
                f"{each[:60]!r} is not name=value.", mend="Example: -a gen_ai.request.model=gpt-4o"
            )
    return json.dumps({name: value for name, _, value in pairs})
