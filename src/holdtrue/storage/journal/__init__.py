"""Production records: appended to checksummed segments, sealed into Parquet, read as one."""

from holdtrue.storage.journal.journal import Journal
from holdtrue.storage.journal.segments import Damage
from holdtrue.storage.journal.writer import Writer

__all__ = ["Damage", "Journal", "Writer"]
