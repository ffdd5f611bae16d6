"""The gateway's own answerer: sentences of the context, cited, or nothing."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdtrue.core.errors import HoldtrueError, InvalidInput
from holdtrue.llm.gateway import Operation, Provider, Usage
from holdtrue.llm.gateway.extractive import MODELS, read_rules, read_task
from holdtrue.llm.gateway.sentences import ABSTAINS, Passage, Rules, count_tokens, find_answer, split, stem
from tests.llm.gateway.labs import CALLER, Lab, Open, chat, text_of
from tests.llm.gateway.worlds import only

PASSAGES = (
    Passage("opening", "Opening hours", "The museum opens at nine in the morning. It closes at six in the evening."),
    Passage("tickets", "Prices", "A ticket costs twelve euros. Children under six enter free of charge."),
    Passage("dogs", "Animals", "Dogs must stay outside. Guide dogs are welcome everywhere."),
)
CONTEXT = "".join(f'<passage id="{each.id}" title="{each.title}">{each.text}</passage>\n' for each in PASSAGES)
DOCS = only(Provider("docs", "extractive", models=MODELS))


@pytest.mark.parametrize(
    ("question", "passage", "word"),
    [
        ("When does the museum open?", "opening", "nine"),
        ("What does a ticket cost?", "tickets", "twelve"),
        ("Do children pay to enter?", "tickets", "free"),
        ("Are guide dogs welcome?", "dogs", "Guide"),
    ],
)
def test_the_sentence_that_answers_is_found(question: str, passage: str, word: str) -> None:
    found = find_answer(question, PASSAGES, Rules(max_sentences=1))
    assert [each.passage for each in found.sentences] == [passage]
    assert word in found.text(Rules())
    assert found.text(Rules()).endswith(f"[{passage}]")


@pytest.mark.parametrize(
    "question",
    ["Who won the world cup?", "Where can I park my car?", "", "???", "Is the the?", "What is quantum gravity?"],
)
def test_what_the_context_does_not_answer_is_not_answered(question: str) -> None:
    found = find_answer(question, PASSAGES, Rules())
    assert found.sentences == ()
    assert found.text(Rules()) == ABSTAINS


def test_settings_change_the_answer() -> None:
    question = "When does the museum open and close?"
    two = find_answer(question, PASSAGES, Rules(max_sentences=2, threshold=0.2))
    assert len(two.sentences) == 2
    assert len(find_answer(question, PASSAGES, Rules(max_sentences=1, threshold=0.2)).sentences) == 1
    assert find_answer(question, PASSAGES, Rules(threshold=1.0)).sentences == ()
    assert two.text(Rules(style="bullets", cite=False)).startswith("- The museum opens")
    # With no threshold it says whatever comes nearest: a worse prompt answers worse.
    assert find_answer("Where can I park my dogs?", PASSAGES, Rules(threshold=0.0)).sentences != ()


def test_a_sentence_that_stands_twice_is_said_once() -> None:
    twice = (PASSAGES[1], Passage("copy", "", PASSAGES[1].text))
    found = find_answer("What does a ticket cost?", twice, Rules(max_sentences=5))
    assert [each.passage for each in found.sentences] == ["tickets"]


def test_likeness_in_meaning_counts_where_it_is_given() -> None:
    def similar(_: str, sentences: Any) -> list[float]:
        return [1.0 if "charge" in each else 0.0 for each in sentences]

    found = find_answer("Is it gratis for kids?", PASSAGES, Rules(threshold=0.4), similar)
    assert [each.passage for each in found.sentences] == ["tickets"]
    assert find_answer("Is it gratis for kids?", PASSAGES, Rules(threshold=0.4)).sentences == ()


@given(st.text(max_size=300), st.lists(st.text(max_size=300), max_size=5))
def test_any_text_is_answered_the_same_way_twice(question: str, texts: list[str]) -> None:
    passages = [Passage(str(place), "", text) for place, text in enumerate(texts)]
    first = find_answer(question, passages, Rules())
    assert first == find_answer(question, passages, Rules())
    assert 0 <= first.best <= 1
    for each in first.sentences:
        # Nothing is said that does not stand there.
        assert "".join(each.text.split()) in "".join(texts[int(each.passage)].split())


def test_sentences_are_told_apart() -> None:
    assert split("Dr. Smith came at 3.15 p.m. on time. He left!  Why?\nNobody (at all) knows…  End") == [
        "Dr. Smith came at 3.15 p.m. on time.",
        "He left!",
        "Why?",
        "Nobody (at all) knows…",
        "End",
    ]
    assert split("See e.g. the map. Done.") == ["See e.g. the map.", "Done."]
    assert split("  \n ") == []


@pytest.mark.parametrize(
    ("words", "root"),
    [
        (("opens", "open", "opening", "opened"), "open"),
        (("city", "cities"), "city"),
        (("stop", "stops", "stopped", "stopping"), "stop"),
        (("glass",), "glass"),
        (("is",), "is"),
    ],
)
def test_endings_are_taken_off(words: tuple[str, ...], root: str) -> None:
    assert {stem(word) for word in words} == {root}


def test_where_context_and_question_are_found() -> None:
    def task(*messages: tuple[str, str]) -> Any:
        return read_task({"messages": [{"role": role, "content": text} for role, text in messages]})

    marked = task(("system", f"Answer.\nmax_sentences: 3\n{CONTEXT}"), ("user", "What does a ticket cost?"))
    assert marked.passages == PASSAGES
    assert marked.question == "What does a ticket cost?"
    assert marked.rules == Rules(max_sentences=3)
    inside = task(("user", f"{CONTEXT}\nWhat does a ticket cost?"))
    assert (inside.passages, inside.question) == (PASSAGES, "What does a ticket cost?")
    plain = task(("user", "Context: One fact.\n\nAnother fact.\nQuestion: Which fact?"))
    assert [(each.id, each.text.strip()) for each in plain.passages] == [("1", "One fact."), ("2", "Another fact.")]
    assert plain.question == "Which fact?"
    system = task(("system", "threshold: 0.1\nOne fact."), ("user", "Which fact?"))
    assert [each.text.strip() for each in system.passages] == ["One fact."]
    assert system.rules.threshold == 0.1
    tool = task(("user", "Which?"), ("assistant", CONTEXT), ("tool", "<passage>A tool's fact.</passage>"))
    assert [(each.id, each.text) for each in tool.passages] == [("1", "A tool's fact.")]
    open_end = task(("user", "<passage id='x'>never closed. Which?"))
    assert open_end.passages == ()
    escaped = task(("user", "<passage id=\"a&amp;b\" title='t'>x</passage>"))
    assert (escaped.passages[0].id, escaped.passages[0].title) == ("a&b", "t")


def test_passages_that_open_without_end_take_no_time() -> None:
    text = "<passage " * 100_000 + "<passage>" * 100_000
    assert read_task({"messages": [{"role": "user", "content": text}]}).passages == ()


@pytest.mark.parametrize(
    "line", ["max_sentences: 9", "max_sentences: many", "threshold: 2", "threshold: nan", "style: rhyme", "cite: maybe"]
)
def test_a_setting_that_cannot_be_is_refused(line: str) -> None:
    with pytest.raises(InvalidInput):
        read_rules(f"Be kind.\n{line}\n")


def test_the_last_setting_of_a_name_holds() -> None:
    assert read_rules("threshold = 0.2\nthreshold: 0.3\nstyle: bullets\ncite: no\nthe threshold: is here") == Rules(
        threshold=0.3, style="bullets", cite=False
    )


def test_it_answers_through_the_gateway(lab: Lab) -> None:
    body = {
        "model": "extractive",
        "messages": [
            {"role": "system", "content": CONTEXT},
            {"role": "user", "content": "What does a ticket cost?"},
        ],
    }

    async def work(gateway: Open) -> None:
        whole = await gateway.ask(body)
        text = "A ticket costs twelve euros. [tickets]"
        assert whole.body["choices"][0]["message"]["content"] == text
        assert whole.usage == Usage(count_tokens(CONTEXT) + 6, count_tokens(text))
        assert whole.cost_micros == 0
        pieces = await gateway.pieces({**body, "stream": True, "stream_options": {"include_usage": True}})
        assert text_of(pieces) == text
        assert len(pieces) == 6 + 3
        assert pieces[-1]["usage"] == whole.body["usage"]
        again = await gateway.ask(body)
        assert (again.body["id"], again.body["choices"]) == (whole.body["id"], whole.body["choices"])
        short = await gateway.ask({**body, "max_tokens": 3})
        assert short.body["choices"][0]["message"]["content"] == "A ticket costs"
        assert short.body["choices"][0]["finish_reason"] == "length"
        formed = await gateway.ask({**body, "response_format": {"type": "json_object"}})
        assert formed.body["choices"][0]["message"]["content"] == (
            '{"answer":"A ticket costs twelve euros.","citations":["tickets"],"abstained":false}'
        )
        prompt = f"{CONTEXT}\nQuestion: Who won?"
        text_only = await gateway.ask({"model": "extractive", "prompt": prompt}, operation=Operation.COMPLETION)
        assert text_only.body["choices"][0]["text"] == ABSTAINS

    lab.run(DOCS, work)


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        (Operation.CHAT, chat(model="e5-small")),
        (Operation.CHAT, chat(model="extractive", response_format={"type": "json_schema"})),
        (Operation.CHAT, chat("x" * (1 << 21), model="extractive")),
        (Operation.EMBEDDING, {"model": "extractive", "input": "x"}),
        (Operation.EMBEDDING, {"model": "e5-small", "input": [[1, 2]]}),
        (Operation.EMBEDDING, {"model": "e5-small", "input": [""]}),
        (Operation.EMBEDDING, {"model": "e5-small", "input": ["x"] * 257}),
        (Operation.EMBEDDING, {"model": "e5-small", "input": "x", "dimensions": 8}),
        (Operation.EMBEDDING, {"model": "e5-small", "input": "x", "input_type": "poem"}),
    ],
)
def test_what_it_cannot_do_it_refuses(lab: Lab, operation: Operation, body: dict[str, Any]) -> None:
    async def work(gateway: Open) -> None:
        await gateway.ask(body, CALLER, operation)

    with pytest.raises(HoldtrueError) as error:
        lab.run(DOCS, work)
    assert error.value.status in (400, 413)


def test_texts_are_embedded(lab: Lab) -> None:
    async def work(gateway: Open) -> Any:
        async def vectors(texts: Any, kind: str) -> Any:
            body = {"model": "e5-small", "input": texts, "input_type": kind}
            return (await gateway.ask(body, CALLER, Operation.EMBEDDING)).body

        return await vectors("price of a ticket", "query"), await vectors(
            ["A ticket costs twelve euros.", "Dogs bark."], "passage"
        )

    asked, found = lab.run(DOCS, work)
    question = np.array(asked["data"][0]["embedding"])
    passages = np.array([each["embedding"] for each in found["data"]])
    assert passages.shape == (2, 384)
    assert np.linalg.norm(passages, axis=1) == pytest.approx([1, 1], abs=1e-3)
    likeness = passages @ question
    assert likeness[0] > likeness[1] + 0.03
    assert asked["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
