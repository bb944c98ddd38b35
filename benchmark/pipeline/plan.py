"""Turns requests into jobs. Every key is known here, before anything runs; equal jobs of several requests are one."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.backbones.resolve import resolve_backbone
from benchmark.core.compute import Precision, threads
from benchmark.core.errors import DDBenchError, UsageError
from benchmark.core.store import Store
from benchmark.pipeline.jobs import (
    BackboneJob,
    DistillJob,
    EvaluateJob,
    Job,
    Source,
    TeacherJob,
    read_job,
)
from benchmark.pipeline.jobs.distill import set_stage
from benchmark.pipeline.jobs.evaluate import student_stage
from benchmark.pipeline.outcomes import Skipped
from benchmark.pipeline.request import DEFAULT_PROTOCOLS, Request, method_of, split_sets
from benchmark.plugins import registry
from benchmark.plugins.asked import PluginFault
from benchmark.results.records import DatasetId, Identity, Keyed, MethodId, ProtocolId
from benchmark.students import student_version

if TYPE_CHECKING:
    from benchmark.evaluation.protocols import Protocol
    from benchmark.methods import Method


@dataclass
class Plan:
    """Jobs in an order in which they can run, cells that cannot run, and the places that are read and written."""

    store: str
    results: str
    device: str
    jobs: list[Job] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    time_limit: float | None = None  # seconds a job may take

    def __post_init__(self) -> None:  # workers may run in other folders
        self.store, self.results = os.path.abspath(self.store), os.path.abspath(self.results)

    def write(self, path: Path) -> None:
        """Write as JSON; a worker reads it back with :meth:`read`."""
        document = {
            **vars(self),
            "jobs": [job.to_json() for job in self.jobs],
            "skipped": [cell.to_json() for cell in self.skipped],
        }
        path.write_text(json.dumps(document), encoding="utf-8")

    @staticmethod
    def read(path: Path) -> Plan:
        """The inverse of :meth:`write`."""
        document = json.loads(path.read_text(encoding="utf-8"))
        document["jobs"] = [read_job(job) for job in document["jobs"]]
        document["skipped"] = [Skipped.from_json(cell) for cell in document["skipped"]]
        return Plan(**document)

    def of_kind(self, kind: str) -> list[Any]:
        """The jobs of one kind (see `benchmark.pipeline.jobs.KINDS`), in order."""
        return [j for j in self.jobs if j.kind == kind]


@dataclass(frozen=True)
class PlannedSet:
    """A distilled set as the planner knows it.

    Attributes:
        method, backbone: as they go into identities.
        gate: of the method (`MethodInfo.gate`).
        given: whether nothing is known of its class order but the order of its folders.
        key: of the set; "" where it cannot be made.
        set_dir, factor: the set that `evaluate` was given, else ""; and how it is decoded.
        needs: keys of the jobs that make it.
        reason: why it cannot be made.
        failed: whether that is a fault of the method's plug-in.
    """

    method: MethodId
    gate: str = "order"
    given: bool = False
    backbone: Keyed | None = None
    key: str = ""
    set_dir: str = ""
    factor: int | None = None
    needs: tuple[str, ...] = ()
    reason: str = ""
    failed: bool = False


def make_plan(
    requests: Iterable[Request],
    store: Store,
    results: Path,
    *,
    device: str = "cpu",
    parts: int = 1,
    only_distill: bool = False,
) -> Plan:
    """The plan of some requests.

    ``parts`` cuts every distillation into that many jobs, for that many workers; the result does not depend on it.

    Raises:
        UsageError, MissingError: a name, a parameter, data or weights that are not there; nothing has run yet.
    """
    threads("evaluate")  # a wrong DDBENCH_THREADS is said here, not by every job
    plan = Plan(str(store.root), str(results), device)
    seen: set[str] = set()
    for request in requests:
        _Builder(request, plan, seen, parts).build(only_distill)
    return plan


def parts_for(requests: Sequence[Request], workers: int) -> int:
    """Into how many jobs each set is cut, so that no worker is left without a part of a method's sets."""
    sets = max((len(r.ipc) * len(r.seeds) for r in requests), default=1)
    return math.ceil(workers / max(1, sets))


class _Builder:
    """Adds one request's jobs to a plan."""

    def __init__(self, request: Request, plan: Plan, seen: set[str], parts: int):
        from benchmark.data import load_dataset
        from benchmark.data.loading import data_root

        self.request, self.plan, self.seen, self.parts = request, plan, seen, parts
        self.given: dict[tuple[int, str], PlannedSet] = {}  # sets that `evaluate` was given, checked, by IPC and path
        if min(request.ipc) < 1:
            raise UsageError(f"IPC {min(request.ipc)} is not possible", where="--ipc", allowed="1 or more")
        self.dataset = load_dataset(request.dataset, root=request.data_root, **request.dataset_options)
        self.precision = Precision.named(request.precision)
        methods = () if request.set_dirs else request.methods
        self.methods: dict[str, Method] = {}
        self.faults: dict[str, PluginFault] = {}  # by method whose plug-in is broken
        for name in methods:
            try:
                self.methods[name] = method_of(request, name, self.dataset.name)
            except PluginFault as fault:
                self.faults[name] = fault
        self.protocol_sets = split_sets(request.sets, methods)[1]
        root = data_root(request.data_root)  # of this machine's environment, which a worker's may not have
        options = tuple(sorted(request.dataset_options.items()))
        source = Source(request.dataset, self.dataset.digest, str(root) if root else None, options)
        self.common: dict[str, Any] = {"source": source, "precision": request.precision}

    def build(self, only_distill: bool) -> None:
        from benchmark.evaluation.protocols import load_protocol
        from benchmark.students.library import check_name

        request = self.request
        protocols = {p: load_protocol(p, dict(self.protocol_sets)) for p in request.protocols or DEFAULT_PROTOCOLS}
        side = self.dataset.image_size
        students = {p: request.students or (protocol.student_of(side),) for p, protocol in protocols.items()}
        for student in {s for several in students.values() for s in several}:
            where = "--student" if request.students else "the protocol's student (--set protocol.student)"
            registry().get("student", student, where=where)
            check_name(student)
        for ipc in request.ipc:
            for method in request.methods:
                for seed in request.seeds:
                    made = (self.given_set if request.set_dirs else self.planned_set)(method, ipc, seed)
                    if made.failed and only_distill:
                        raise self.faults[method]
                    for name, protocol in {} if only_distill else protocols.items():
                        for student in students[name]:
                            identity = self.identity(made, ipc, seed, protocol, student)
                            if made.reason:
                                self.plan.skipped.append(Skipped(identity, made.reason, made.failed))
                            else:
                                self.evaluate(made, method, identity, name, protocol)

    def add(self, job: Job) -> str:
        """Add a job unless its result is that of another one; returns its key."""
        if job.key not in self.seen:
            self.seen.add(job.key)
            self.plan.jobs.append(job)
        return job.key

    # -- what sets and students need -------------------------------------------------------------------------------

    def teacher(self, name: str) -> tuple[list[str], Keyed]:
        """(keys of the jobs that train it, identity of the teacher); ``a+b`` is an ensemble of two."""
        from benchmark.teachers import check_fits, is_external, teacher_key, teacher_stage

        needs = []
        for part in name.split("+"):
            if is_external(part):
                check_fits(self.dataset, part)
                continue
            where = "--teacher" if self.request.teacher else "the protocol's teacher (--set protocol.teacher)"
            registry().get("student", part, where=where)
            key = teacher_stage(self.dataset, part).key
            label = f"teacher {part} on {self.dataset.name}"
            needs.append(self.add(TeacherJob(key=key, label=label, teacher=part, **self.common)))
        return needs, Keyed(name, teacher_key(self.dataset, name))

    def backbone(self) -> Keyed:
        """The backbone, whose job is added."""
        ref = resolve_backbone(self.dataset, self.request.backbone)
        label = f"backbone {ref.name} for {self.dataset.name}"
        judge = self.request.teacher
        self.add(BackboneJob(key=ref.key, label=label, backbone=ref.name, judge=judge, **self.common))
        return Keyed(ref.name, ref.key)

    def method_teacher(self) -> str:
        """The teacher that methods see: --teacher, or that of the protocol `soft`, whatever protocol tests them."""
        from benchmark.evaluation.protocols import load_protocol

        return self.request.teacher or load_protocol("soft").teacher_of(self.dataset)

    # -- sets --------------------------------------------------------------------------------------------------------

    def planned_set(self, name: str, ipc: int, seed: int) -> PlannedSet:
        """`distilled_set`; where the method's plug-in is broken, its cells fail and those of other methods do not."""
        try:
            if name not in self.faults:
                return self.distilled_set(name, ipc, seed)
        except PluginFault as fault:
            self.faults[name] = fault
        info, method = registry().get("method", name), self.methods.get(name)
        document = _params_documents(method.params)[0] if method is not None else {}
        known = MethodId(name, info.version, document)
        return PlannedSet(known, info.gate, reason=str(self.faults[name]), failed=True)

    def distilled_set(self, name: str, ipc: int, seed: int) -> PlannedSet:
        """The set of (method, ipc, seed), whose jobs are added; with the reason, if it cannot be made.

        Raises:
            UsageError, MissingError: the first method of the request cannot make it.
        """
        info, method = registry().get("method", name), self.methods[name]
        if method.trains:
            self.precision.check_unscaled(name)
        uses = method.needs()
        document, hints = _params_documents(method.params)
        known = MethodId(name, info.version, document)
        first = name == self.request.methods[0]
        handed = self.dataset.without_test()
        reason = method.why_not(handed, ipc)
        if reason:
            if first:
                raise UsageError(f"{name} cannot make IPC {ipc} of {self.dataset.name}: {reason}", where="--ipc")
            return PlannedSet(known, info.gate, reason=reason)
        needs: list[str] = []
        backbone = teacher = None
        others: dict[str, Any] = {}  # what the set is made from besides data and backbone, as it goes into records
        try:
            if uses.backbone:
                backbone = self.backbone()
                needs.append(backbone.key)
            if uses.teacher:
                trained, teacher = self.teacher(self.method_teacher())
                needs += trained
                others["teacher"] = teacher
            for label, named in method.classifiers(handed).items():
                trained, several = self.teacher(named)
                needs += trained
                others[label] = several.key
            others |= method.inputs(handed)
        except PluginFault:
            raise
        except DDBenchError as error:
            if first:
                raise
            return PlannedSet(known, info.gate, backbone=backbone, reason=str(error))
        inputs = {"dataset": self.dataset.digest} | ({"backbone": backbone.key} if backbone else {})
        inputs |= {label: other.key if isinstance(other, Keyed) else other for label, other in others.items()}
        stage = set_stage(known, ipc, inputs, seed, self.precision)
        job = DistillJob(
            key=stage.key,
            label=f"{name} ipc {ipc} seed {seed} on {self.dataset.name}",
            needs=tuple(needs),
            method=replace(known, inputs={k: v.to_json() if isinstance(v, Keyed) else v for k, v in others.items()}),
            hints=hints,
            ipc=ipc,
            seed=seed,
            inputs=inputs,
            backbone=backbone.name if backbone else "",
            teacher=teacher.name if teacher else "",
            **self.common,
        )
        self.add_set(job)
        # Two teachers make two methods' rows, whatever protocol tests them: the inputs are part of the identity.
        return PlannedSet(job.method, info.gate, backbone=backbone, key=stage.key, needs=(stage.key,))

    def add_set(self, job: DistillJob) -> None:
        """Add the job of a set, and before it those of its parts, where it is cut into parts."""
        parts = job.cut(self.parts) if self.parts > 1 else []
        for part in parts:
            self.add(part)
        self.add(replace(job, needs=(*job.needs, *(part.key for part in parts))))

    def given_set(self, name: str, ipc: int, seed: int) -> PlannedSet:
        """The set that `evaluate` was given for a seed."""
        from benchmark.sets.given import open_set

        place, factor = self.request.set_dirs[seed % len(self.request.set_dirs)], self.request.set_factor
        if (ipc, place) not in self.given:
            found = open_set(Path(place), self.dataset, ipc, factor)
            manifest = found.manifest
            decoded = {"factor": found.factor} if found.factor > 1 else {}
            method = manifest.get("method") or {"version": 1, "params": decoded}
            backbone = manifest.get("backbone")
            self.given[ipc, place] = PlannedSet(
                MethodId.from_json({**method, "name": name}),
                given=not manifest,  # a manifest's classes were compared with the dataset's
                backbone=Keyed.from_json(backbone) if backbone else None,
                key=found.digest,
                set_dir=str(Path(place).resolve()),
                factor=factor,
            )
        return self.given[ipc, place]

    # -- students ----------------------------------------------------------------------------------------------------

    def teacher_of(self, protocol: Protocol) -> str:
        """The teacher of a protocol's students."""
        return self.request.teacher or protocol.teacher_of(self.dataset)

    def identity(self, made: PlannedSet, ipc: int, seed: int, protocol: Protocol, student: str) -> Identity:
        """The identity of a student's record."""
        from benchmark.teachers import teacher_key

        teacher = None
        if protocol.labels != "hard":  # with hard labels the teacher only guards the gates
            name = self.teacher_of(protocol)
            teacher = Keyed(name, teacher_key(self.dataset, name))
        return Identity(
            dataset=DatasetId(self.dataset.name, self.dataset.digest),
            ipc=ipc,
            method=made.method,
            seed=seed,
            student=student,
            protocol=ProtocolId(protocol.name, protocol.version, protocol.digest),
            teacher=teacher,
            backbone=made.backbone,
            precision=self.precision.document(),
            set=made.key,
            **student_version(student),
        )

    def evaluate(self, made: PlannedSet, method: str, identity: Identity, name: str, protocol: Protocol) -> None:
        """Add the job of a student; ``name`` is the protocol's, without the user's changes."""
        teacher = self.teacher_of(protocol)
        trained, _ = self.teacher(teacher)
        cell = f"{identity.student} on {method} ipc {identity.ipc} seed {identity.seed}"
        self.add(
            EvaluateJob(
                key=student_stage(identity, self.request.metrics).key,
                label=f"{cell}, {protocol.name}, {self.dataset.name}",
                needs=(*made.needs, *trained),
                identity=identity,
                set_dir=made.set_dir,
                factor=made.factor,
                protocol=name,
                protocol_sets=self.protocol_sets,
                teacher=teacher,
                gate="waived" if self.request.waive_gate else made.gate,
                given=made.given,
                image_size=self.dataset.image_size,
                metrics=tuple(self.request.metrics),
                tuning=self.request.tuning.get(method),
                **self.common,
            )
        )


def _params_documents(params: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters as JSON: those that enter keys and records, and those that cannot change the images."""
    absent = {f.name for f in fields(params) if f.metadata.get("late") and getattr(params, f.name) == f.default}
    document = {k: v for k, v in json.loads(json.dumps(asdict(params))).items() if k not in absent}
    hints = {f.name for f in fields(params) if not f.metadata.get("keyed", True)}
    return {k: v for k, v in document.items() if k not in hints}, {k: document[k] for k in hints}
