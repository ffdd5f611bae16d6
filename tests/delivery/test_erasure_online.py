"""An entity is erased from features that a real server of Redis keeps: done, cut off, and with the server away."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from holdtrue import catalog
from holdtrue.core.actor import SYSTEM
from holdtrue.core.clock import SystemClock
from holdtrue.features import FeatureSet, Latest, Trailing, open_online
from holdtrue.server.build import open_app
from holdtrue.server.settings import load_settings
from holdtrue.storage.ledger import WriteContext
from tests import redisservers
from tests.cli.test_commands import holdtrue
from tests.cli.toys import succeed
from tests.serving.plane_home import free_port

NOW = 1_362_139_200_000_000
ROWS = {"customer": ["17", 17, "18"], "shop": ["17", "17", "17"], "at": [NOW] * 3, "paid": [5.0, 6.0, 7.0]}
BASKETS = Trailing("baskets", "sales", "customer", "at", "paid", ("count",), "24h")
LATER = Latest("later", "sales", "customer", "at", ("paid",), "7d")
SHOPS = Trailing("shops", "sales", "shop", "at", "paid", ("count",), "24h")
ASKED = ("data", "erase", "customer=17", "--reason", "request 17", "--project", "tails")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder whose project has released two views; a third is only filled."""
    home = tmp_path / ".holdtrue"
    home.mkdir(mode=0o700)
    content = FeatureSet((BASKETS, SHOPS), (), {}).to_json()
    built = open_app(load_settings(home))
    try:
        stores = built.app.stores
        stores.ledger.write(
            WriteContext(SYSTEM, "tails"), lambda tx: catalog.register(tx, "feature_view", "sales", content)
        )
    finally:
        built.close()
    return tmp_path


@pytest.fixture
def address(redis_address: str) -> Iterator[str]:
    yield redis_address
    import redis

    with closing(redis.Redis.from_url(redis_address)) as client:
        client.flushdb()


def fill(folder: Path, address: str) -> None:
    """Keep rows of three customers and a shop, and one view that no release has."""
    (folder / ".holdtrue" / "online" / "tails").mkdir(mode=0o700, parents=True, exist_ok=True)
    with closing(open_online(folder / ".holdtrue" / "online", "tails", address)) as store:
        store.ingest([BASKETS, SHOPS, LATER], "sales", ROWS)
        store.take([], notes=store.declared(LATER))


def known(folder: Path, address: str) -> list[float]:
    """Return what is known of the customers “17”, 17 and “18”, by two views, and of the shop."""
    with closing(open_online(folder / ".holdtrue" / "online", "tails", address)) as store:
        customers = {"customer": ["17", 17, "18"]}
        counts = store.lookup([BASKETS], customers, [NOW] * 3)["baskets_count"].tolist()
        paid = store.lookup([LATER], customers, [NOW] * 3)["later_paid"].tolist()
        shop = store.lookup([SHOPS], {"shop": ["17"]}, [NOW])["shops_count"].tolist()
    return [*counts, *(0.0 if each != each else each for each in paid), *shop]


BEFORE, AFTER = [1.0, 1.0, 1.0, 5.0, 6.0, 7.0, 3.0], [0.0, 0.0, 1.0, 0.0, 0.0, 7.0, 3.0]


def test_it_is_removed_from_the_server_and_from_the_file_before_it(folder: Path, address: str) -> None:
    for each in ("", address):
        fill(folder, each)
        assert known(folder, each) == BEFORE
    found = json.loads(succeed(*ASKED, "--json", cwd=folder, HOLDTRUE_ONLINE_STORE=address))
    assert (found["state"], found["remaining"]) == ("done", [])
    assert found["found"]["online"] == {"keys": 8, "file": 4, "server": 4}
    assert known(folder, address) == known(folder, "") == AFTER
    told = succeed("activity", "--json", "--project", "tails", cwd=folder)
    done = [each["payload"]["online"] for each in json.loads(told) if each["action"] == "erasure.done"]
    assert done == [{"keys": 8, "file": 4, "server": 4}]
    assert json.loads(succeed(*ASKED, "--json", cwd=folder, HOLDTRUE_ONLINE_STORE=address)) == found


def test_with_the_server_away_it_says_what_is_not_done_and_goes_on_later(folder: Path) -> None:
    with redisservers.running() as address:
        fill(folder, address)
        away = f"redis://127.0.0.1:{free_port()}/0"
        refused = holdtrue(*ASKED, cwd=folder, HOLDTRUE_ONLINE_STORE=away)
        assert refused.returncode == 1
        assert "is not done: the online store cannot be reached, and may hold the entity" in refused.stderr
        assert "Done: live, cases, said, records, datasets. Not done: online, ledger, cached, left." in refused.stderr
        assert "give the same command again" in refused.stderr
        (listed,) = json.loads(succeed("data", "erasures", "--json", "--project", "tails", cwd=folder))
        assert (listed["state"], listed["remaining"][0]) == ("open", "online")
        assert known(folder, address) == BEFORE
        found = json.loads(succeed(*ASKED, "--json", cwd=folder, HOLDTRUE_ONLINE_STORE=address))
        assert (found["id"], found["state"]) == (listed["id"], "done")
        assert known(folder, address) == AFTER


def test_killed_while_the_server_is_asked_it_goes_on(folder: Path) -> None:
    import redis

    with redisservers.running() as address:
        fill(folder, address)
        with closing(redis.Redis.from_url(address)) as client:
            server = int(client.info("server")["process_id"])
        os.kill(server, signal.SIGSTOP)
        try:
            environment = {**os.environ, "HOLDTRUE_ONLINE_STORE": address, "HOME": str(folder)}
            process = subprocess.Popen([sys.executable, "-m", "holdtrue", *ASKED], cwd=folder, env=environment)
            # What comes before the online store is noted when it is done: from then on the server is waited for.
            until_noted(folder, process)
            process.kill()
            process.wait()
        finally:
            os.kill(server, signal.SIGCONT)
        found = json.loads(succeed(*ASKED, "--json", cwd=folder, HOLDTRUE_ONLINE_STORE=address))
        assert found["state"] == "done"
        assert known(folder, address) == AFTER


def until_noted(folder: Path, process: "subprocess.Popen[bytes]") -> None:
    end = SystemClock().monotonic() + 30
    with closing(sqlite3.connect(f"file:{folder}/.holdtrue/ledger.db?mode=ro", uri=True)) as connection:
        while True:
            assert process.poll() is None, "it ended by itself"
            assert SystemClock().monotonic() < end, "it did not come so far"
            rows = connection.execute("SELECT found FROM erasures").fetchall()
            if rows and "records" in json.loads(rows[0][0]):
                return
            time.sleep(0.02)
