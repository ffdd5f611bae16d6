"""A year as the demo tells it, in the shape of the report and of the pages."""

from typing import Any

CHAMPION = "rel_4f1c9a7be0d21358"
FIRST = "rel_0b7e52c1aa93f64d"


def interval(value: float, half: float, n: int = 27_000) -> dict[str, Any]:
    """Return the JSON of an interval around `value`."""
    return {"value": value, "lower": round(value - half, 4), "upper": round(value + half, 4), "n": n}


def report_document() -> dict[str, Any]:
    """Return a whole report as its maker would hand it in."""
    frozen = (None, None, 0.754, 0.751, 0.739, 0.746, 0.731, 0.722, 0.697, 0.679, 0.703, 0.717)
    loop = (None, None, 0.754, 0.784, 0.771, 0.751, 0.748, 0.742, 0.716, 0.711, 0.728, 0.738)
    flights = (27_004, 24_951, 28_834, 28_330, 28_796, 28_243, 29_425, 29_327, 27_574, 28_889, 27_268, 28_135)
    decided = {3: ("promoted rel_4f1c9a7b",), 8: ("rolled back rel_77aa01c4",), 11: ("refused rel_c0ffee12",)}
    months = [
        {
            "month": f"2013-{number + 1:02d}",
            "flights": flights[number],
            "frozen": None if frozen[number] is None else interval(frozen[number] or 0.0, 0.009),
            "loop": None if loop[number] is None else interval(loop[number] or 0.0, 0.008),
            "trainings": int(number in (2, 3, 8, 11)),
            "alarms": int(number in (8, 9)),
            "decisions": list(decided.get(number, ())),
        }
        for number in range(12)
    ]
    events = [
        {"time": "2013-03-01T06:00:00Z", "kind": "promotion", "label": "First release answers everything"},
        {"time": "2013-03-31T06:00:00Z", "kind": "retrain", "label": "Monthly retrain"},
        {"time": "2013-04-09T06:00:00Z", "kind": "promotion", "label": "rel_4f1c9a7b promoted after three steps"},
        {"time": "2013-06-01T06:00:00Z", "kind": "quarantine", "label": "May delivered without air_time"},
        {"time": "2013-09-14T06:00:00Z", "kind": "alarm", "label": "Quality fell below .71"},
        {"time": "2013-09-15T06:00:00Z", "kind": "retrain", "label": "Retrain after the alarm"},
        {"time": "2013-09-20T06:00:00Z", "kind": "rollback", "label": "rel_77aa01c4 was worse online"},
        {"time": "2013-12-30T06:00:00Z", "kind": "refusal", "label": "rel_c0ffee12 is no better"},
    ]
    return {
        "title": "A year of flights out of New York, replayed",
        "summary": "Over 2013 the loop trained 4 times and promoted 2 releases; in December it answered with an area "
        "under the ROC curve of 0.738 (0.730 – 0.746), the first model, left alone, with 0.717 (0.708 – 0.726).",
        "made_at": "2026-11-23T19:30:00Z",
        "months": months,
        "events": events,
        "decisions": [_decision("allowed"), _decision("refused")],
        "rollouts": [_rollout("promoted"), _rollout("rolled_back")],
        "quarantines": [_quarantine()],
        "why": _why(),
        "prediction": "Flight 1545 from EWR to IAH on 3 September: 0.41 likely to arrive more than 15 minutes late.",
        "facts": [["Machine", "2 cores, 24 GB"], ["Python", "3.11.2"], ["Time taken", "148 s"]],
        "commands": [
            ["Look around", "holdtrue up --home .demo/home"],
            ["Explain another prediction", "holdtrue why prd_01"],
        ],
    }


def _decision(outcome: str) -> dict[str, Any]:
    passed = outcome == "allowed"
    return {
        "time": "2013-12-30T06:00:00Z",
        "release": "rel_4f1c9a7be0d21358" if passed else "rel_c0ffee1290ab34cd",
        "environment": "production",
        "outcome": outcome,
        "summary": "" if passed else "It is not shown to be better than the champion on the same flights.",
        "approvals": ["Approved by Rosa, reviewer: “checked the slices”"] if passed else [],
        "rules": [
            {
                "name": "good enough",
                "passed": True,
                "expression": "metric.roc_auc.lower >= 0.65",
                "why": "The lower end of the interval reaches the floor.",
                "values": "metric.roc_auc.lower 0.730",
            },
            {
                "name": "better than the champion",
                "passed": passed,
                "expression": "comparison.p_better >= 0.95",
                "why": "The paired comparison favours neither." if not passed else "Better on paired rows.",
                "values": f"comparison.p_better {0.99 if passed else 0.12}",
                "mend": "Train on more history, or change the features.",
            },
        ],
    }


def _rollout(outcome: str) -> dict[str, Any]:
    good = outcome == "promoted"
    return {
        "started": "2013-09-16T06:00:00Z",
        "ended": "2013-09-20T06:00:00Z",
        "release": "rel_77aa01c4deadbeef",
        "champion": CHAMPION,
        "outcome": outcome,
        "margin": 0.01,
        "metric": "Brier score",
        "why": "" if good else "The challenger is worse on the same flights: the whole interval lies above zero.",
        "steps": [
            {
                "percent": percent,
                "started": f"2013-09-{16 + number}T06:00:00Z",
                "ended": f"2013-09-{17 + number}T06:00:00Z",
                "pairs": 900 * (number + 1),
                "difference": {"value": -0.002 if good else 0.031, "lower": -0.006, "upper": 0.002}
                if good
                else {"value": 0.031, "lower": 0.012, "upper": 0.05},
                "verdict": "on to the next step" if good else "rolled back",
            }
            for number, percent in enumerate((5, 25, 50) if good else (5,))
        ],
    }


def _quarantine() -> dict[str, Any]:
    return {
        "dataset": "flights",
        "window": "2013-05",
        "found": "2013-06-01T06:00:00Z",
        "rows": 28_796,
        "findings": [
            {
                "column": "distance",
                "rule": "type",
                "what": "The column holds text where the contract says int64.",
                "mend": "Deliver distance as whole miles.",
                "count": 28_796,
                "examples": ["1400 mi", "1416 mi"],
            }
        ],
        "mended": "2013-06-02T09:00:00Z",
        "accepted_as": "flights@5",
        "story": "The month came with distances as text. Nothing was trained on it until it was delivered again.",
    }


def _why() -> dict[str, Any]:
    return {
        "kind": "Prediction",
        "name": "prd_01",
        "facts": [["Score", "0.41"], ["Came true", "no, arrived 4 minutes early"]],
        "because": [
            {"kind": "Features", "name": "origin_weather@3", "facts": [["temp", "71.6"], ["wind_speed", "9.2"]]},
            {
                "kind": "Release",
                "name": CHAMPION,
                "facts": [["Service", "delays"]],
                "because": [
                    {"kind": "Model", "name": "delay@4", "facts": [["Format", "onnx"]]},
                    {
                        "kind": "Decision",
                        "name": "allowed for production",
                        "because": [{"kind": "Evidence", "name": "evd_01", "facts": [["ROC AUC", "0.784"]]}],
                    },
                    {"kind": "Dataset", "name": "flights@4", "facts": [["Windows", "2013-01 to 2013-03"]]},
                ],
            },
        ],
    }
