"""Evidence of every shape is shown, and none breaks the page."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.governance import Evidence
from holdtrue.web import evidence
from holdtrue.web.model import EvidenceView, Frame
from holdtrue.web.render import environment
from tests.sampling import examples
from tests.web.seeding import NOW, PROJECT

AUC = {"value": 0.711, "lower": 0.679, "upper": 0.74, "n": 12_492}
HALF = {"value": 0.5, "lower": 0.5, "upper": 0.5, "n": 12_492}
SLICES = [{"slice": "origin", "value": "EWR", "n": 709, "roc_auc": 0.727, "lower": 0.677, "upper": 0.772}]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["value", "lower", "n", "metric", "difference", "champion", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


def made(kind: str, content: Any) -> Evidence:
    """Return a piece of evidence."""
    return Evidence(f"evd_{kind}", kind, "rel_1", content, None, datetime(2013, 3, 1, tzinfo=UTC), "usr_ada")


def shown(views: tuple[EvidenceView, ...]) -> str:
    """Render the section of the release page that shows evidence."""

    class Page:
        evidence = views

    frame = Frame("", "", PROJECT, "Ada", NOW)
    text = '{% from "parts/macros.html" import empty, pill, id, estimate, facts %}{% include "release/evidence.html" %}'
    return environment().from_string(text).render(page=Page, frame=frame)


def test_metric_baseline_and_slices_stand_together() -> None:
    apart = evidence.views(
        [
            made("slices", SLICES),
            made("baseline", {"roc_auc": HALF}),
            made("metric", {"roc_auc": AUC, "base_rate": 0.23}),
        ]
    )
    whole = evidence.views(
        [
            made(
                "evaluation",
                {"metric": {"roc_auc": AUC, "base_rate": 0.23}, "baseline": {"roc_auc": HALF}, "slices": SLICES},
            )
        ]
    )
    assert len(apart) == len(whole) == 1
    assert (apart[0].metrics, apart[0].slices, apart[0].facts) == (whole[0].metrics, whole[0].slices, whole[0].facts)
    assert len(apart[0].ids) == 3
    assert apart[0].facts == (("base rate", "0.23"),)
    text = shown(apart)
    for words in ("ROC AUC", "0.679 – 0.740", "0.500", "origin = EWR", "12,492"):
        assert words in text


def test_a_comparison_is_told_for_each_opponent_on_a_scale_with_zero() -> None:
    found = {"metric": "roc_auc", "difference": 0.21, "lower": 0.18, "upper": 0.23, "p_better": 0.9998, "n": 12_492}
    (view,) = evidence.views([made("comparison", {"champion": found, "against": "baseline"})])
    (row,) = view.metrics
    assert row.name == "ROC AUC, challenger minus champion"
    assert row.low < 0 < row.value.value < row.high
    assert ("probability that it is better", "0.9998") in view.facts
    assert ("against", "baseline") in view.facts
    flat = evidence.views([made("comparison", found)])
    assert flat[0].metrics == view.metrics


def test_evaluation_comes_first_and_the_rest_in_one_order() -> None:
    kinds = [
        view.kind for view in evidence.views([made(k, {}) for k in ("parity", "contract", "comparison", "metric")])
    ]
    assert kinds == ["evaluation", "comparison", "contract", "parity"]


@settings(max_examples=examples(100), deadline=None)
@given(st.sampled_from(["evaluation", "metric", "baseline", "slices", "comparison", "parity"]), JSON)
def test_no_content_breaks_the_page(kind: str, content: Any) -> None:
    assert "Evidence" in shown(evidence.views([made(kind, content)]))


def test_purposes_and_tags_of_columns_stand_beside_what_they_are_used_for() -> None:
    column = {"dataset": "flights", "column": "tailnum", "uses": ["tail_mean"], "personal": "identifier"}
    rest = {"purposes": ["operations"], "licence": "CC0-1.0", "source": "none"}
    failure = {"what": "flights.tailnum", "why": "it may be used for operations, and the model's purpose is marketing"}
    content = {"purpose": "marketing", "allowed": False, "columns": [{**column, **rest}], "failures": [failure]}
    page = shown(evidence.views([made("privacy", content)]))
    assert "personal data (identifier), for operations, licence CC0-1.0; used for tail_mean" in page
    assert "not allowed: it may be used for operations" in page
    assert shown(evidence.views([made("privacy", {"columns": 7, "failures": None})]))
