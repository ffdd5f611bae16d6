"""What a person may set: one flat list, read from `config.toml` and from HOLDTRUE_* variables.

Only the standard library is used here: `holdtrue up` reads the settings before it starts anything.
"""

import ipaddress
import os
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from holdtrue.core.errors import ConfigurationError

if TYPE_CHECKING:
    import ssl

PREFIX = "HOLDTRUE_"
_WORDS: Mapping[Any, str] = types.MappingProxyType({int: "a whole number", float: "a number", str: "text"})
# These tell commands what is meant (project, file, server, credential), and set nothing in a server.
CLIENT_VARIABLES = ("HOLDTRUE_FILE", "HOLDTRUE_PROJECT", "HOLDTRUE_TOKEN", "HOLDTRUE_URL")


def _help(text: str, default: Any) -> Any:
    """Give a setting its default and the sentence that `doctor` and the documentation show."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True)
class Settings:
    """Hold every setting of the three processes, checked.

    `home` is where everything is kept; it comes from the command line or HOLDTRUE_HOME, never from the file
    in it.
    """

    home: Path
    port: int = _help(
        "Port of pages and API; the data plane listens on the next one, artifacts have the one after.", 7700
    )
    bind: str = _help("Address to listen on. An address other than loopback needs TLS or a trusted proxy.", "127.0.0.1")
    public_url: str = _help("Address under which browsers reach the pages, when it is not http://<bind>:<port>.", "")
    host_names: tuple[str, ...] = _help("Further host names that requests may be addressed to.", ())
    trusted_proxies: tuple[str, ...] = _help(
        "Addresses of the reverse proxies that end TLS in front of this server.", ()
    )
    tls_certificate: str = _help("PEM file of the server's certificate chain.", "")
    tls_key: str = _help("PEM file of the certificate's private key.", "")
    records: Literal["strict", "fast"] = _help(
        "When a prediction is answered: after its record is on disk (strict), "
        "or before, with at most one second of records at risk (fast).",
        "strict",
    )
    data_workers: int = _help("Number of processes that answer predictions.", 1)
    result_seconds: float = _help("Seconds for which the result of a request that is answered later is kept.", 86_400.0)
    data_requests: int = _help(
        "Number of predictions, labels and events under way at the same time in one process of the data plane; more "
        "are answered 503.",
        256,
    )
    grpc_port: int = _help(
        "Port on which the data plane answers the Open Inference Protocol over gRPC; 0 for none. Needs the extra grpc.",
        0,
    )
    model_code: Literal["refused", "isolated"] = _help(
        "Whether releases whose model is code (a class in Python, PyTorch) are served: never (refused), or each in a "
        "confined process of its own (isolated).",
        "refused",
    )
    model_memory: int = _help(
        "Memory in MiB that models may take in one process of the data plane. Releases that answer for services stay; "
        "of those that are loaded because a request names them, the one asked for longest ago goes.",
        1024,
    )
    body_limit: int = _help("Largest request body the API takes, in bytes.", 1_048_576)
    artifact_limit: int = _help("Largest artifact that may be stored, in bytes.", 10_737_418_240)
    request_seconds: float = _help(
        "Seconds after which a request that is not done is answered 503 by pages and API, 408 by the data plane.", 30.0
    )
    threads: int = _help("Number of requests handled at the same time.", 8)
    queue: int = _help("Number of requests that may wait for a thread; more are answered 503.", 256)
    background_seconds: float = _help(
        "Seconds between two rounds of background work: monitors, rollouts, retraining, sealing.", 5.0
    )
    database: str = field(
        default="",
        repr=False,
        metadata={
            "help": "PostgreSQL database of the ledger, as postgresql://user:password@host:5432/name; empty for a "
            "file in the data folder. The password is never shown.",
            "secret": True,
        },
    )
    online_store: str = field(
        default="",
        repr=False,
        metadata={
            "help": "Server of Redis or Valkey that keeps online features, as redis://user:password@host:6379/0 or "
            "rediss://…; empty for a file in the data folder. The password is never shown.",
            "secret": True,
        },
    )
    anchor_file: str = _help(
        "File outside the data folder to which every signed checkpoint of the event log is appended.", ""
    )
    trace_capture: Literal["full", "masked", "off"] = _help(
        "What is kept of prompts and answers in spans: all (full), all but personal data (masked), nothing (off). "
        "Credentials are never kept.",
        "full",
    )
    trace_captures: tuple[str, ...] = _help(
        "The same for single projects, each written as project=full, project=masked or project=off.", ()
    )
    outbound_hosts: tuple[str, ...] = _help(
        "Hosts with private addresses that this server may call; public ones need no entry.", ()
    )
    outbound_ports: tuple[int, ...] = _help("Ports that this server may call.", (443,))

    @property
    def url(self) -> str:
        """Return the address of pages and API on this machine."""
        return f"{self.scheme}://{_bracketed(self._reachable)}:{self.port}"

    @property
    def data_url(self) -> str:
        """Return the address of the data plane on this machine."""
        return f"{self.scheme}://{_bracketed(self._reachable)}:{self.port + 1}"

    @property
    def origin(self) -> str:
        """Return the origin that browsers see: scheme, host and port."""
        return (self.public_url or self.url).rstrip("/")

    @property
    def scheme(self) -> str:
        """Return `https` where this server ends TLS itself, else `http`."""
        return "https" if self.tls_certificate else "http"

    @property
    def secure(self) -> bool:
        """Tell whether browsers reach the pages through TLS."""
        return self.origin.startswith("https://")

    @property
    def _reachable(self) -> str:
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.bind, self.bind)  # noqa: S104  # a comparison

    def shown(self) -> dict[str, Any]:
        """Return every setting as people may see it: of addresses of stores no password and no option."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return values | {
            "database": _without_secret(self.database),
            "online_store": _without_secret(self.online_store, self.online_store.partition(":")[0]),
        }

    def names(self) -> frozenset[str]:
        """Return the names that this machine is addressed by in a Host header, in lower case and without a port.

        The address by which programs on this machine reach a server that listens everywhere is one of them.
        """
        names = {self.bind, self._reachable, *self.host_names}
        if is_loopback(self.bind):
            names |= {"127.0.0.1", "localhost", "::1"}
        return frozenset(_bracketed(name).lower() for name in names)

    def hosts(self) -> frozenset[str]:
        """Return every value of the Host header that pages and API answer, in lower case."""
        allowed = {f"{name}:{self.port}" for name in self.names()}
        if self.port in (80, 443):
            allowed |= self.names()
        if self.public_url:
            allowed.add(urlsplit(self.public_url).netloc.lower())
        return frozenset(allowed)


def load_settings(
    home: Path | str | None = None,
    *,
    port: int | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Return the settings: command line before HOLDTRUE_* variables, those before `config.toml` in `home`.

    A key or variable that is unknown, or has a value of another kind, raises ConfigurationError naming it.
    """
    variables = os.environ if environ is None else environ
    folder = Path(home or variables.get("HOLDTRUE_HOME") or ".holdtrue").absolute()
    values = _file_values(folder / "config.toml") | _variable_values(variables)
    if port is not None:
        values["port"] = port
    settings = Settings(home=folder, **values)
    _check(settings)
    return settings


def describe() -> tuple[tuple[str, str, Any, str], ...]:
    """Return (key, variable, default, sentence) of every setting, in order of declaration."""
    return tuple(
        (item.name, PREFIX + item.name.upper(), item.default, str(item.metadata["help"]))
        for item in fields(Settings)
        if item.name != "home"
    )


def own_trust(settings: Settings) -> "ssl.SSLContext | None":
    """Return a context that trusts this server by its certificate alone, None where it speaks plain HTTP.

    Programs on this machine reach the server by its address, while the certificate names the public host.
    """
    if not settings.tls_certificate:
        return None
    import ssl

    context = ssl.create_default_context(cafile=settings.tls_certificate)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def capture_of(text: str) -> tuple[str, str]:
    """Read one entry of trace_captures, “project=mode”; raise ConfigurationError for another form."""
    project, mark, mode = text.partition("=")
    if not mark or not project or mode not in ("full", "masked", "off"):
        raise ConfigurationError(
            f"The setting “trace_captures” has an entry that cannot be used: {text[:80]!r}.",
            why="An entry is written project=full, project=masked or project=off.",
            mend="Correct the entry, or remove it to use trace_capture.",
            facts={"key": "trace_captures"},
        )
    return project, mode


def is_loopback(address: str) -> bool:
    """Tell whether `address` only reaches this machine."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _without_secret(url: str, scheme: str = "postgresql") -> str:
    """Return the address of a store without password and options; nothing of one that cannot be read."""
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        user, host, port = parts.username, parts.hostname or "", parts.port
    except ValueError:
        return "(cannot be read)"
    before = f"{user}@" if user else ""
    return f"{scheme}://{before}{_bracketed(host)}{f':{port}' if port else ''}{parts.path}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _types() -> dict[str, Any]:
    hints = typing.get_type_hints(Settings)
    return {item.name: hints[item.name] for item in fields(Settings) if item.name != "home"}


def _file_values(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    import tomllib

    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(
            "config.toml is not TOML.", why=str(error), mend="Correct that line of the file."
        ) from error
    known = _types()
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in known:
            raise _unknown(f"the key “{key}” in config.toml", key, list(known))
        values[key] = _fit(known[key], value, f"the key “{key}” in config.toml", key)
    return values


def _variable_values(environ: Mapping[str, str]) -> dict[str, Any]:
    given = {name: text for name, text in environ.items() if name.startswith(PREFIX)}
    for name in ("HOLDTRUE_HOME", *CLIENT_VARIABLES):
        given.pop(name, None)
    known = _types() if given else {}
    names = {PREFIX + key.upper(): key for key in known}
    values: dict[str, Any] = {}
    for variable, text in given.items():
        if variable not in names:
            raise _unknown(f"the variable {variable}", variable, [*names, "HOLDTRUE_HOME", *CLIENT_VARIABLES])
        key = names[variable]
        values[key] = _fit(known[key], _parse(known[key], text), f"the variable {variable}", variable)
    return values


def _parse(kind: Any, text: str) -> Any:
    """Read a variable's text as the kind its setting has; what cannot be read stays text."""
    items = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        return [_parse(items[0], part.strip()) for part in text.split(",") if part.strip()]
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return text
    return text


def _fit(kind: Any, value: Any, where: str, key: str) -> Any:
    """Return `value` if it is of `kind`, else raise ConfigurationError naming where it stands."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and isinstance(value, list):
        return tuple(_fit(arguments[0], item, where, key) for item in typing.cast("list[Any]", value))
    if origin is Literal:
        if value in arguments:
            return value
        wanted = " or ".join(f"“{choice}”" for choice in arguments)
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(kind, type) and not isinstance(kind, types.GenericAlias) and type(value) is kind:
        return value
    else:
        wanted = _WORDS.get(kind, "a list")
    raise ConfigurationError(
        f"{where[0].upper()}{where[1:]} has a value that cannot be used: {value!r}."
        if not any(secret in key.lower() for secret in ("database", "online_store"))
        else f"{where[0].upper()}{where[1:]} has a value that cannot be used.",
        why=f"It must be {wanted}.",
        mend="Correct the value, or remove it to use the default.",
        facts={"key": key},
    )


def _unknown(where: str, key: str, known: list[str]) -> ConfigurationError:
    import difflib

    close = difflib.get_close_matches(key, known, n=1)
    return ConfigurationError(
        f"Holdtrue does not know {where}.",
        why="A setting that is not understood would be ignored silently.",
        mend=f"Did you mean “{close[0]}”?" if close else "Remove it, or look it up in docs/configuration.md.",
        facts={"key": key},
    )


def _bounds(settings: Settings) -> tuple[tuple[str, bool, str], ...]:
    """Return the settings that have bounds, whether they keep them, and what these are."""
    return (
        ("port", 0 <= settings.port <= 65533, "between 0 and 65533; two more ports follow it"),
        ("data_workers", 1 <= settings.data_workers <= 64, "between 1 and 64"),
        (
            "grpc_port",
            0 <= settings.grpc_port <= 65535
            and (not settings.grpc_port or not 0 <= settings.grpc_port - settings.port <= 2),
            "between 0 and 65535, and none of the three ports that begin with “port”",
        ),
        ("model_memory", settings.model_memory >= 1, "1 or more"),
        ("data_requests", settings.data_requests >= 1, "1 or more"),
        ("result_seconds", 1 <= settings.result_seconds <= 31_536_000, "from 1 to 31,536,000, a year"),
        ("threads", 1 <= settings.threads <= 256, "between 1 and 256"),
        ("queue", settings.queue >= 1, "1 or more"),
        ("body_limit", 1024 <= settings.body_limit <= 64 << 20, "between 1024 and 67108864"),
        ("artifact_limit", settings.artifact_limit >= 1024, "1024 or more"),
        ("request_seconds", settings.request_seconds > 0, "more than 0"),
        ("background_seconds", settings.background_seconds >= 0.1, "0.1 or more"),
        (
            "tls_key",
            bool(settings.tls_key) == bool(settings.tls_certificate),
            "set together with tls_certificate",
        ),
    )


def _check(settings: Settings) -> None:
    """Refuse combinations that no process may run with."""
    for key, holds, wanted in _bounds(settings):
        if not holds:
            raise ConfigurationError(
                f"The setting “{key}” has a value that cannot be used: {getattr(settings, key)!r}.",
                why=f"It must be {wanted}.",
                mend="Correct the value, or remove it to use the default.",
                facts={"key": key},
            )
    for entry in settings.trace_captures:
        capture_of(entry)
    if settings.database and not settings.database.startswith(("postgresql://", "postgres://")):
        raise ConfigurationError(
            "The setting “database” is not the address of a PostgreSQL database.",
            why="It is not shown, since there may be a password in it.",
            mend="Write it like postgresql://user:password@host:5432/name, or remove it to use a file.",
            facts={"key": "database"},
        )
    if settings.online_store and not settings.online_store.startswith(("redis://", "rediss://")):
        raise ConfigurationError(
            "The setting “online_store” is not the address of a server of Redis or Valkey.",
            why="It is not shown, since there may be a password in it.",
            mend="Write it like redis://user:password@host:6379/0, or remove it to use a file.",
            facts={"key": "online_store"},
        )
    if settings.public_url and urlsplit(settings.public_url).scheme not in ("http", "https"):
        raise ConfigurationError(
            f"The setting “public_url” is not a web address: {settings.public_url!r}.",
            mend="Write it like https://holdtrue.example.",
            facts={"key": "public_url"},
        )
    if not is_loopback(settings.bind) and not settings.tls_certificate and not settings.trusted_proxies:
        raise ConfigurationError(
            f"Listening on {settings.bind} without TLS is refused.",
            why="Tokens would cross the network readable by everybody on it.",
            mend="Set tls_certificate and tls_key, or name the proxy that ends TLS in trusted_proxies, "
            "or listen on 127.0.0.1.",
            facts={"key": "bind"},
        )
