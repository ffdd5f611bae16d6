"""The official OpenAI client against the real data plane, over a fake provider."""

from holdtrue.testing import FakeProvider
from tests.llm.gateway.conftest import Openai
from tests.llm.gateway.worlds import World, only, provider


def test_a_chat_is_answered(world: World, fake: FakeProvider, client: Openai) -> None:
    ai = client(world.plane(only(provider(fake.url))))
    answer = ai.chat.completions.create(model="fake/small", messages=[{"role": "user", "content": "good day"}])
    assert answer.choices[0].message.content == "You said: good day"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 6
    chunks = ai.chat.completions.create(model="small", messages=[{"role": "user", "content": "good day"}], stream=True)
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(texts) == "You said: good day"
