"""The second story of the demo: an assistant over the documentation, on the rails of the first.

What people do is told here; what comes of it is computed: evaluations on the written test set, the gate's decisions,
the canary's judgement of what users asked and said.
"""

import contextlib
import os
import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
from rich.table import Table

from holdtrue.cli.context import wide_console
from holdtrue.cli.demo.screen import Screen
from holdtrue.cli.why import explained
from holdtrue.core.clock import SystemClock
from holdtrue.core.codec import dump
from holdtrue.core.errors import Unavailable
from holdtrue.evaluation import Case, load_test_set
from holdtrue.server.asking import completer
from holdtrue.server.client import Client
from holdtrue.storage import ActionCache, BlobStore, FileClock

PROJECT: Final = "docs-assistant"
SERVICE: Final = "assistant"
BASE: Final = f"/api/projects/{PROJECT}"
TOPIC: Final = "rollouts"
_AN_HOUR: Final = 30
_HOURS: Final = 18
_ABOUT_TOPIC: Final = 0.75


@dataclass(frozen=True, slots=True)
class Staff:
    """Hold a client each for who writes the assistant, who reviews it, who operates it; and one for its users."""

    ada: Client
    grace: Client
    otto: Client
    users: httpx.Client


@dataclass(slots=True)
class Story:
    """Hold what the story needs on its way, and what the ending will tell."""

    staff: Staff
    clock: FileClock
    screen: Screen
    home: Path
    files: Path
    releases: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    asked: int = 0
    liked: int = 0
    rollout: dict[str, Any] | None = None
    answer: str = ""
    why: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def now(self) -> datetime:
        """Return the story's present moment."""
        return self.clock.now()

    def say(self, kind: str, text: str) -> None:
        """Print one line."""
        self.screen.say(self.now, kind, text)


def embed(home: Path, files: Path) -> None:
    """Let Ada's machine embed pages and questions in what time the year leaves it; her runs find them cached."""
    from holdtrue.pipelines import Pipeline
    from holdtrue.project import load_project
    from holdtrue.project.assembling import make_index
    from holdtrue.project.questions import knowing

    # Of this thread, and of those that it starts.
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    project = load_project(files / "docs_assistant.py")
    pipeline = Pipeline(BlobStore(home / "blobs"), ActionCache(home / "actions"), SystemClock())
    built = make_index(project, pipeline, project.applications[SERVICE], None)
    knowing(pipeline, built.content, load_test_set(files / "questions.jsonl"))


def tell(owner: Client, clock: FileClock, screen: Screen, home: Path, files: Path) -> Story:
    """Tell the story against the running processes; return what came of it."""
    owner.put("/api/gateway/providers/extractive", {"kind": "extractive"})
    with _staff(owner) as staff:
        story = Story(staff, clock, screen, home, files)
        first = _make(story, "docs_assistant.py", "an assistant over the documentation")
        _approve_and_promote(story, first)
        _until_live(story, first)
        _make(story, "careless.py", "a prompt that always answers")
        moved = _make(story, "moved.py", "an index after a page was moved")
        _approve_and_promote(story, moved)
        _canary(story)
        _ask(story, [_question(story)], random.Random(3))
        story.rollout = _rollout(story)
        story.why = owner.get(f"{BASE}/why/{story.answer}")
    return story


def print_summary(story: Story, folder: Path) -> None:
    """Print what became of each release of the assistant, and one answer explained."""
    console = wide_console()
    table = Table(title="The assistant: one release after the other, on its test set", title_justify="left", box=None)
    for name in ("release", "what", "passes", "declines", "finds", "decision"):
        table.add_column(name, no_wrap=name != "what")
    for made in story.releases:
        answers, found = made["evidence"]["answers"], made["evidence"]["retrieval"]["recall"]
        rate, declined = answers["pass_rate"], answers["unanswerable"]["declined"]
        decision = made["decision"]["outcome"].replace("waiting_approval", "approved")
        if story.rollout is not None and story.rollout["challenger"] == made["release"]:
            decision = f"{decision}, then {story.rollout['state'].replace('_', ' ')}"
        table.add_row(
            made["release"],
            made["what"],
            f"{rate['mean']:.0%} ({rate['lower']:.0%}–{rate['upper']:.0%})",
            f"{declined['mean']:.0%}",
            f"{found['value']:.0%}",
            decision,
        )
    console.print(table)
    console.print(f"\nUsers asked {story.asked} questions over HTTP and found {story.liked} answers helpful.")
    console.print(f"\nWhy did the assistant answer {story.answer} so?", style="bold")
    for line in explained(story.why):
        console.print(f"  {line}", soft_wrap=True, markup=False)
    console.print(f"\nTraces:       holdtrue traces --project {PROJECT} --home {folder / 'home'}", soft_wrap=True)


@contextlib.contextmanager
def _staff(owner: Client) -> Generator[Staff]:
    with contextlib.ExitStack() as stack:

        def token(name: str, *roles: str) -> str:
            return str(owner.post("/api/tokens", {"name": name, "roles": roles, "project": PROJECT})["token"])

        def person(name: str, *roles: str) -> Client:
            return stack.enter_context(Client.at(owner.url, token(name, *roles)))

        port = int(owner.url.rsplit(":", 1)[1]) + 1
        users = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"authorization": f"Bearer {token('help-page', 'service')}"},
            timeout=30,
            trust_env=False,
        )
        stack.enter_context(users)
        yield Staff(person("ada", "developer"), person("grace", "reviewer"), person("otto", "operator"), users)


def _make(story: Story, file: str, what: str) -> dict[str, Any]:
    """Let Ada make a release in her own process, as `holdtrue run --file` does, and tell what the gate says of it."""
    from holdtrue.project import Workshop, load_project

    story.say("people", f"Ada makes {what}.")
    project = load_project(story.files / file)
    ada = story.staff.ada
    ada.post(f"{BASE}/apply", dump(project.spec()))
    _settle(story)
    workshop = Workshop(project, story.home, ada)
    with completer(story.home, ada) as complete:
        made = workshop.assemble(SERVICE, ada.get("/api/whoami")["id"], complete)
    story.releases.append({**made, "what": what})
    answers = made["evidence"]["answers"]
    rate, declined = answers["pass_rate"], answers["unanswerable"]["declined"]
    story.say(
        "model",
        f"{made['release']}: {rate['mean']:.0%} of {answers['n']} questions pass ({rate['lower']:.0%} to "
        f"{rate['upper']:.0%}); {declined['mean']:.0%} of the unanswerable are declined.",
    )
    for finding in made["decision"]["findings"]:
        if not finding["passed"]:
            story.say("decision", f"The gate [bold red]refuses[/] {made['release']}: {_short(finding['why'])}")
    return made


def _approve_and_promote(story: Story, made: dict[str, Any]) -> None:
    release = made["release"]
    body = {"environment": "production", "reason": "the evidence holds"}
    story.staff.grace.post(f"{BASE}/releases/{release}/approve", body)
    story.say("people", f"Grace approves {release}.")
    wish = {"release": release, "environment": "production"}
    story.staff.otto.post(f"{BASE}/services/{SERVICE}/promote", wish)
    _settle(story)


def _settle(story: Story) -> None:
    """Let the control plane do what is due, until the data plane serves what it wishes for."""
    for _ in range(3):
        story.staff.otto.post("/api/operations/run-due")


def _until_live(story: Story, made: dict[str, Any]) -> None:
    for _ in range(200):
        _settle(story)
        shown = story.staff.otto.get(f"{BASE}/services/{SERVICE}")["deployments"]
        if any(each["release"] == made["release"] and each["state"] == "live" for each in shown):
            story.say("rollout", f"{made['release']} answers.")
            return
    raise Unavailable("The assistant did not come alive.", mend="Look at up.log in the demo's folder.")


def _canary(story: Story) -> None:
    """Let users ask, hour by hour, until the canary has decided; in this week most of them have one trouble."""
    cases = [case for case in load_test_set(story.files / "questions.jsonl").cases if case.expected.answerable]
    topic = [case for case in cases if case.tags.get("topic") == TOPIC]
    dice = random.Random(7)
    for _ in range(_HOURS):
        story.clock.set(story.now + timedelta(hours=1))
        chosen = [dice.choice(topic if dice.random() < _ABOUT_TOPIC else cases) for _ in range(_AN_HOUR)]
        _ask(story, chosen, dice)
        _settle(story)
        found = _rollout(story)
        if found is not None and found["state"] != "running":
            verb = found["state"].replace("_", " ")
            story.say("rollout", f"{found['challenger']} [bold red]{verb}[/]. {found['reason']}")
            return
    story.say("rollout", "The canary has not decided yet.")


def _ask(story: Story, cases: Sequence[Case], dice: random.Random) -> None:
    """Ask as users do, over HTTP; each says whether the answer held what they were looking for."""
    users = story.staff.users
    said: list[dict[str, Any]] = []
    for case in cases:
        body = {
            "model": f"app:{SERVICE}",
            "messages": [{"role": "user", "content": case.question}],
            "user": f"user-{dice.randrange(400)}",
        }
        answer = users.post("/v1/chat/completions", json=body)
        if answer.status_code != 200:
            raise Unavailable(f"The assistant answered {answer.status_code}.", why=answer.text[:300])
        told = answer.json()
        text = " ".join(told["choices"][0]["message"]["content"].split()).casefold()
        good = any(" ".join(words.split()).casefold() in text for words in case.expected.contains)
        said.append({"prediction_id": told["id"], "name": "helpful", "value": good})
        story.asked += 1
        story.liked += good
        story.answer = told["id"]
    users.post("/feedback", json={"feedback": said}).raise_for_status()


def _question(story: Story) -> Case:
    cases = load_test_set(story.files / "questions.jsonl").cases
    return next(case for case in cases if case.tags.get("topic") == TOPIC)


def _rollout(story: Story) -> dict[str, Any] | None:
    items = story.staff.otto.get(f"{BASE}/rollouts", service=SERVICE)["items"]
    return items[0] if items else None


def _short(text: str, most: int = 420) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
