"""Durable work: jobs taken from their queue, long recordings spread over all workers, one result each."""

from bus_worker.jobs.cutting import LONGEST
from bus_worker.jobs.means import Limits, Means
from bus_worker.jobs.worker import JobWorker

__all__ = ["LONGEST", "JobWorker", "Limits", "Means"]
