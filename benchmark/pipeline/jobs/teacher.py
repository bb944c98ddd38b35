"""Train a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from benchmark.core.store import Stage
from benchmark.pipeline.jobs.base import Context, Job


@dataclass(frozen=True, kw_only=True)
class TeacherJob(Job):
    """``teacher`` is the name of the architecture, one that is trained here."""

    kind = "teacher"
    phase = "teacher"

    teacher: str

    @cached_property
    def stage(self) -> Stage:
        from benchmark.teachers import teacher_stage

        return teacher_stage(self.source.load(), self.teacher)

    def is_done(self, context: Context) -> bool:
        return context.store.has_key("teacher", self.key)

    def work(self, context: Context) -> None:
        from benchmark.teachers import get_teacher

        get_teacher(context.store, self.source.load(), self.teacher, context.device)
