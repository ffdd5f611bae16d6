"""Pipelines: cached, resumable steps, and the queue of jobs that workers lease."""

from holdtrue.pipelines.model import Job, JobFilter, JobReport, JobState, Lease, LostLease, NewJob
from holdtrue.pipelines.service import complete, enqueue, fail, heartbeat, job, jobs, lease, need_leased, retry
from holdtrue.pipelines.steps import Pipeline, StepDone, code_digest

__all__ = [
    "Job",
    "JobFilter",
    "JobReport",
    "JobState",
    "Lease",
    "LostLease",
    "NewJob",
    "Pipeline",
    "StepDone",
    "code_digest",
    "complete",
    "enqueue",
    "fail",
    "heartbeat",
    "job",
    "jobs",
    "lease",
    "need_leased",
    "retry",
]
