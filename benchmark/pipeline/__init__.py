"""From a request to records: what would run (`plan`), the work of one job (`jobs`), and who does it (`engine`)."""

from benchmark.pipeline.jobs import Job
from benchmark.pipeline.plan import Plan, make_plan
from benchmark.pipeline.request import Request

__all__ = ["Job", "Plan", "Request", "make_plan"]
