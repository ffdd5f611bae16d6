"""The forms of a request against each other: JSON tensors, binary tensors, named fields, MLflow's invocations.

One data plane with records on, one compiled model of eight numbers; the same rows in every form, turn by turn. The
peer of each row is our own JSON form of the Open Inference Protocol, so ratios say what a form costs or saves.
"""

import json
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.inference import HEADERS, NAMES, _drive, _home, _model, _plane, _served, _tensor  # pyright: ignore[reportPrivateUsage]
from bench.load import request_bytes

ROUNDS = 3
INFER = "/v2/models/small/infer"
SIZES = ((1, 1000, 32), (1000, 10, 1))
"""Rows in a request, requests in a round, connections."""


def run() -> list[dict[str, Any]]:
    """Measure and return the rows of the table of benchmarks."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        home = _home(root / "home", _model(8, seed=1))
        with _served(_plane(home, "fast")) as port:
            return [
                row for rows, count, connections in SIZES for row in _compared(root, port, rows, count, connections)
            ]


def _compared(root: Path, port: int, rows: int, count: int, connections: int) -> list[dict[str, Any]]:
    files: dict[str, Path] = {}
    for name, request in _requests(rows).items():
        files[name] = root / f"{name}-{rows}.json"
        files[name].write_text(json.dumps([request]))
    rates: dict[str, list[float]] = {name: [] for name in files}
    for turn in range(ROUNDS + 1):
        for name, file in files.items():
            rate = _drive(port, file, count, connections)["rate"]
            if turn:  # the first turn warms up
                rates[name].append(rate * rows)
    theirs = median(rates["json"])
    return [
        {
            "topic": "forms",
            "work": f"{name}, {rows} rows a request, {connections} connections",
            "unit": "rows/s",
            "ours": median(found),
            "peer": "our JSON tensors",
            "peer_version": "",
            "theirs": theirs,
            "ratio": median(found) / theirs,
            "goal": None,
            "met": None,
        }
        for name, found in rates.items()
        if name != "json"
    ]


def _requests(rows: int) -> dict[str, str]:
    """Return a request in each form, as text in which every byte is one character below 128."""
    # Numbers whose bytes are all below 128, since requests travel as text here.
    values = np.full(rows, 2.0)
    columns = {name: values.tolist() for name in NAMES}
    tensors = [_tensor(name, "FP64", data) for name, data in columns.items()]
    raw = values.tobytes()
    assert max(raw) < 128
    heads = [
        {"name": name, "datatype": "FP64", "shape": [rows], "parameters": {"binary_data_size": len(raw)}}
        for name in NAMES
    ]
    top = json.dumps({"inputs": heads, "parameters": {"binary_data_output": True}}).encode()
    binary = {**HEADERS, "Inference-Header-Content-Length": str(len(top))}
    records = [dict.fromkeys(NAMES, 2.0) for _ in range(rows)]
    split = {"dataframe_split": {"columns": NAMES, "data": [[2.0] * len(NAMES)] * rows}}
    media = {**HEADERS, "Content-Type": "application/json"}
    return {
        name: request_bytes("POST", path, body, headers).decode()
        for name, path, body, headers in (
            ("json", INFER, json.dumps({"inputs": tensors}).encode(), HEADERS),
            ("binary tensors", INFER, top + raw * len(NAMES), binary),
            ("/predict", "/predict/small", json.dumps(records[0] if rows == 1 else records).encode(), HEADERS),
            ("/invocations", "/invocations/small", json.dumps(split).encode(), media),
        )
    }


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
    sys.exit(0)
