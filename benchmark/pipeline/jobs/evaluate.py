"""Train a student on a distilled set, test it, and write its record."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.core import compute, distributed
from benchmark.core.errors import JobError
from benchmark.core.store import Stage, Store
from benchmark.evaluation.protocols import load_protocol
from benchmark.pipeline.jobs.base import Context, Job, LostInput, Source
from benchmark.pipeline.outcomes import Tested, keep_sheet, write_student
from benchmark.plugins import registry
from benchmark.results.records import Identity, find_record

if TYPE_CHECKING:
    from benchmark.evaluation.protocols import Protocol
    from benchmark.sets.folder import DistilledSet

STUDENT_VERSION = 1  # of the trainer: raised when the same inputs would give other scores


@dataclass(frozen=True, kw_only=True)
class EvaluateJob(Job):
    """One student of one set under one protocol.

    Attributes:
        identity: of the record; its ``set`` names the distilled set.
        set_dir: a folder or file to read the set from; "": the store.
        factor: how it is decoded (`open_set`).
        protocol, protocol_sets: the protocol's name and the user's changes to it.
        teacher: labels the set (soft labels), and guards the gates.
        gate: ``order``, or ``waived``: the set is scored whatever its labels look like to the teacher.
        given: nothing is known of the set's class order but the order of its folders.
        image_size: of the dataset; large students may be trained by all ranks together.
        metrics: names of extra scores.
        tuning: where the method's settings come from, for the record.
    """

    kind = "evaluate"
    phase = "evaluate"

    identity: Identity
    protocol: str
    teacher: str
    gate: str
    image_size: int
    given: bool = False
    set_dir: str = ""
    factor: int | None = None
    protocol_sets: dict[str, Any]
    metrics: tuple[str, ...] = ()
    tuning: Any = None

    @cached_property
    def stage(self) -> Stage:
        return student_stage(self.identity, self.metrics)

    def is_done(self, context: Context) -> bool:
        return context.store.has_key("student", self.key) and self._is_recorded(context)

    def _is_recorded(self, context: Context) -> bool:
        """Whether a good record holds all that the trained student scored; a failed one, or one without a metric that
        was asked for, does not."""
        record = find_record(context.results, self.identity.to_json())
        if record is None or record["outcome"]["status"] != "ok":
            return False
        try:
            made = json.loads((context.store.place("student", self.key) / "outcome.json").read_text(encoding="utf-8"))[
                "scores"
            ]
        except (OSError, ValueError, KeyError):
            return False  # damaged: opening it says so and makes it again
        return set(made) <= set(record["scores"])  # not equal values: where training is not repeatable, they never are

    def work(self, context: Context) -> None:
        from benchmark.sets.folder import sheet_of

        folder, found = self._open_set(context)
        protocol = load_protocol(self.protocol, self.protocol_sets)
        # before the gate: whoever reads that a set was refused wants to see it
        sheet = ""
        if distributed.writes():
            sheet = keep_sheet(folder, self.identity, context.results, lambda: sheet_of(found, self.source.load()))

        def make(target: Path) -> None:
            tested = self._train(found, protocol, context).to_json()
            (target / "outcome.json").write_text(json.dumps(tested, sort_keys=True), encoding="utf-8")

        made = distributed.build(context.store, self.stage, make) / "outcome.json"
        if distributed.writes():
            tested = Tested.from_json(json.loads(made.read_text(encoding="utf-8")))
            artifacts: dict[str, Any] = {
                "contact_sheet": sheet,
                "images": found.digest,
                "protocol": protocol.document(),
            }
            if found.note:
                artifacts["read"] = found.note
            if self.tuning:
                artifacts["tuning"] = self.tuning
            cost, notes = found.manifest.get("cost", {}), self.source.load().notes
            write_student(self.identity, tested, context.results, folder=folder, made=cost, notes=notes, more=artifacts)

    def _open_set(self, context: Context) -> tuple[Path, DistilledSet]:
        from benchmark.sets.folder import read_set
        from benchmark.sets.given import open_set

        dataset, key = self.source.load(), self.identity.set
        if self.set_dir:
            found = open_set(Path(self.set_dir), dataset, self.identity.ipc, self.factor)
            if found.digest != key:
                raise JobError(
                    "the set changed since the run was planned", where=self.set_dir, hint="repeat the command"
                )
            return Path(self.set_dir), found
        folder = context.store.open_key("set", key)
        if folder is None:
            raise LostInput(key)
        return folder, read_set(folder, dataset)

    def _train(self, found: DistilledSet, protocol: Protocol, context: Context) -> Tested:
        from benchmark.evaluation import gates, train_student
        from benchmark.evaluation.metrics.robustness import Context as Measured

        dataset = self.source.load()
        teacher, teacher_check = _checked_teacher(str(context.store.root), self.teacher, context.device, self.source)
        images, labels = found.training()
        checks = {
            "teacher": teacher_check,
            "set": gates.check_set(images, labels, teacher, dataset, self.gate == "waived", self.given),
        }
        result = train_student(
            images,
            labels,
            dataset=dataset,
            protocol=protocol,
            student=self.identity.student,
            teacher=teacher,
            ipc=self.identity.ipc,
            seed=self.identity.seed,
            device=context.device,
            precision=compute.Precision.named(self.precision),
            workdir=context.store.workdir(self.stage),
            label=self.label,
            on_interval=lambda steps: context.store.log_work(self.stage, "steps", steps),
            store=context.store,
            set_key=self.identity.set,
        )
        scores = {**result.scores, "curve": result.curve}
        for name in self.metrics:
            measure = registry().get("metric", name).load()
            scores |= measure(Measured(result, dataset, context.device))
        cost = {
            "train_seconds": round(result.seconds, 3),
            "peak_memory_bytes": result.peak_memory,
            "label_bytes": result.label_bytes,
            "device": context.device_name,
            "steps": result.steps,
        }
        return Tested(scores, cost, checks, tuple(result.flags), result.resolved)


@lru_cache(maxsize=2)
def _checked_teacher(root: str, name: str, device: str, source: Source):
    """(teacher, its gate's report): loaded and tested once a process, whatever number of students it labels for."""
    from benchmark.evaluation import gates
    from benchmark.teachers import get_teacher

    dataset = source.load()
    teacher = get_teacher(Store(root), dataset, name, device)
    return teacher, gates.check_teacher(teacher, dataset)


def student_stage(identity: Identity, metrics: Iterable[str] = ()) -> Stage:
    """The stage of one trained and tested student; its parameters are what determines the scores, no more.

    ``metrics`` names the extra scores asked for; they add to a record and are no part of its identity.
    """
    inputs = {"dataset": identity.dataset.digest, "set": identity.set, "protocol": identity.protocol.digest}
    if identity.teacher:
        inputs["teacher"] = identity.teacher.key
    params: dict[str, Any] = {"student": identity.student, "ipc": identity.ipc}
    if identity.student_version is not None:
        params["student_version"] = identity.student_version
    if metrics:
        params["metrics"] = sorted(metrics)
    return Stage("student", STUDENT_VERSION, params, inputs, identity.seed, identity.precision)
