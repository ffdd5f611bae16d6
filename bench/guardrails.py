"""Guardrails: how long a text waits for them, and how well and fast they do beside known tools on the held-out cases.

Peers: presidio's pattern recognisers (installed with the extra `pii`; the engine of the option `engine: presidio`)
over a blank pipeline, and detect-secrets in an environment of its own under `.bench/`, made on demand; without them our
side still runs. Not comparable in full: the cases were written here, by who wrote the detectors, in places and
languages that presidio's recognisers are not all made for. Detect-secrets reads files and knows no tokens of Holdtrue;
it gets each case as a YAML file, on which it does best of text, Python, YAML, INI and single lines. It tells lines and
no places, so these rows count cases with and without a secret, for both sides.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from holdtrue.core.errors import MissingExtra
from holdtrue.llm.guardrails import GuardCase, Guardrails, OutputWindow, compile_guardrails, load_cases, measure

LENGTH, ROUNDS = 2_000, 300
PEER = Path(".bench") / "detect-secrets"
PEER_PACKAGE = "detect-secrets==1.5.0"


class _Peer(NamedTuple):
    name: str
    version: str


_LETTER = (
    "Hi, I ordered a kettle last week (order 4512-8831) and it still hasn't arrived. I wrote to support on 2024-05-17 "
    "at 14:30 and got no answer. Can you please check the status and tell me when I can expect the delivery? "
    "My address has not changed. "
)
_SCAN = """
import json, os, sys, tempfile, time
from detect_secrets.core.scan import scan_file
from detect_secrets.settings import default_settings
found, seconds = [], []
with default_settings(), tempfile.TemporaryDirectory() as folder:
    for number, text in enumerate(json.load(sys.stdin)):
        path = os.path.join(folder, f"{number}.yaml")
        with open(path, "w") as file:
            file.write(text + chr(10))
        runs = []
        for _ in range(3):
            start = time.perf_counter()
            hits = list(scan_file(path))
            runs.append(time.perf_counter() - start)
        found.append(bool(hits))
        seconds.append(min(runs))
print(json.dumps({"found": found, "seconds": seconds}))
"""


def run() -> list[dict[str, Any]]:
    """Measure latency on a letter of 2,000 characters, then quality on the held-out cases, each against its peer."""
    guards = [{"kind": "secrets", "action": "mask"}, {"kind": "personal_data", "action": "mask"}, {"kind": "injection"}]
    text = (_LETTER * 20)[:LENGTH]
    whole = _compiled(*guards)
    rows = [_row("input guards, 2,000 characters, p50", "ms", _latency(lambda: whole.check_input(text)), 1.0)]
    for guard in guards:
        one = _compiled(guard)
        rows.append(_row(f"{guard['kind']}, 2,000 characters, p50", "ms", _latency(partial(one.check_input, text))))
    streaming = _compiled(*guards[:2])
    work = "stream of 2,000 characters in 400 pieces, masked"
    rows.append(_row(work, "ms", _latency(partial(_stream, streaming, text), 40)))
    return [*rows, *_quality(), *_against_presidio(text), *_against_detect_secrets()]


def _compiled(*guards: dict[str, Any]) -> Guardrails:
    return compile_guardrails({"name": "bench", "guards": list(guards)})


def _latency(work: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """Return the median of many runs, in milliseconds."""
    work()
    seconds: list[float] = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return median(seconds) * 1000


def _stream(guardrails: Guardrails, text: str) -> str:
    window = OutputWindow(guardrails)
    return "".join(window.feed(text[at : at + 5]) for at in range(0, len(text), 5)) + window.close()


def _quality() -> list[dict[str, Any]]:
    guardrails = _compiled(
        {"kind": "secrets"},
        {"kind": "personal_data"},
        {"kind": "injection"},
        {"kind": "schema", "on": "output"},
        {"kind": "grounding", "on": "output"},
    )
    rows: list[dict[str, Any]] = []
    for kind in ("secrets", "personal_data", "injection", "schema", "grounding"):
        found = measure(guardrails, load_cases(kind, "held_out"))[kind]
        for name in ("precision", "recall"):
            share = found[name]
            work = f"{kind}: {name}, held out, 95 % from {share['lower']:.3f} to {share['upper']:.3f}"
            rows.append(_row(work, f"of {share['n']}", share["value"]))
    return rows


def _against_presidio(text: str) -> list[dict[str, Any]]:
    try:
        theirs = _compiled({"kind": "personal_data", "options": {"engine": "presidio", "time_ms": 60_000}})
        release = version("presidio-analyzer")
    except (MissingExtra, PackageNotFoundError):
        print("Presidio is not installed: pip install 'holdtrue[pii]'", file=sys.stderr)
        return []
    ours = _compiled({"kind": "personal_data"})
    fast, slow = _latency(lambda: ours.check_input(text), 100), _latency(lambda: theirs.check_input(text), 20)
    peer = _Peer("presidio", release)
    rows = [_row("personal data, 2,000 characters, p50", "ms", fast, peer=peer, theirs=slow, ratio=slow / fast)]
    cases = load_cases("personal_data", "held_out")
    for name in ("precision", "recall"):
        own, other = (measure(each, cases)["personal_data"][name]["value"] for each in (ours, theirs))
        rows.append(_row(f"personal data: {name}, held out", "", own, peer=peer, theirs=other, ratio=own / other))
    return rows


def _against_detect_secrets() -> list[dict[str, Any]]:
    python = _peer()
    if python is None:
        return []
    cases = load_cases("secrets", "held_out")
    done = subprocess.run(
        [python, "-c", _SCAN],
        input=json.dumps([case.text for case in cases]),
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(done.stdout)
    ours = _compiled({"kind": "secrets"})
    found: list[bool] = []
    seconds: list[float] = []
    for case in cases:
        best = float("inf")
        verdict = ours.check_input(case.text)
        for _ in range(3):
            start = time.perf_counter()
            verdict = ours.check_input(case.text)
            best = min(best, time.perf_counter() - start)
        found.append(bool(verdict.findings))
        seconds.append(best)
    peer = _Peer("detect-secrets", PEER_PACKAGE.partition("==")[2])
    fast, slow = median(seconds) * 1000, median(said["seconds"]) * 1000
    rows = [_row("secrets, one case, p50", "ms", fast, peer=peer, theirs=slow, ratio=slow / fast)]
    for name in ("precision", "recall"):
        own, other = _share(name, cases, found), _share(name, cases, said["found"])
        rows.append(_row(f"secrets: {name} by case, held out", "", own, peer=peer, theirs=other, ratio=own / other))
    return rows


def _share(name: str, cases: Sequence[GuardCase], found: Sequence[bool]) -> float:
    hit = sum(bool(case.expected) and fired for case, fired in zip(cases, found, strict=True))
    return hit / (sum(found) if name == "precision" else sum(bool(case.expected) for case in cases))


def _peer() -> str | None:
    """Return the peer's Python, made on demand; None where it cannot be installed."""
    python = PEER / "bin" / "python"
    if not python.exists():
        print(f"Installing {PEER_PACKAGE} into {PEER} …", file=sys.stderr)
        made = subprocess.run([sys.executable, "-m", "venv", str(PEER)], capture_output=True, check=False)
        if made.returncode == 0:
            subprocess.run([str(python), "-m", "pip", "install", "-q", PEER_PACKAGE], capture_output=True, check=False)
    works = (
        python.exists() and subprocess.run([str(python), "-c", "import detect_secrets"], check=False).returncode == 0
    )
    if not works:
        print(f"{PEER_PACKAGE} could not be installed; its rows are left out.", file=sys.stderr)
    return str(python) if works else None


def _row(
    work: str,
    unit: str,
    ours: float,
    goal: float | None = None,
    *,
    peer: _Peer | None = None,
    theirs: float | None = None,
    ratio: float | None = None,
) -> dict[str, Any]:
    return {
        "topic": "guardrails",
        "work": work,
        "unit": unit,
        "ours": ours,
        "peer": peer and peer.name,
        "peer_version": peer and peer.version,
        "theirs": theirs,
        "ratio": ratio,
        "goal": None if goal is None else f"< {goal:g}",
        "met": None if goal is None else ours < goal,
    }
