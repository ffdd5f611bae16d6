"""Scorers that clients register with an experiment: versions of a text, which only clients read."""

from holdtrue.tracking.scorers.model import NoScorer, Scorer
from holdtrue.tracking.scorers.service import delete, find, newest, register, versions

__all__ = ["NoScorer", "Scorer", "delete", "find", "newest", "register", "versions"]
