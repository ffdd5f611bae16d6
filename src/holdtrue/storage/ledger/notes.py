"""Signed notes and tree heads in the formats of C2SP (signed-note, tlog-checkpoint)."""

import base64
import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from holdtrue.core.errors import ConfigurationError, Corrupt
from holdtrue.storage.files import write_atomic

_ED25519 = b"\x01"
_SECRET = "PRIVATE+KEY+"  # noqa: S105  # the format's own marker


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State a tree's size in entries and its root, 32 bytes."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return the body of the note: origin, size, and root in base64, a line each."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the body of a note; anything else than `text()` writes raises Corrupt."""
        lines = text.split("\n")
        try:
            origin, size, root = lines[:3]
            checkpoint = cls(origin, int(size), base64.b64decode(root, validate=True))
        except ValueError:
            raise Corrupt("A checkpoint of the ledger cannot be read.", mend=_RESTORE) from None
        if checkpoint.text() != text or len(checkpoint.root) != 32:
            raise Corrupt("A checkpoint of the ledger cannot be read.", mend=_RESTORE)
        return checkpoint


_RESTORE = "Run `holdtrue audit verify`, and restore the newest backup that it accepts."


def key_id(name: str, public: bytes) -> bytes:
    """Return the first 4 bytes of SHA-256(name ‖ 0x0A ‖ 0x01 ‖ key) (C2SP signed-note)."""
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:4]


@dataclass(frozen=True, slots=True)
class Signer:
    """Sign checkpoints with one named Ed25519 key."""

    name: str
    key: Ed25519PrivateKey

    @property
    def public(self) -> bytes:
        """Return the 32 bytes of the public key."""
        return self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def verifier_key(self) -> str:
        """Return the public key as C2SP text: name, key id, and algorithm with key."""
        return f"{self.name}+{key_id(self.name, self.public).hex()}+{_b64(_ED25519 + self.public)}"

    def secret_text(self) -> str:
        """Return the private key as C2SP text, as it stands in the key file."""
        secret = self.key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        return f"{_SECRET}{self.name}+{key_id(self.name, self.public).hex()}+{_b64(_ED25519 + secret)}"

    def sign(self, size: int, root: bytes) -> str:
        """Return the signed note of the tree with `size` entries and this root."""
        body = Checkpoint(self.name, size, root).text()
        signature = self.key.sign(body.encode())
        return f"{body}\n— {self.name} {_b64(key_id(self.name, self.public) + signature)}\n"

    def open(self, note: str) -> Checkpoint:
        """Return the checkpoint in `note`; a note this key did not sign raises Corrupt."""
        body, separator, line = note.partition("\n\n")
        prefix = f"— {self.name} "
        if not (separator and line.startswith(prefix) and line.endswith("\n")):
            raise _foreign(self.name)
        try:
            blob = base64.b64decode(line[len(prefix) : -1], validate=True)
            if blob[:4] != key_id(self.name, self.public):
                raise _foreign(self.name)
            Ed25519PublicKey.from_public_bytes(self.public).verify(blob[4:], (body + "\n").encode())
        except (ValueError, InvalidSignature):
            raise _foreign(self.name) from None
        return Checkpoint.parse(body + "\n")

    @classmethod
    def new(cls) -> Self:
        """Make a key with a name of its own, so that two ledgers never look like one."""
        return cls(f"holdtrue-ledger-{secrets.token_hex(8)}", Ed25519PrivateKey.generate())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `secret_text` wrote; anything else raises ValueError."""
        if not text.startswith(_SECRET):
            raise ValueError("not a private key in C2SP form")
        name, _, encoded = text.strip().removeprefix(_SECRET).split("+", 2)
        raw = base64.b64decode(encoded, validate=True)
        if raw[:1] != _ED25519:
            raise ValueError("not an Ed25519 key")
        signer = cls(name, Ed25519PrivateKey.from_private_bytes(raw[1:]))
        if signer.secret_text() != text.strip():
            raise ValueError("the key and its id do not agree")
        return signer


def _foreign(name: str) -> Corrupt:
    return Corrupt(
        "The newest checkpoint of the ledger is not signed by the key of this data folder.",
        why=f"The key file names “{name}”.",
        mend="Put back the file keys/ledger.key that belongs to this ledger (it is part of each backup).",
    )


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def load_signer(keys: Path, *, fresh: bool) -> Signer:
    """Read the signing key in `keys`; make it (0600) when the ledger is `fresh` and has none.

    A missing key of a ledger with history and a damaged key file raise ConfigurationError.
    """
    path = keys / "ledger.key"
    if path.exists():
        try:
            return Signer.parse(path.read_text("utf-8"))
        except ValueError as error:
            raise ConfigurationError(
                f"The key file {path} cannot be read.",
                why=f"{error}.",
                mend="Put back the file from a backup.",
            ) from None
    if not fresh:
        raise ConfigurationError(
            f"The key file {path} is missing.",
            why="This ledger has history that was signed with it.",
            mend="Put back the file from a backup.",
        )
    keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    signer = Signer.new()
    write_atomic(keys / "ledger.pub", f"{signer.verifier_key}\n".encode())
    write_atomic(path, f"{signer.secret_text()}\n".encode())
    return signer
