"""What is left out before a span is stored."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdtrue.traces.model import Capture
from holdtrue.traces.redaction import Redactor, cut_url, mask_text, scrub_text, suspects

SECRETS = [
    "sk-proj-abcdEFGH1234ijklMNOP",
    "sk-ant-api03-abcdEFGH1234-ijklMNOP",
    "ht_svc_0123456789_abcdefghijklmnopqrstuvwxyzABCDEFGHIJ",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "github_pat_11ABCDEFG0abcdefghijkl",
    "glpat-abcdefghij1234567890",
    "hf_abcdefghijABCDEFGHIJabcd",
    "AKIAIOSFODNN7EXAMPLE",
    "AIzaSyA-abcdefghijklmnopqrstuvwxyz012345",
    "xoxb-123456789012-abcdefABCDEF",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
    "sk_live_abcdefghijklmnop",
]
PROSE = [
    "Please reset the task-oriented-dialogue-system and tell me whether risk-management-and-compliance is done.",
    "The token count is 12, the api is fast, and my key question is how secrets are kept.",
    "call_abcdefghijklmnopqrstuvwx chatcmpl-abcdefghijklmnopqrstuvwxyz 123e4567-e89b-12d3-a456-426614174000",
    "https://host.example/a/very/long/path/without/anything/secret?page=2&sort=name",
    "gpt-4o-mini-2024-07-18 with max_tokens=512 and temperature=0.2",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("around", ["{}", "use {} please", 'key: "{}"', "line\n{}\n", "({})", "x={}&y", "\t{}."])
def test_secrets_of_known_forms_are_found_and_removed(secret: str, around: str) -> None:
    text = around.format(secret)
    assert secret not in scrub_text(text)
    assert suspects([orjson.dumps({"a": "nothing"}), orjson.dumps({"b": text})]) == [1]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Authorization: Bearer abcdef.123456", "Authorization: Bearer [redacted]"),
        ('{"api_key": "0123456789abcdef0123"}', '{"api_key": "[redacted]"}'),
        ("password=hunter2hunter2", "password=[redacted]"),
        ("https://u:p@host.example/x", "https://host.example/x"),
        ("GET https://h.example/?api_key=abc&page=2", "GET https://h.example/?api_key=[redacted]&page=2"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", "[redacted]"),
    ],
)
def test_what_a_name_says_is_a_secret_is_removed(text: str, left: str) -> None:
    assert scrub_text(text) == left
    assert suspects([orjson.dumps({"b": text})]) == [0]


@pytest.mark.parametrize("text", PROSE)
def test_prose_and_ids_stay_as_they_are(text: str) -> None:
    assert scrub_text(text) == text


@settings(deadline=None)
@given(st.lists(st.one_of(st.sampled_from([*SECRETS, *PROSE]), st.text(max_size=30)), max_size=6), st.text(max_size=3))
def test_whatever_would_be_removed_is_suspected(parts: list[str], between: str) -> None:
    text = between.join(parts).encode(errors="replace").decode()
    for value in (text, {"input": [text]}, orjson.dumps({"messages": text}).decode()):
        blob = orjson.dumps({"attribute": value})
        changed = Redactor().scrub(value) != value
        # A short secret is found by the sign before its value; a long one by its own form.
        if changed and any(secret in text for secret in SECRETS):
            assert suspects([b"{}", blob, b"{}"]) == [1]


@pytest.mark.parametrize(
    "key",
    [
        "authorization",
        "http.request.header.authorization",
        "http.request.header.x-api-key",
        "Api-Key",
        "openai.api_key",
        "http.request.header.cookie",
        "set-cookie",
        "db.password",
        "aws.secret_access_key",
        "session_token",
        "client_secret",
        "credentials",
        "url.query",
    ],
)
def test_attributes_named_like_credentials_are_dropped(key: str) -> None:
    assert Redactor().clean({key: "short", "kept": 1}, Capture.FULL) == ({"kept": 1}, 1)
    assert Redactor().clean({"deep": {"er": [{key: "x"}]}}, Capture.FULL) == ({"deep": {"er": [{}]}}, 1)


@pytest.mark.parametrize(
    "key",
    [
        "gen_ai.usage.input_tokens",
        "llm.token_count.prompt",
        "gen_ai.token.type",
        "session.id",
        "author",
        "keyboard",
        "secretary",
        "__proto__",
        "a.b[0]",
        "constructor.prototype.x",
        "passenger.count",
    ],
)
def test_other_attributes_stay_byte_equal(key: str) -> None:
    attributes: dict[str, Any] = {key: "value", "other": [1, {"x": key}]}
    assert Redactor().clean(attributes, Capture.FULL) == (attributes, 0)


@pytest.mark.parametrize(
    ("address", "left"),
    [
        ("https://u:p@h.example:8443/p?q=1#f", "https://h.example:8443/p"),
        ("/path?q=1", "/path"),
        ("https://h.example/a@b", "https://h.example/a@b"),
        ("postgresql://me:pw@db/x", "postgresql://db/x"),
        ("plain", "plain"),
    ],
)
def test_addresses_lose_user_query_and_fragment(address: str, left: str) -> None:
    assert cut_url(address) == left
    assert Redactor().clean({"url.full": address}, Capture.FULL)[0] == {"url.full": left}


def test_off_keeps_names_and_numbers_and_none_of_the_content() -> None:
    attributes = {
        "gen_ai.request.model": "small",
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.prompt.name": "greeting",
        "gen_ai.input.messages": "[]",
        "gen_ai.prompt.0.content": "hello",
        "llm.input_messages.0.message.content": "hello",
        "input.value": "hello",
        "mlflow.spanInputs": "{}",
        "exception.message": "hello",
        "custom": "x" * 300,
        "custom.list": ["hello"],
        "short": "kept",
    }
    kept, cut = Redactor().clean(attributes, Capture.OFF)
    assert kept == {
        "gen_ai.request.model": "small",
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.prompt.name": "greeting",
        "short": "kept",
    }
    assert cut == len(attributes) - len(kept)


def test_masked_goes_through_every_text_with_the_mask_it_was_given() -> None:
    redactor = Redactor(lambda text: text.replace("Ada", "[name]"))
    attributes = {"input.value": "Ada asks", "list": ["Ada"], "map": {"x": "Ada"}, "count": 3}
    kept, _ = redactor.clean(attributes, Capture.MASKED)
    assert kept == {"input.value": "[name] asks", "list": ["[name]"], "map": {"x": "[name]"}, "count": 3}
    assert redactor.text("Ada", Capture.MASKED) == "[name]"
    assert redactor.text("Ada", Capture.FULL) == "Ada"


def test_the_masks_own_rules_take_addresses_of_people_out() -> None:
    assert mask_text("write to ada.l+x@mail.example.org, or a@b") == "write to [email], or a@b"
    assert mask_text("use AKIAIOSFODNN7EXAMPLE") == "use [redacted]"


def test_a_flood_of_new_names_is_forgotten() -> None:
    redactor = Redactor()
    for number in range(20_000):
        redactor.clean({f"key{number}": "x"}, Capture.FULL)
    assert len(redactor._known) <= 8192  # pyright: ignore[reportPrivateUsage]
