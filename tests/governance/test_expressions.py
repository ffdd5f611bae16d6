"""Names, loops and depth in the text of an expression."""

import pytest

from holdtrue.governance.expressions import bound, depth, loops, paths


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("metric.roc_auc.lower >= 0.65", ["metric.roc_auc.lower"]),
        ("metric['roc_auc'].n > 5 && metric.roc_auc.lower > .5", ["metric.roc_auc.n", "metric.roc_auc.lower"]),
        ("slices[0].roc_auc > 0.5", ["slices[0].roc_auc"]),
        ("slices.all(s, s.roc_auc >= 0.6)", ["slices"]),
        ("size(slices) > 3 && slices.size() > 3", ["slices", "slices"]),
        ("release.first || comparison.p_better >= 0.95", ["release.first", "comparison.p_better"]),
        ("'metric.x' == \"slices.y\" // comparison.z", []),
        ("has(parity.max_difference) ? true : false", ["parity.max_difference"]),
        ("!(metric.a.b in [1, 2])", ["metric.a.b"]),
        (r"comparison.note == 'it\'s baseline.x'", ["comparison.note"]),
    ],
)
def test_paths_are_the_names_an_expression_uses(text: str, wanted: list[str]) -> None:
    assert [str(path) for path in paths(text)] == wanted


def test_bound_variables_are_those_of_macros() -> None:
    assert bound("a.all(x, x.b.exists(y, y > 1)) && c.map (z, z)") == {"x", "y", "z"}
    assert bound("'a.all(x, true)' == b") == frozenset()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("metric.a > 1", 0),
        ("a.all(x, x > 1) && a.exists(y, y > 1)", 1),
        ("a.all(x, a.exists(y, y > x))", 2),
        ("a.all(x, a.all(y, a.all(z, x > z)))", 3),
        ("a.filter(x, x > 1).all(y, y > 2)", 1),
    ],
)
def test_depth_counts_loops_within_loops(text: str, wanted: int) -> None:
    assert depth(text) == wanted


def test_loops_show_list_variable_and_body() -> None:
    found = loops("slices.all(s, s.roc_auc >= 0.6 || (s.n < 100)) && metric.a > 1")
    assert [(str(each.over), each.macro, each.variable, each.body) for each in found] == [
        ("slices", "all", "s", "s.roc_auc >= 0.6 || (s.n < 100)")
    ]
