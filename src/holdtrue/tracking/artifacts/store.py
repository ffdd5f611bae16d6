"""SQL of artifacts: each name with the digest of its bytes, under the folder it stands in."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from holdtrue.storage.ledger import Transaction, insert, project_table, scoped

# A folder has a row of its own with an empty digest, so that listing reads one range of the key.
artifacts = project_table(
    "artifacts",
    sa.Column("folder", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    clustered=True,
)

uploads = project_table(
    "artifact_uploads",
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("secret", sa.Text, nullable=False),
    sa.Column("parts", sa.Integer, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
)

upload_parts = project_table(
    "artifact_parts",
    sa.Column("upload", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Stored:
    """Hold one entry of a folder: its name there, and its bytes, unless it is a folder itself."""

    name: str
    digest: str
    size: int

    @property
    def is_folder(self) -> bool:
        """Tell whether this is a folder."""
        return not self.digest


@dataclass(frozen=True, slots=True)
class Upload:
    """Hold an upload in parts that is under way."""

    id: str
    path: str
    secret: str
    parts: int


def split(path: str) -> tuple[str, str]:
    """Return folder and name of a path."""
    folder, _, name = path.rpartition("/")
    return folder, name


def put(tx: Transaction, path: str, digest: str, size: int) -> None:
    """Give bytes a name, in place of what had it, and make sure of the folders above."""
    folder, name = split(path)
    statement = insert(artifacts).values(project=tx.project, folder=folder, name=name, digest=digest, size=size)
    tx.execute(
        statement.on_conflict_do_update(
            index_elements=["project", "folder", "name"],
            set_={"digest": statement.excluded.digest, "size": statement.excluded.size},
        )
    )
    while folder:
        folder, name = split(folder)
        made = insert(artifacts).values(project=tx.project, folder=folder, name=name, digest="", size=0)
        if tx.execute(made.on_conflict_do_nothing()).rowcount == 0:
            return


def find(connection: sa.Connection, project: str, path: str) -> Stored | None:
    """Return what has this name, or None."""
    folder, name = split(path)
    query = scoped(artifacts, project).where(artifacts.c.folder == folder, artifacts.c.name == name)
    row = connection.execute(query).first()
    return None if row is None else Stored(row.name, row.digest, row.size)


def entries(connection: sa.Connection, project: str, folder: str, *, after: str = "", limit: int) -> list[Stored]:
    """Return what stands in a folder, by name."""
    query = scoped(artifacts, project).where(artifacts.c.folder == folder, artifacts.c.name > after)
    rows = connection.execute(query.order_by(artifacts.c.name).limit(limit))
    return [Stored(row.name, row.digest, row.size) for row in rows]


def files_below(connection: sa.Connection, project: str, folder: str, limit: int) -> list[tuple[str, Stored]]:
    """Return every file below a folder with its path from there, in order."""
    inside = artifacts.c.folder == folder
    # "0" follows "/" in the order of signs, so this range holds exactly the folders below.
    below = (artifacts.c.folder > f"{folder}/") & (artifacts.c.folder < f"{folder}0")
    query = scoped(artifacts, project).where(sa.or_(inside, below), artifacts.c.digest != "")
    rows = connection.execute(query.order_by(artifacts.c.folder, artifacts.c.name).limit(limit))
    start = len(folder) + 1
    return [(f"{row.folder}/{row.name}"[start:], Stored(row.name, row.digest, row.size)) for row in rows]


def delete_below(tx: Transaction, path: str) -> int:
    """Remove a name and all below it; return how many went."""
    folder, name = split(path)
    below = (artifacts.c.folder == path) | ((artifacts.c.folder > f"{path}/") & (artifacts.c.folder < f"{path}0"))
    own = (artifacts.c.folder == folder) & (artifacts.c.name == name)
    return tx.execute(sa.delete(artifacts).where(artifacts.c.project == tx.project, own | below)).rowcount


def insert_upload(tx: Transaction, row: Upload, created_ms: int) -> None:
    """Begin an upload in parts."""
    tx.execute(
        sa.insert(uploads).values(
            project=tx.project, id=row.id, path=row.path, secret=row.secret, parts=row.parts, created_ms=created_ms
        )
    )


def upload_by_id(connection: sa.Connection, project: str, id: str) -> Upload | None:
    """Return an upload in parts, or None."""
    row = connection.execute(scoped(uploads, project).where(uploads.c.id == id)).first()
    return None if row is None else Upload(row.id, row.path, row.secret, row.parts)


def put_part(tx: Transaction, upload: str, number: int, digest: str, size: int) -> None:
    """Note a part; the same number again takes its place."""
    statement = insert(upload_parts).values(project=tx.project, upload=upload, number=number, digest=digest, size=size)
    tx.execute(
        statement.on_conflict_do_update(
            index_elements=["project", "upload", "number"],
            set_={"digest": statement.excluded.digest, "size": statement.excluded.size},
        )
    )


def parts_of(connection: sa.Connection, project: str, upload: str) -> list[tuple[int, str]]:
    """Return number and digest of the parts that came, in order."""
    query = scoped(upload_parts, project).where(upload_parts.c.upload == upload).order_by(upload_parts.c.number)
    return [(row.number, row.digest) for row in connection.execute(query)]


def end_upload(tx: Transaction, id: str) -> None:
    """Forget an upload in parts."""
    tx.execute(sa.delete(upload_parts).where(upload_parts.c.project == tx.project, upload_parts.c.upload == id))
    tx.execute(sa.delete(uploads).where(uploads.c.project == tx.project, uploads.c.id == id))


def abandoned(connection: sa.Connection, project: str, before_ms: int) -> Sequence[str]:
    """Return uploads that began before a moment and were never finished."""
    query = sa.select(uploads.c.id).where(uploads.c.project == project, uploads.c.created_ms <= before_ms)
    return list(connection.execute(query).scalars())
