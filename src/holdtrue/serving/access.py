"""Who may use the data plane: a table of token digests that the control plane publishes."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from holdtrue.core.errors import InvalidInput


class BadAccessFile(InvalidInput):
    """The access file is not what the control plane writes."""

    code = "bad_access_file"


@dataclass(frozen=True, slots=True)
class Grant:
    """Say what one token may do; `expires_at` is in microseconds since the epoch, None for never.

    `environment` is the only one that it may ask, and `rate` how many requests a second it may send; None: any.
    """

    token: str
    actor: str
    project: str | None
    permissions: frozenset[str]
    expires_at: int | None
    digest: bytes
    environment: str | None = None
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class AccessTable:
    """Map the SHA-256 of a whole credential to its grant, for one version of the policy."""

    policy_version: int = -1
    grants: Mapping[bytes, Grant] = field(default_factory=dict[bytes, Grant])

    def check(self, credential: bytes) -> Grant | None:
        """Return the grant of a credential, or None if it is unknown."""
        digest = hashlib.sha256(credential).digest()
        grant = self.grants.get(digest)
        # The look-up goes by digests, which an attacker cannot steer; what decides takes constant time.
        if grant is None or not hmac.compare_digest(grant.digest, digest):
            return None
        return grant

    def at(self, now_us: int) -> "AccessTable":
        """Return the table without the grants that have expired by then (itself if none has)."""
        live = {
            digest: grant
            for digest, grant in self.grants.items()
            if grant.expires_at is None or grant.expires_at > now_us
        }
        return self if len(live) == len(self.grants) else AccessTable(self.policy_version, live)


def read_access(path: Path) -> AccessTable:
    """Return the access table at `path`; raise BadAccessFile if it cannot be understood."""
    try:
        data = orjson.loads(path.read_bytes())
        grants: dict[bytes, Grant] = {}
        for token, entry in data["tokens"].items():
            grant = _grant(token, entry)
            grants[grant.digest] = grant
        return AccessTable(int(data["policy_version"]), grants)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadAccessFile(
            "The access file cannot be read.",
            why=f"{type(error).__name__}: {error}",
            mend="The control plane writes it at its start and at every change of a token; restart it.",
        ) from None


def _grant(token: str, entry: Mapping[str, object]) -> Grant:
    digest, actor, project = entry["sha256"], entry["actor"], entry["project"]
    permissions, expires_at = entry["permissions"], entry.get("expires_at")
    if not (isinstance(digest, str) and isinstance(actor, str) and isinstance(permissions, list)):
        raise TypeError(f"token {token} has fields of the wrong type")
    environment, rate = entry.get("environment"), entry.get("rate")
    if not isinstance(project, str | None) or not isinstance(expires_at, int | None):
        raise TypeError(f"token {token} has fields of the wrong type")
    if not isinstance(environment, str | None) or not isinstance(rate, int | float | None):
        raise TypeError(f"token {token} has fields of the wrong type")
    raw = bytes.fromhex(digest)
    if len(raw) != hashlib.sha256().digest_size:
        raise ValueError(f"token {token} has a digest of {len(raw)} bytes")
    granted = frozenset(str(each) for each in permissions)
    return Grant(token, actor, project, granted, expires_at, raw, environment, rate)
