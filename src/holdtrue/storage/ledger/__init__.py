"""The ledger: SQL state plus the hash-linked event log, written in the same transaction.

Names are imported on first use, so that verifying a file or holding a key needs no SQLAlchemy.
"""

from typing import TYPE_CHECKING

from holdtrue.core.lazy import attach

if TYPE_CHECKING:
    from holdtrue.storage.ledger.events import Event, EventFilter, payloads_with, select_events
    from holdtrue.storage.ledger.ledger import Ledger
    from holdtrue.storage.ledger.mentions import digests_in, mentioned_digests
    from holdtrue.storage.ledger.owing import settled_by
    from holdtrue.storage.ledger.statements import (
        Insert,
        Prepared,
        any_case_like,
        any_of,
        exact_like,
        insert,
        pairs_in,
        prepare,
        prepare_insert,
    )
    from holdtrue.storage.ledger.tables import Timestamp, key_of, metadata, project_table, scoped
    from holdtrue.storage.ledger.transaction import Joint, Transaction, WriteContext
    from holdtrue.storage.ledger.verify import Verification

__all__ = [
    "Event",
    "EventFilter",
    "Insert",
    "Joint",
    "Ledger",
    "Prepared",
    "Timestamp",
    "Transaction",
    "Verification",
    "WriteContext",
    "any_case_like",
    "any_of",
    "digests_in",
    "exact_like",
    "insert",
    "key_of",
    "mentioned_digests",
    "metadata",
    "pairs_in",
    "payloads_with",
    "prepare",
    "prepare_insert",
    "project_table",
    "scoped",
    "select_events",
    "settled_by",
]

__getattr__ = attach(
    __name__,
    {
        "Event": "events",
        "EventFilter": "events",
        "Insert": "statements",
        "Joint": "transaction",
        "Ledger": "ledger",
        "Prepared": "statements",
        "Timestamp": "tables",
        "Transaction": "transaction",
        "Verification": "verify",
        "WriteContext": "transaction",
        "any_case_like": "statements",
        "any_of": "statements",
        "digests_in": "mentions",
        "exact_like": "statements",
        "insert": "statements",
        "key_of": "tables",
        "mentioned_digests": "mentions",
        "metadata": "tables",
        "pairs_in": "statements",
        "prepare": "statements",
        "prepare_insert": "statements",
        "project_table": "tables",
        "scoped": "tables",
        "payloads_with": "events",
        "select_events": "events",
        "settled_by": "owing",
    },
)
