"""Turns requests into jobs. Every key is known here, before anything runs; equal jobs of several requests are one."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from benchmark.backbones import guidance
from benchmark.backbones.resolve import resolve_backbone
from benchmark.core.compute import Precision, threads
from benchmark.core.errors import DDBenchError, UsageError
from benchmark.core.store import Stage, Store
from benchmark.methods import make_params
from benchmark.pipeline.request import DEFAULT_PROTOCOLS, Request, split_sets
from benchmark.plugins import registry
from benchmark.students import student_version

STUDENT_VERSION = 1  # of the trainer: raised when the same inputs would give other scores
SET_VERSION = 1  # of the distilled set's layout and of how units are assembled
KINDS = ("backbone", "teacher", "part", "distill", "evaluate")


@dataclass(frozen=True)
class Job:
    """One piece of work that a worker claims whole.

    ``key`` names its result; ``needs`` the keys of jobs that must be done before; ``spec`` is all that
    :mod:`benchmark.pipeline.jobs` needs to do it, as JSON.
    """

    kind: str
    key: str
    label: str
    spec: dict[str, Any]
    needs: tuple[str, ...] = ()


@dataclass
class Plan:
    """Jobs in an order in which they can run, and the places they read and write.

    ``skipped`` holds finished records of cells that cannot run, with the reason.
    """

    store: str
    results: str
    device: str
    jobs: list[Job] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    time_limit: float | None = None  # seconds a job may take

    def __post_init__(self) -> None:  # workers may run in other folders
        self.store, self.results = os.path.abspath(self.store), os.path.abspath(self.results)

    def write(self, path: Path) -> None:
        """Write as JSON; a worker reads it back with :meth:`read`."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @staticmethod
    def read(path: Path) -> Plan:
        """The inverse of :meth:`write`."""
        document = json.loads(path.read_text(encoding="utf-8"))
        document["jobs"] = [Job(**{**j, "needs": tuple(j["needs"])}) for j in document["jobs"]]
        return Plan(**document)

    def of_kind(self, kind: str) -> list[Job]:
        """The jobs of one kind, in order."""
        return [j for j in self.jobs if j.kind == kind]


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
    seen: dict[str, Job] = {}
    for request in requests:
        _Builder(request, store, plan, seen, parts, only_distill).build()
    return plan


def parts_for(requests: Sequence[Request], workers: int) -> int:
    """Into how many jobs each set is cut, so that no worker is left without a part of a method's sets."""
    sets = max((len(r.ipc) * len(r.seeds) for r in requests), default=1)
    return math.ceil(workers / max(1, sets))


class _Builder:
    """Adds one request's jobs to a plan."""

    def __init__(
        self, request: Request, store: Store, plan: Plan, seen: dict[str, Job], parts: int, only_distill: bool
    ):
        from benchmark.data import load_dataset
        from benchmark.data.loading import data_root

        self.request, self.store, self.plan, self.seen = request, store, plan, seen
        self.parts, self.only_distill = parts, only_distill
        self.given: dict[int, Any] = {}  # the set of `evaluate DIR`, checked for each IPC
        if min(request.ipc) < 1:
            raise UsageError(f"IPC {min(request.ipc)} is not possible", where="--ipc", allowed="1 or more")
        self.dataset = load_dataset(request.dataset, root=request.data_root, **request.dataset_options)
        self.precision = Precision.named(request.precision)
        methods = () if request.set_dir else request.methods
        self.method_sets, self.protocol_sets = split_sets(request.sets, methods)
        root = data_root(request.data_root)  # of this machine's environment, which a worker's may not have
        self.common = {
            "dataset": request.dataset,
            "digest": self.dataset.digest,
            "data_root": str(root) if root else None,
            "dataset_options": request.dataset_options,
            "precision": request.precision,
        }

    def build(self) -> None:
        from benchmark.evaluation.protocols import load_protocol
        from benchmark.students.library import check_name

        request = self.request
        protocols = {p: load_protocol(p, dict(self.protocol_sets)) for p in request.protocols or DEFAULT_PROTOCOLS}
        side = self.dataset.image_size
        students = {p: request.students or (protocol.student_of(side),) for p, protocol in protocols.items()}
        for student in {s for several in students.values() for s in several}:
            registry().get("student", student, where="--student")
            check_name(student)
        for ipc in request.ipc:
            for method in request.methods:
                for seed in request.seeds:
                    made = self._set(method, ipc, seed)
                    if self.only_distill:
                        continue
                    for name, protocol in protocols.items():
                        for student in students[name]:
                            self._evaluate(made, method, ipc, seed, name, protocol, student)

    # -- jobs of each kind ---------------------------------------------------------------------------------------

    def _add(self, kind: str, key: str, label: str, spec: dict[str, Any], needs: Iterable[str] = ()) -> Job:
        if key not in self.seen:
            self.seen[key] = Job(kind, key, label, {**self.common, **spec}, tuple(n for n in needs if n))
            self.plan.jobs.append(self.seen[key])
        return self.seen[key]

    def teacher(self, name: str) -> tuple[list[str], dict[str, str]]:
        """(keys of the jobs that train it, identity of the teacher); ``a+b`` is an ensemble of two."""
        from benchmark.teachers import check_fits, is_external, teacher_key, teacher_stage

        needs = []
        for part in name.split("+"):
            if is_external(part):
                check_fits(self.dataset, part)
                continue
            registry().get("student", part, where="--teacher")
            stage = teacher_stage(self.dataset, part)
            self._add("teacher", stage.key, f"teacher {part} on {self.dataset.name}", {"teacher": part})
            needs.append(stage.key)
        return needs, {"name": name, "key": teacher_key(self.dataset, name)}

    def backbone(self) -> tuple[str, dict[str, str]]:
        """(key of the backbone's job, identity of the backbone)."""
        ref = resolve_backbone(self.dataset, self.request.backbone)
        spec = {"backbone": ref.name, "judge": self.request.teacher}
        self._add("backbone", ref.key, f"backbone {ref.name} for {self.dataset.name}", spec)
        return ref.key, {"name": ref.name, "key": ref.key}

    def _set(self, name: str, ipc: int, seed: int) -> dict[str, Any]:
        """The distilled set of (method, ipc, seed): its key, identities, and why not, if not."""
        if self.request.set_dir:
            return self._given_set(name, ipc)
        info = registry().get("method", name, where="--method")
        cls = info.load()
        if cls.trains:
            self.precision.check_unscaled(name)
        chosen = guidance.chosen(self.dataset.name, self.request.backbone)
        params = make_params(cls, name, self.dataset.name, self.method_sets[name], chosen)
        method = cls(params)
        document, hints = _params_documents(params)
        made: dict[str, Any] = {
            "method": {"name": name, "version": info.version, "params": document},
            "gate": info.gate,
            "backbone": None,
            "key": "",
        }
        handed = self.dataset.without_test()
        reason = method.supports(handed, ipc)
        if reason:
            if len(self.request.methods) == 1 or name == self.request.methods[0]:
                raise UsageError(f"{name} cannot make IPC {ipc} of {self.dataset.name}: {reason}", where="--ipc")
            return {**made, "reason": reason}
        inputs, needs, teacher = {"dataset": self.dataset.digest}, [], {}
        spec: dict[str, Any] = {"method": name, "document": made["method"], "hints": hints, "ipc": ipc, "seed": seed}
        try:
            if "backbone" in method.requires:
                needs_key, made["backbone"] = self.backbone()
                needs.append(needs_key)
                inputs["backbone"] = made["backbone"]["key"]
                spec["backbone"] = made["backbone"]["name"]
            if "teacher" in method.requires:
                trained, teacher = self.teacher(self.method_teacher())
                needs += trained
                inputs["teacher"] = teacher["key"]
                spec["teacher"] = teacher["name"]
            for label, named in method.classifiers(handed).items():
                trained, classifiers = self.teacher(named)
                needs += trained
                inputs[label] = classifiers["key"]
            inputs |= method.inputs(handed)
        except DDBenchError as error:
            if name == self.request.methods[0]:
                raise
            return {**made, "reason": str(error)}
        further = {k: v for k, v in inputs.items() if k not in ("dataset", "backbone")}
        if further:  # what else it is made from: two teachers make two methods' rows, whatever protocol tests them
            made["method"]["inputs"] = further | ({"teacher": teacher} if "teacher" in further else {})
        stage = set_stage(name, info.version, document, ipc, inputs, seed, self.precision)
        label = f"{name} ipc {ipc} seed {seed} on {self.dataset.name}"
        spec["inputs"] = inputs
        if self.parts > 1:
            keys = [f"{stage.key}/{i}of{self.parts}" for i in range(self.parts)]
            for i, key in enumerate(keys):
                part = {**spec, "part": [i, self.parts]}
                self._add("part", key, f"{label}, part {i + 1}/{self.parts}", part, needs)
            needs = [*needs, *keys]
        self._add("distill", stage.key, label, spec, needs)
        return {**made, "key": stage.key, "spec": {"set": stage.key}, "needs": [stage.key]}

    def _given_set(self, name: str, ipc: int) -> dict[str, Any]:
        from benchmark.sets.folder import open_set

        if ipc not in self.given:
            self.given[ipc] = open_set(Path(self.request.set_dir), self.dataset, ipc)
        given = self.given[ipc]
        known = given.manifest.get("method") or {"name": name, "version": 1, "params": {}}
        return {
            "method": {**known, "name": name},
            "gate": "order",
            "given": not given.manifest,  # a manifest's classes were compared with the dataset's
            "backbone": given.manifest.get("backbone"),
            "key": given.digest,
            "spec": {"set": given.digest, "set_dir": str(Path(self.request.set_dir).resolve())},
            "needs": [],
        }

    def method_teacher(self) -> str:
        """The teacher that methods see: --teacher, or that of the protocol `soft`, whatever protocol tests them."""
        from benchmark.evaluation.protocols import load_protocol

        return self.request.teacher or load_protocol("soft").teacher_of(self.dataset)

    def _evaluate(self, made: dict, method: str, ipc: int, seed: int, name: str, protocol, student: str) -> None:
        from benchmark.teachers import teacher_key

        identity: dict[str, Any] = {
            "dataset": {"name": self.dataset.name, "digest": self.dataset.digest},
            "ipc": ipc,
            "method": made["method"],
            "seed": seed,
            "student": student,
            "protocol": {"name": protocol.name, "version": protocol.version, "digest": protocol.digest},
            "teacher": None,
            "backbone": made["backbone"],
            **student_version(student),
            "precision": self.precision.document(),
            "set": made["key"],
        }
        teacher_name = self.request.teacher or protocol.teacher_of(self.dataset)
        if protocol.labels != "hard":  # with hard labels the teacher only guards the gates
            identity["teacher"] = {"name": teacher_name, "key": teacher_key(self.dataset, teacher_name)}
        if made.get("reason"):
            self.plan.skipped.append({"identity": identity, "reason": made["reason"]})
            return
        trained, _ = self.teacher(teacher_name)
        stage = student_stage(identity, self.request.metrics)
        label = f"{student} on {method} ipc {ipc} seed {seed}, {protocol.name}, {self.dataset.name}"
        spec = {
            **made["spec"],
            "identity": identity,
            "protocol": name,
            "protocol_sets": self.protocol_sets,
            "teacher": teacher_name,
            "gate": "waived" if self.request.waive_gate else made["gate"],
            "given": made.get("given", False),
            "image_size": self.dataset.image_size,
            "metrics": list(self.request.metrics),
            "tuning": self.request.tuning.get(method),
        }
        self._add("evaluate", stage.key, label, spec, [*made["needs"], *trained])


def set_stage(
    method: str, version: int, params: dict, ipc: int, inputs: dict[str, str], seed: int, precision: Precision
) -> Stage:
    """The stage of one distilled set."""
    settings = {"method": method, "method_version": version, "params": params, "ipc": ipc}
    return Stage("set", SET_VERSION, settings, inputs, seed, precision.document())


def student_stage(identity: dict[str, Any], metrics: Iterable[str] = ()) -> Stage:
    """The stage of one trained and tested student; its parameters are what determines the scores, no more.

    ``metrics`` names the extra scores asked for; they add to a record and are no part of its identity.
    """
    inputs = {"dataset": identity["dataset"]["digest"], "set": identity["set"]}
    inputs |= {"protocol": identity["protocol"]["digest"]}
    if identity["teacher"]:
        inputs["teacher"] = identity["teacher"]["key"]
    params: dict[str, Any] = {"student": identity["student"], "ipc": identity["ipc"]}
    if "student_version" in identity:
        params["student_version"] = identity["student_version"]
    if metrics:
        params["metrics"] = sorted(metrics)
    return Stage("student", STUDENT_VERSION, params, inputs, identity["seed"], identity["precision"])


def _params_documents(params: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters as JSON: those that enter keys and records, and those that cannot change the images."""
    absent = {f.name for f in fields(params) if f.metadata.get("late") and getattr(params, f.name) == f.default}
    document = {k: v for k, v in json.loads(json.dumps(asdict(params))).items() if k not in absent}
    hints = {f.name for f in fields(params) if not f.metadata.get("keyed", True)}
    return {k: v for k, v in document.items() if k not in hints}, {k: document[k] for k in hints}
