"""The demo's live display: what was decided so far, and how far the year has come."""

from datetime import datetime
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from holdtrue.cli.context import wide_console

_COLOURS = {
    "data": "cyan",
    "people": "magenta",
    "alarm": "red",
    "model": "blue",
    "decision": "yellow",
    "rollout": "green",
}


class Screen:
    """Print a line for each thing that happens, above one bar for the year; plain lines without a terminal."""

    def __init__(self, start: datetime, end: datetime) -> None:
        self._console = wide_console()
        self._start, self._end = start, end
        self._progress = Progress(
            TextColumn("[bold]{task.fields[day]}"),
            BarColumn(bar_width=36),
            TextColumn("{task.fields[predictions]:,} predictions over HTTP"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task(
            "", total=(end - start).days, day=start.strftime("%d %b %Y"), predictions=0
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, moment: datetime, kind: str, text: str) -> None:
        """Print one line."""
        colour = _COLOURS.get(kind, "white")
        self._progress.console.print(f"[dim]{moment:%d %b}[/]  [{colour}]{kind:9}[/] {text}")

    def at(self, moment: datetime, predictions: int) -> None:
        """Move the bar to a day."""
        self._progress.update(
            self._task,
            completed=(moment - self._start).days,
            day=moment.strftime("%d %b %Y"),
            predictions=predictions,
        )

    def finish(self) -> None:
        """Take the bar away."""
        self._progress.stop()
