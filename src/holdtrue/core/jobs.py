"""The kinds of jobs: what the control plane queues, and a worker knows how to do."""

from enum import StrEnum


class JobKind(StrEnum):
    """Name what a job is about."""

    INGEST = "ingest"
    TRAIN = "train"
    RETRAIN = "retrain"
    REPLAY = "replay"
    FILL = "materialize"
