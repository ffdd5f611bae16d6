"""HTTP routes about personal data: which models used something, and the erasure of an entity.

An entity's value comes in a body, never in an address: addresses are written down in many places.
"""

from typing import Any

from holdtrue.core.access import Permission
from holdtrue.core.codec import dump
from holdtrue.data import erasure
from holdtrue.delivery.privacy.erasing import erase, told
from holdtrue.delivery.privacy.model import Erase, Used
from holdtrue.delivery.privacy.tracing import used
from holdtrue.door import Call, Routes
from holdtrue.storage.ledger import WriteContext

routes = Routes("delivery")
_PROJECT = "/api/projects/{project}"


@routes.post(_PROJECT + "/usage", Permission.DATA_READ, summary="Tell which models used a source or an entity.")
def ask_usage(call: Call, body: Used) -> Any:
    """Return the models that used a source, a column, a licence, a kind of personal data, or an entity's rows."""
    return {"items": [dump(each) for each in used(call.stores, call.project, body)], "next": None}


@routes.get(_PROJECT + "/erasures", Permission.DATA_READ, summary="List erasures.")
def list_erasures(call: Call) -> Any:
    """Return all erasures, the oldest first; whose they were is known by a keyed hash alone."""
    found = call.read(lambda connection: erasure.erasures(connection, call.project))
    return {"items": [dump(told(each)) for each in found], "next": None}


@routes.post(_PROJECT + "/erasures", Permission.DATA_ERASE, summary="Erase an entity, or go on with it.")
def post_erasure(call: Call, body: Erase) -> Any:
    """Work on the erasure of an entity for some seconds; asked again with the same body it goes on until it is done."""
    # Without the idempotency key: the table of keys would keep a hash of the body, from which the value can be guessed.
    context = WriteContext(call.actor, call.project, call.request_id)
    return dump(erase(call.stores, context, body))
