"""Where the gateway calls, and where it does not; where keys are found, and where they are not looked for."""

import asyncio
import os
from pathlib import Path

import pytest

from holdtrue.core.errors import ConfigurationError
from holdtrue.llm.gateway import Provider
from holdtrue.llm.gateway.keys import MissingKey, check_reference, read_key
from holdtrue.llm.gateway.upstream import Place, Unreachable, Upstream, place_of
from holdtrue.testing import FakeProvider


def place(url: str, *, private: bool = False) -> Place:
    return place_of(Provider("p", "openai", base_url=url, private=private))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.example.com/v1/", Place("https://api.example.com/v1", "api.example.com", False)),
        ("https://API.example.com:8443", Place("https://api.example.com:8443", "api.example.com", False)),
        ("http://127.0.0.1:8000/v1", Place("http://127.0.0.1:8000/v1", "127.0.0.1", True)),
        ("http://localhost:11434/v1", Place("http://localhost:11434/v1", "localhost", True)),
        ("http://[::1]:8000", Place("http://[::1]:8000", "::1", True)),
        ("http://10.1.2.3/v1", Place("http://10.1.2.3/v1", "10.1.2.3", True)),
        ("https://8.8.8.8/v1", Place("https://8.8.8.8/v1", "8.8.8.8", False)),
    ],
)
def test_addresses_that_are_called(url: str, expected: Place) -> None:
    assert place(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com",
        "ftp://api.example.com",
        "file:///etc/passwd",
        "https://",
        "https://user@api.example.com",
        "https://user:pass@api.example.com",
        "https://api.example.com/v1?key=1",
        "https://api.example.com/#x",
        "https://api.example.com/ v1",
        "https://api.example.com\\@evil.example",
        "https://api.example.com:99999",
        "https://[::1",
        "http://api.example.com/v1",
        "http://8.8.8.8/v1",
        "http://169.254.169.254/latest",
        "https://169.254.169.254",
        "http://[fe80::1]/v1",
        "http://0.0.0.0:8000",
        "http://224.0.0.1",
    ],
)
def test_addresses_that_are_not(url: str) -> None:
    with pytest.raises(ConfigurationError):
        place(url)


def test_a_private_host_by_name_must_be_allowed() -> None:
    assert place("http://vllm.internal:8000/v1", private=True).private
    with pytest.raises(ConfigurationError):
        place("http://vllm.internal:8000/v1")


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["::ffff:127.0.0.1"], ["169.254.169.254"]]
)
def test_a_public_name_that_leads_inside_is_not_called(addresses: list[str]) -> None:
    async def work() -> None:
        upstream = Upstream(lambda host, port: addresses)
        target = place("https://api.example.com")
        upstream.allow([target])
        try:
            with pytest.raises(Unreachable):
                await upstream.post(target, "/v1", {}, b"{}")
        finally:
            await upstream.close()

    asyncio.run(work())


def test_a_name_that_may_be_private_is_called_at_the_address_that_was_looked_up(fake: FakeProvider) -> None:
    looked: list[str] = []

    def look_up(host: str, port: int) -> list[str]:
        looked.append(host)
        return ["127.0.0.1"]

    async def work() -> None:
        upstream = Upstream(look_up)
        target = place(f"http://vllm.internal:{fake.port}", private=True)
        upstream.allow([target])
        try:
            response = await upstream.post(target, "/v1/models", {"authorization": "Bearer x"}, b"{}")
            assert response.status == 200
            await response.json()
        finally:
            await upstream.close()

    asyncio.run(work())
    assert looked == ["vllm.internal"]
    assert fake.received[0].headers["host"] == f"vllm.internal:{fake.port}"


def test_proxies_of_the_environment_see_nothing(fake: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeProvider() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)

        async def work() -> None:
            upstream = Upstream()
            try:
                response = await upstream.post(place(fake.url), "/v1/models", {}, b"{}")
                await response.json()
            finally:
                await upstream.close()

        asyncio.run(work())
        assert len(fake.received) == 1
        assert proxy.received == []


def test_keys_are_found_where_the_reference_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("A_KEY", " sk-1\n")
    (tmp_path / "key").write_text("sk-2\n")
    assert read_key("", home) == ""
    assert read_key("env:A_KEY", home) == "sk-1"
    assert read_key(f"file:{tmp_path}/key", home) == "sk-2"


@pytest.mark.parametrize("content", ["", "  ", "two words", "line\nline", "schlüssel", "tab\there", "nul\0"])
def test_what_is_no_key_is_not_sent(tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text(content)
    with pytest.raises(MissingKey):
        read_key(f"file:{tmp_path}/key", tmp_path / "home")
    if "\0" not in content:
        monkeypatch.setenv("A_KEY", content)
        with pytest.raises(MissingKey):
            read_key("env:A_KEY", tmp_path / "home")


def test_the_data_folders_own_keys_are_no_providers(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "keys").mkdir(parents=True)
    (home / "keys" / "ledger").write_text("secret")
    (tmp_path / "link").symlink_to(home / "keys" / "ledger")
    os.mkfifo(tmp_path / "pipe")
    for path in (
        home / "keys" / "ledger",
        tmp_path / "link",
        tmp_path / "home/../home/keys/ledger",
        tmp_path / "pipe",
        tmp_path / "missing",
        tmp_path,
        Path("/dev/zero"),
    ):
        with pytest.raises(MissingKey) as error:
            read_key(f"file:{path}", home)
        assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "reference", ["sk-live-123", "env:", "env:A-B", "env:A B", "file:key", "file:", "http://x", "ENV:A"]
)
def test_a_reference_of_another_form_is_refused_and_not_repeated(reference: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        check_reference(reference)
    assert len(reference) < 6 or reference not in str(error.value)
