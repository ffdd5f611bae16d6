"""The tokens that this machine's own programs use: the owner's and the worker's, renewed before they end."""

from datetime import timedelta

from holdtrue.core.access import Role
from holdtrue.core.clock import Clock
from holdtrue.server import store
from holdtrue.server.home import LOCAL_TOKEN, WORKER_TOKEN, read_token
from holdtrue.server.model import OWNER_ROLES, SERVICE_HOURS, USER_HOURS, NewToken
from holdtrue.server.rules import parse_token, same_secret
from holdtrue.server.service import fresh_secret, issue, local_creator, token_kind
from holdtrue.storage import Stores, write_atomic
from holdtrue.storage.ledger import WriteContext


def ensure_local_tokens(stores: Stores, clock: Clock) -> None:
    """Make sure that the owner of this folder, and its worker, have a token with time left; renew those that
    end.
    """
    # A third of its life ahead of its end, so that a client that read the old one is not cut off.
    _ensure(stores, clock, LOCAL_TOKEN, NewToken(OWNER_ROLES, name="owner"), timedelta(hours=USER_HOURS / 3))
    _ensure(
        stores,
        clock,
        WORKER_TOKEN,
        NewToken((Role.SERVICE,), name="worker"),
        timedelta(hours=SERVICE_HOURS / 3),
    )


def _ensure(stores: Stores, clock: Clock, name: str, wish: NewToken, ahead: timedelta) -> None:
    now = clock.now()
    text = read_token(stores.home, name)
    parts = None if text is None else parse_token(text)
    if text is not None and parts is not None:
        token = stores.ledger.read(lambda connection: store.token_by_id(connection, parts.id))
        if (
            token is not None
            and token.revoked_at is None
            and same_secret(text, token.digest)
            and token.expires_at - now > ahead
        ):
            return
    secret = fresh_secret(token_kind(wish))
    creator = local_creator()
    stores.ledger.write(
        WriteContext(actor=creator, project=""),
        lambda tx: issue(tx, wish, secret, now=now, creator=creator) and None,
    )
    write_atomic(stores.home / name, f"{secret.text}\n".encode("ascii"))
