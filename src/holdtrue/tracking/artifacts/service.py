"""Use cases of artifacts: keep, list, read, delete; and uploads in parts, each part under a secret of its own."""

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator, Sequence

import sqlalchemy as sa

from holdtrue.core.errors import Forbidden, InvalidInput, NotFound
from holdtrue.storage.blobs import BlobStore
from holdtrue.storage.ledger import Transaction
from holdtrue.tracking import rules
from holdtrue.tracking.artifacts import store
from holdtrue.tracking.artifacts.store import Stored, Upload

MOST_PARTS = 10_000
MOST_FILES = 100_000
_CHUNK = 1 << 20


class NoArtifact(NotFound):
    """No artifact has this path."""

    code = "no_artifact"

    @classmethod
    def at(cls, path: str) -> "NoArtifact":
        """Name the path."""
        return cls(f"No such artifact: '{path[:300]}'", mend="List the artifacts of the run.")


async def receive(blobs: BlobStore, stream: AsyncIterator[bytes]) -> tuple[str, int]:
    """Store the bytes of a stream and return their digest and number; a stream cut short leaves nothing."""
    with blobs.receive() as receiver:
        async for chunk in stream:
            receiver.write(chunk)
        # Syncing a large file takes long; the loop serves others meanwhile.
        return await asyncio.to_thread(receiver.commit), receiver.size


def keep(tx: Transaction, path: str, digest: str, size: int) -> None:
    """Give stored bytes the name `path`."""
    rules.artifact_path(path)
    above = path
    while "/" in above:
        above = above.rpartition("/")[0]
        known = store.find(tx.connection, tx.project, above)
        if known is not None and not known.is_folder:
            raise InvalidInput(f"'{above}' is a file, so nothing stands below it.", mend="Choose another path.")
        if known is not None:
            break
    here = store.find(tx.connection, tx.project, path)
    if here is not None and here.is_folder:
        raise InvalidInput(f"'{path}' is a folder.", mend="Choose another path.")
    store.put(tx, path, digest, size)


def need(connection: sa.Connection, project: str, path: str) -> Stored:
    """Return a stored file; raise NoArtifact."""
    found = store.find(connection, project, rules.artifact_path(path))
    if found is None or found.is_folder:
        raise NoArtifact.at(path)
    return found


def entries(
    connection: sa.Connection, project: str, folder: str, *, after: str = "", limit: int = 10_000
) -> list[Stored]:
    """Return what stands in a folder; nothing does in a file, by which clients tell them apart."""
    if folder:
        rules.artifact_path(folder)
    return store.entries(connection, project, folder, after=after, limit=limit)


def files_below(
    connection: sa.Connection, project: str, folder: str, *, limit: int = MOST_FILES
) -> list[tuple[str, Stored]]:
    """Return every file below a folder, with its path from there."""
    return store.files_below(connection, project, folder, limit)


def delete(tx: Transaction, path: str) -> int:
    """Remove a name and all below it; the bytes go when nothing names them any more."""
    gone = store.delete_below(tx, rules.artifact_path(path))
    if gone:
        tx.emit("artifact.deleted", f"artifact:{path}", {"entries": gone})
    return gone


def begin_upload(tx: Transaction, path: str, parts: int, secret: str) -> Upload:
    """Begin an upload in parts of the file `path`."""
    rules.artifact_path(path)
    if not 1 <= parts <= MOST_PARTS:
        raise InvalidInput(f"An upload has 1 to {MOST_PARTS} parts, not {parts}.")
    row = Upload(secrets.token_hex(16), path, _digest(secret), parts)
    store.insert_upload(tx, row, int(tx.now.timestamp() * 1000))
    return row


def check_secret(connection: sa.Connection, project: str, upload: str, secret: str, number: int) -> Upload:
    """Return the upload to which this secret lets its holder add part `number`; raise Forbidden for any other."""
    found = store.upload_by_id(connection, project, upload)
    if found is None or not hmac.compare_digest(found.secret, _digest(secret)) or not 1 <= number <= found.parts:
        raise Forbidden("This address takes no part of an upload.", mend="Begin the upload again.")
    return found


def need_upload(connection: sa.Connection, project: str, id: str, path: str) -> Upload:
    """Return an upload of `path` that is under way; raise NotFound."""
    found = store.upload_by_id(connection, project, id)
    if found is None or found.path != path:
        raise NotFound(f"No upload {id[:64]} of '{path[:300]}' is under way.", mend="Begin the upload again.")
    return found


def join_parts(
    blobs: BlobStore, parts: Sequence[tuple[int, str]], wanted: Sequence[tuple[int, str]]
) -> tuple[str, int]:
    """Put the parts of an upload together and return the digest and size of the whole.

    `wanted` are the numbers and digests that the client believes it sent.
    """
    known = dict(parts)
    numbers = [number for number, _ in wanted]
    if not wanted or numbers != sorted(set(numbers)):
        raise InvalidInput("The parts of an upload are named once each, in order.")
    for number, digest in wanted:
        if known.get(number) != digest:
            raise InvalidInput(
                f"Part {number} of the upload is not what was sent.", mend="Send that part again, then complete."
            )
    with blobs.receive() as receiver:
        for _, digest in wanted:
            with blobs.path(digest).open("rb") as file:
                while chunk := file.read(_CHUNK):
                    receiver.write(chunk)
        return receiver.commit(), receiver.size


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
