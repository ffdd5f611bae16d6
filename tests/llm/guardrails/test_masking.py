import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holdtrue.llm.guardrails import OutputWindow
from holdtrue.llm.guardrails.rules import Cover, covers, masked, original_span
from holdtrue.llm.guardrails.test_sets import load_cases
from tests.llm.guardrails.support import guardrail, masking, shows_only_masks, texts
from tests.sampling import examples

MASKING = masking()


@settings(deadline=None, max_examples=examples(150))
@given(texts())
def test_masking_shows_no_sign_of_what_was_found_and_every_other_one(text: str) -> None:
    verdict = MASKING.check_input(text)
    assert verdict.failed == ()
    assert shows_only_masks(text, verdict.text, verdict.findings)
    assert all(0 <= finding.start < finding.end <= len(text) for finding in verdict.findings)


@settings(deadline=None, max_examples=examples(150))
@given(texts())
@example("a@b.example1@b.example")
@example("4111 1111 1111 11114111 1111 1111 1111")
@example("password: [secret:generic_secret]")
@example("tel +49 30 901820 203.0.113.7")
def test_masking_twice_is_masking_once(text: str) -> None:
    once = MASKING.check_input(text)
    twice = MASKING.check_input(once.text)
    assert twice.action == "pass"
    assert twice.text is once.text


@settings(deadline=None, max_examples=examples(100))
@given(st.text(max_size=300))
def test_a_text_without_findings_comes_back_as_the_same_object(text: str) -> None:
    verdict = MASKING.check_output(text)
    assert verdict.findings or verdict.text is text
    assert (verdict.action == "pass") == (not verdict.findings)


@pytest.mark.parametrize("kind", ["secrets", "personal_data"])
def test_no_value_of_the_test_sets_survives_masking(kind: str) -> None:
    for case in load_cases(kind, "tune"):  # type: ignore[arg-type]  # both are kinds
        assert not isinstance(case.expected, bool)
        shown = MASKING.check_input(case.text).text
        for value in case.expected:
            assert case.text[value.start : value.end] not in shown, case.id


@settings(deadline=None, max_examples=examples(150))
@given(st.data())
def test_places_in_a_masked_text_are_found_again_in_the_original(data: st.DataObject) -> None:
    text = "".join(chr(0x4E00 + at) for at in range(40))
    ends = sorted(data.draw(st.sets(st.integers(0, 40), min_size=2, max_size=8)))
    pairs = list(zip(ends[::2], ends[1::2], strict=False))
    covered = [Cover(start, end, "[email]", 1.0) for start, end in pairs]
    shown = masked(text, covered)
    start = data.draw(st.integers(0, len(shown) - 1))
    end = data.draw(st.integers(start + 1, len(shown)))
    left, right = original_span(start, end, covered)
    # Each sign of the place that is no mask's stands inside of what it came from.
    inside = [sign for sign in shown[start:end] if sign >= "\u4e00"]
    assert all(sign in text[left:right] for sign in inside)
    # And a sign outside of it is outside, unless its mask was touched.
    outside = [sign for sign in shown[:start] + shown[end:] if sign >= "\u4e00"]
    assert all(sign not in text[left:right] for sign in outside)


def test_what_overlaps_is_masked_as_one_under_the_surest_label() -> None:
    found = MASKING.check_input("x").findings
    assert covers(found) == ()
    verdict = guardrail({"kind": "secrets", "action": "mask"}, {"kind": "personal_data", "action": "mask"}).check_input(
        "https://anna:Kaffee88x@firma.example/x"
    )
    assert verdict.text.count("[") == 1
    assert "Kaffee" not in verdict.text


@settings(deadline=None, max_examples=examples(40))
@given(
    texts(longest=12),
    st.lists(st.integers(3, 90), min_size=1, max_size=8),
    st.sampled_from([(256, 16), (256, 64), (300, 40)]),
)
def test_a_stream_is_masked_like_the_whole_text(text: str, sizes: list[int], room: tuple[int, int]) -> None:
    window = OutputWindow(MASKING, holdback=room[0], step=room[1])
    out, at, turn = "", 0, 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        out += window.feed(text[at : at + size])
        at, turn = at + size, turn + 1
    out += window.close()
    whole = MASKING.check_output(text)
    assert out == whole.text
    assert window.verdict().action == whole.action
    assert window.verdict().text == out
    assert shows_only_masks(text, out, window.verdict().findings)
    assert {(each.start, each.end) for each in window.verdict().findings} == {
        (each.start, each.end) for each in whole.findings
    }
