"""Settings: known ones are used, all others are refused by name."""

from pathlib import Path

import pytest

from holdtrue.core.errors import ConfigurationError
from holdtrue.server.settings import capture_of, describe, is_loopback, load_settings

ROOT = Path(__file__).parents[2]


def test_the_command_line_wins_over_variables_and_those_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("port = 7001\nthreads = 3\nhost_names = ['a.example']\n")
    assert load_settings(tmp_path, environ={}).port == 7001
    environ = {"HOLDTRUE_PORT": "7002", "HOLDTRUE_HOST_NAMES": "b.example, c.example", "HOLDTRUE_TOKEN": "x"}
    settings = load_settings(tmp_path, environ=environ)
    assert (settings.port, settings.threads) == (7002, 3)
    assert settings.host_names == ("b.example", "c.example")
    assert load_settings(tmp_path, port=7003, environ=environ).port == 7003
    assert load_settings(environ={"HOLDTRUE_HOME": str(tmp_path)}).home == tmp_path


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("prot = 7700", "prot"),
        ("port = '7700'", "port"),
        ("port = true", "port"),
        ("port = 70000", "port"),
        ("records = 'sometimes'", "records"),
        ("host_names = 'a'", "host_names"),
        ("host_names = [1]", "host_names"),
        ("tls_key = 'key.pem'", "tls_key"),
        ("auth = false", "auth"),
        ("[limits]\nbody = 1", "limits"),
        ("home = '/tmp'", "home"),
        ("public_url = 'holdtrue'", "public_url"),
        ("threads = 0", "threads"),
        ("online_store = 'http://host'", "online_store"),
    ],
)
def test_what_a_file_may_not_say_is_named(tmp_path: Path, text: str, key: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        load_settings(tmp_path, environ={})
    assert refused.value.facts["key"] == key
    assert key in refused.value.what
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HOLDTRUE_PROT", "1"),
        ("HOLDTRUE_PORT", "many"),
        ("HOLDTRUE_NO_AUTH", "1"),
        ("HOLDTRUE_RECORDS", "no"),
    ],
)
def test_what_a_variable_may_not_say_is_named(tmp_path: Path, variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings(tmp_path, environ={variable: value})
    assert variable in refused.value.what


def test_a_misspelt_key_is_corrected(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="HOLDTRUE_THREDS") as refused:
        load_settings(tmp_path, environ={"HOLDTRUE_THREDS": "2"})
    assert refused.value.mend == "Did you mean “HOLDTRUE_THREADS”?"


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "192.168.1.7", "a.example"])  # noqa: S104  # it is refused
def test_a_wide_bind_needs_tls_or_a_declared_proxy(tmp_path: Path, bind: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings(tmp_path, environ={"HOLDTRUE_BIND": bind})
    assert refused.value.facts == {"key": "bind"}
    for more in (
        {"HOLDTRUE_TRUSTED_PROXIES": "10.0.0.1"},
        {"HOLDTRUE_TLS_CERTIFICATE": "c", "HOLDTRUE_TLS_KEY": "k"},
    ):
        assert load_settings(tmp_path, environ={"HOLDTRUE_BIND": bind, **more}).bind == bind


@pytest.mark.parametrize("bind", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_nothing(tmp_path: Path, bind: str) -> None:
    assert load_settings(tmp_path, environ={"HOLDTRUE_BIND": bind}).bind == bind
    assert is_loopback(bind)


def test_addresses_follow_from_the_settings(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, environ={})
    assert (settings.url, settings.data_url) == ("http://127.0.0.1:7700", "http://127.0.0.1:7701")
    assert settings.origin == settings.url
    assert settings.hosts() == {"127.0.0.1:7700", "localhost:7700", "[::1]:7700"}
    public = load_settings(tmp_path, environ={"HOLDTRUE_PUBLIC_URL": "https://Holdtrue.example/"})
    assert public.origin == "https://Holdtrue.example"
    assert public.secure
    assert "holdtrue.example" in public.hosts()


def test_what_is_captured_of_spans_can_be_set_for_single_projects(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, environ={"HOLDTRUE_TRACE_CAPTURES": "support=masked,hr=off"})
    assert [capture_of(each) for each in settings.trace_captures] == [("support", "masked"), ("hr", "off")]
    for wrong in ("support", "=off", "support=some", "support=off=on"):
        with pytest.raises(ConfigurationError, match="trace_captures"):
            load_settings(tmp_path, environ={"HOLDTRUE_TRACE_CAPTURES": wrong})


def test_every_setting_is_documented() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    for key, variable, default, sentence in describe():
        assert f"| `{key}` | `{variable}` |" in text, key
        assert sentence in text, key
        assert f"`{default!r}`" in text or default == "", key
    documented = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")}
    assert documented == {key for key, *_ in describe()}


def test_the_password_of_the_online_store_is_never_shown(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, environ={"HOLDTRUE_ONLINE_STORE": "rediss://me:hidden@cache:6379/1?x=y"})
    assert settings.shown()["online_store"] == "rediss://me@cache:6379/1"
    assert "hidden" not in repr(settings)
    for bad in ("postgresql://:hidden@host", "redis"):
        with pytest.raises(ConfigurationError) as refused:
            load_settings(tmp_path, environ={"HOLDTRUE_ONLINE_STORE": bad})
        assert "hidden" not in str(refused.value)
