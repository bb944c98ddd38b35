"""Students (and teachers): the architectures that are trained on a distilled set."""

from benchmark.students.build import build_student, input_size, lr_group, student_version

__all__ = ["build_student", "input_size", "lr_group", "student_version"]
