"""Experiment tracking with both ledgers in the same PostgreSQL: ours and MLflow's, one worker, a database each.

The server is the one that the tests use, in a temporary folder on the disk, with its own durable settings
(`fsync`, `synchronous_commit`). Both sides get the same requests, turn by turn, as in the topic `tracking`.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psycopg

from bench.tracking import (
    PEER,
    SMALL,
    compare,
    lay_ours,
    peer,
    served_ours,
    served_theirs,
    their_rows,
)
from holdtrue.server.table import room_routes
from tests.clusters import Cluster, running

NOTES = """
Ours and MLflow on one PostgreSQL on the same disk, a database each; both databases were analysed. The experiment that
is searched has 10⁴ runs here.
"""


def run() -> list[dict[str, Any]]:
    """Measure and return the rows of the table of benchmarks."""
    room_routes()
    wanted = peer("psycopg2-binary")
    with (
        tempfile.TemporaryDirectory(prefix="holdtrue-bench-") as folder,
        running(Path(tempfile.gettempdir()), fsync="on", shared_buffers="128MB") as cluster,
    ):
        root, mine = Path(folder), cluster.database()
        lay_ours(root / "home", mine, SMALL)
        cluster.execute("ANALYZE", mine.rpartition("/")[2])
        with served_ours(root / "home", HOLDTRUE_DATABASE=mine) as (ours, _):
            if not wanted:
                return compare(root, ours, None, "postgresql", "10⁴")
            theirs_at = _peers_database(cluster)
            _lay_theirs(cluster, theirs_at)
            with served_theirs(root, _as_mlflow(theirs_at)) as (theirs, _):
                return compare(root, ours, theirs, "postgresql", "10⁴")


def _peers_database(cluster: Cluster) -> str:
    """Make MLflow a database and a role without signs that have to be escaped: its migrations read “%” in an address
    as the beginning of a variable.
    """
    cluster.execute("CREATE ROLE peer LOGIN SUPERUSER PASSWORD 'peer'")
    return f"postgresql://peer:peer@127.0.0.1:{cluster.port}/{cluster.database().rpartition('/')[2]}"


def _as_mlflow(url: str) -> str:
    """Name the driver that is installed with the peer: SQLAlchemy 2.1 would take another by itself."""
    return url.replace("postgresql://", "postgresql+psycopg2://", 1)


def _lay_theirs(cluster: Cluster, url: str) -> None:
    """Let MLflow make its schema, then insert the same runs into its tables."""
    upgrade = [str(PEER / "bin" / "mlflow"), "db", "upgrade", _as_mlflow(url)]
    subprocess.run(upgrade, check=True, capture_output=True)
    with psycopg.connect(url) as database, database.cursor() as cursor:
        cursor.execute(
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, creation_time, "
            "last_update_time) VALUES (0, 'Default', 'mlflow-artifacts:/0', 'active', 0, 0), "
            "(1, 'large', 'mlflow-artifacts:/1', 'active', 0, 0), (2, 'small', 'mlflow-artifacts:/2', 'active', 0, 0)"
        )
        for experiment in (1, 2):
            runs, metrics, params = their_rows(experiment, SMALL)
            cursor.executemany(
                "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, "
                "start_time, lifecycle_stage, artifact_uri, experiment_id, source_version) "
                "VALUES (%s, 'r', 'UNKNOWN', '', '', 'bench', 'RUNNING', %s, 'active', %s, %s, '')",
                runs,
            )
            for statement in (
                "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) "
                "VALUES (%s, %s, 1, 0, false, %s)",
                "INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (%s, %s, 1, 0, false, %s)",
            ):
                cursor.executemany(statement, metrics)
            cursor.executemany("INSERT INTO params (key, value, run_uuid) VALUES (%s, %s, %s)", params)
            cursor.executemany(
                "INSERT INTO tags (key, value, run_uuid) VALUES ('mlflow.runName', 'r', %s)",
                [(row[0],) for row in runs],
            )
    cluster.execute("ANALYZE", url.rpartition("/")[2])


if __name__ == "__main__":
    print(run())
    sys.exit(0)
