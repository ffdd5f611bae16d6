"""A project of three classes and of a number behind `holdtrue up`: asked, labelled, measured, rolled out, judged."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from holdtrue.core.clock import SystemClock
from holdtrue.server.client import Client
from holdtrue.server.home import read_token
from holdtrue.server.ports import free_ports
from holdtrue.storage import FileClock
from tests.cli.test_falling_back import until
from tests.cli.toys import succeed, toy_folder

pytestmark = pytest.mark.long
TEXT = (Path(__file__).parent / "kinds_project.py.txt").read_text(encoding="utf-8")
GRADES = ("calm", "soon", "now")
DAY = timedelta(days=1)
CHANCES = ["accuracy", "macro_f1", "log_loss", "brier"]
SERVICES = ("grade", "minutes")


@dataclass
class Live:
    """Hold the folder, its clock, and a client of each port."""

    folder: Path
    clock: FileClock
    url: str
    api: Client
    plane: httpx.Client
    headers: dict[str, str]
    random: np.random.Generator
    count: int = 0

    def due(self) -> None:
        self.api.post("/api/operations/run-due", {})

    def quality(self, service: str, **query: Any) -> list[dict[str, Any]]:
        found = self.api.get(f"/api/projects/orders/services/{service}/quality", **query)
        return found["items"] if isinstance(found, dict) else found

    def day(self, n: int = 60, labelled: int | None = None, passing: timedelta = DAY) -> dict[str, list[Any]]:
        """Ask for `n` rows at each service, let a day or so pass, and say what was true of `labelled` of them."""
        amount = self.random.normal(size=n)
        place = np.clip(np.round(amount + 0.5 * self.random.normal(size=n)) + 1, 0, 2).astype(int)
        took = 30.0 + 10.0 * amount + 2.0 * self.random.normal(size=n)
        keys = [f"live-{self.count + number:05d}" for number in range(n)]
        self.count += n
        now = int(self.clock.now().timestamp() * 1e6)
        body = {
            "dataframe_records": [{"id": k, "asked_at": now, "amount": a} for k, a in zip(keys, amount, strict=True)]
        }
        found: dict[str, list[Any]] = {}
        for service in SERVICES:
            answer = self.plane.post(f"/invocations/{service}", json=body)
            assert answer.status_code == 200, answer.text
            found[service] = answer.json()["predictions"]
        self.clock.set(self.clock.now() + passing)
        truths = {"grade": [GRADES[each] for each in place], "minutes": took.tolist()}
        for service, values in truths.items():
            labels = [{"key": k, "value": v} for k, v in zip(keys, values, strict=True)][:labelled]
            assert self.plane.post("/labels", json={"service": service, "labels": labels}).status_code == 200
        self.due()
        return {**found, "true_grade": truths["grade"], "true_minutes": truths["minutes"]}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Train both models, promote them, and serve them on a clock of their own."""
    folder = toy_folder(tmp_path_factory.mktemp("kinds"), TEXT)
    # Tokens that `up` makes live for 90 days from now on; what is asked here is simulated from the next month on.
    start = (SystemClock().now().replace(day=1) + timedelta(days=32)).replace(day=1, hour=8)
    clock = FileClock(folder / "clock", start)
    port = free_ports("127.0.0.1")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HOLDTRUE_")}
    command = [sys.executable, "-m", "holdtrue.server.up", "--home", ".holdtrue", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--file", "project.py", "--clock", "clock"], cwd=folder, env=clean, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert any(line.startswith("ready ") for line in process.stdout)
        token = read_token(folder / ".holdtrue")
        assert token is not None
        url = f"http://127.0.0.1:{port}"
        for name in SERVICES:
            run = ("run", name, "-w", "2030-02", "-w", "2030-03", "--json")
            made = json.loads(succeed(*run, cwd=folder, HOLDTRUE_URL=url))
            succeed("promote", name, made["release"], cwd=folder, HOLDTRUE_URL=url)
        headers = {"authorization": f"Bearer {token}", "x-holdtrue-project": "orders"}
        plane = httpx.Client(base_url=f"http://127.0.0.1:{port + 1}", headers=headers)
        with Client.at(url, token) as api, plane:
            # On a clock of its own a server does what is due when it is asked, and not before.
            api.post("/api/operations/run-due", {})
            until(lambda: all(plane.get(f"/v2/models/{name}/ready").status_code == 200 for name in SERVICES))
            yield Live(folder, clock, url, api, plane, headers, np.random.default_rng(3))
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()
        clock.close()


def test_the_overview_names_the_measure_of_each_service_before_a_month_is_over(live: Live) -> None:
    page = httpx.get(f"{live.url}/projects/orders", headers=live.headers).text
    assert "ROC AUC" not in page
    assert "Accuracy" in page
    assert "Mean absolute error" in page


def test_quality_by_window_is_that_of_the_labels_that_came(live: Live) -> None:
    days = [live.day(), live.day(labelled=45), live.day()]
    live.clock.set(live.clock.now() + timedelta(days=1))
    live.due()
    for service, measures in (("grade", CHANCES), ("minutes", ["mae", "rmse", "coverage"])):
        found = live.quality(service, grain="day")
        assert [(each["n"], each["labelled"], each["maturity"]) for each in found] == [
            (60, 60, 1.0),
            (60, 45, 0.75),
            (60, 60, 1.0),
        ]
        assert [each["name"] for each in found[0]["measures"]] == measures
    right = [a == b for a, b in zip(days[0]["grade"], days[0]["true_grade"], strict=True)]
    told = live.quality("grade", grain="day")[0]["measures"][0]
    assert told["value"] == pytest.approx(np.mean(right))
    assert 0.4 < told["lower"] < told["value"] < told["upper"] <= 1.0
    off = np.abs(np.subtract(days[1]["minutes"][:45], days[1]["true_minutes"][:45]))
    half = live.quality("minutes", grain="day")[1]["measures"]
    assert half[0]["value"] == pytest.approx(off.mean(), rel=1e-4)
    assert half[1]["value"] == pytest.approx(np.sqrt(np.square(off).mean()), rel=1e-4)
    assert (half[2]["n"], half[2]["promised"]) == (45, 0.9)
    month = live.quality("minutes", grain="month")[0]
    assert (month["n"], month["labelled"]) == (180, 165)
    page = httpx.get(f"{live.url}/projects/orders/services/minutes", headers=live.headers)
    assert "Ranges that held the truth, by day" in page.text
    assert "promised 90" in page.text


def test_a_challenger_of_classes_is_promoted_and_a_worse_one_of_numbers_goes_back(live: Live) -> None:
    text = TEXT.replace("LogisticRegression(C=1.0)", "LogisticRegression(C=0.5)").replace(
        "train.y + 0.0", "train.y + 25.0"
    )
    assert text != TEXT
    (live.folder / "project.py").write_text(text, encoding="utf-8")
    for name in SERVICES:
        made = json.loads(succeed("run", name, "--json", cwd=live.folder, HOLDTRUE_URL=live.url))
        assert made["decision"]["outcome"] == "allowed"
        succeed("promote", name, made["release"], cwd=live.folder, HOLDTRUE_URL=live.url)

    def states() -> dict[str, str]:
        found = live.api.get("/api/projects/orders/rollouts")["items"]
        return {each["service"]: each["state"] for each in found}

    until(lambda: set(states().values()) == {"running"})
    for _ in range(30):
        live.day(120, passing=timedelta(hours=2))
        if set(states().values()).isdisjoint({"running"}):
            break
    assert states() == {"grade": "promoted", "minutes": "rolled_back"}
