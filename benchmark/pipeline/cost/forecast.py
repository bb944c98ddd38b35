"""The predicted cost of a request: what its methods and students compute, how long that takes, memory and disk."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmark.backbones.shape import Shape, shape_by_name, shape_of_settings
from benchmark.core.errors import DDBenchError
from benchmark.methods import TEACHER, Method, Work
from benchmark.pipeline.cost import predict, table
from benchmark.pipeline.cost.predict import Place
from benchmark.pipeline.plan import Plan
from benchmark.pipeline.request import DEFAULT_PROTOCOLS, Request, method_of
from benchmark.plugins import registry
from benchmark.plugins.asked import PluginFault

if TYPE_CHECKING:
    from benchmark.evaluation.protocols import Protocol


@dataclass(frozen=True)
class Facts:
    """What the cost depends on of a dataset, known of the public ones without their files."""

    name: str
    train: int
    classes: tuple[str, ...] | range
    image_size: int
    channels: int

    @staticmethod
    def of(dataset) -> Facts:
        """Of a loaded dataset."""
        return Facts(dataset.name, len(dataset.train), dataset.classes, dataset.image_size, dataset.channels)

    @staticmethod
    def published(name: str, image_size: int | None, some: str | None = None) -> Facts | None:
        """Of a public dataset, or of its classes ``some``; None where its numbers are not known."""
        from benchmark.data.classes import chosen_labels
        from benchmark.data.sources import SOURCES

        info, source = registry().get("dataset", name.removesuffix("@val")), SOURCES.get(name)
        size = image_size or info.image_size
        if source is None or not (source.train and source.classes and size and info.channels):
            return None
        count = source.classes
        if some:
            known = _names(count)
            count = len(chosen_labels(str(some), known, known))
        return Facts(name, source.train * count // source.classes, range(count), size, info.channels)


def _names(count: int) -> list[str]:
    """Names by which classes of a dataset that is not here can be chosen: WordNet ids, else labels."""
    from benchmark.data.wordnet import imagenet_wnids

    return list(imagenet_wnids()) if count == 1000 else [str(label) for label in range(count)]


@dataclass(frozen=True)
class ToDo:
    """What of a request is not in the store: sets by (method, IPC), students by (student, protocol, IPC), by method the
    share of its shared stages, and the teachers that are trained here."""

    sets: dict[tuple[str, int], int]
    students: dict[tuple[str, str, int], int]
    shares: dict[str, float]
    backbone: bool = False  # whether it is still to be trained here
    teachers: tuple[str, ...] = ()

    def at(self, ipc: tuple[int, ...], *, first: bool) -> ToDo:
        """The part of some IPC values; backbone and teachers, which all share, belong to the first part."""
        return ToDo(
            {key: n for key, n in self.sets.items() if key[1] in ipc},
            {key: n for key, n in self.students.items() if key[2] in ipc},
            self.shares,
            self.backbone and first,
            self.teachers if first else (),
        )


def everything(request: Request, facts: Facts) -> ToDo:
    """Nothing is in the store."""
    from benchmark.evaluation.protocols import load_protocol
    from benchmark.pipeline.requirements import teacher_names
    from benchmark.teachers import is_external

    seeds = len(request.seeds)
    protocols = request.protocols or DEFAULT_PROTOCOLS
    trained = {
        (student, p, ipc): seeds * len(request.methods)
        for p in protocols
        for student in request.students or (load_protocol(p).student_of(facts.image_size),)
        for ipc in request.ipc
    }
    sets = {(m, i): seeds for m in request.methods for i in request.ipc}
    parts = teacher_names(dataclasses.replace(request, protocols=protocols), facts.image_size, used=True)
    for name in () if request.set_dirs else request.methods:
        with contextlib.suppress(PluginFault):
            named = method_of(request, name, facts.name).classifiers(facts)
            parts |= {part for names in named.values() for part in names.split("+")}
    return ToDo(sets, trained, {}, teachers=tuple(sorted(part for part in parts if not is_external(part))))


def left(plan: Plan, done, shares: dict[str, float]) -> ToDo:
    """What a plan's jobs for which ``done(job)`` is false ask for; ``shares`` as in `ToDo`."""
    sets: dict = {}
    students: dict = {}
    trained = any(not done(job) for job in plan.of_kind("backbone"))
    teachers = tuple(job.teacher for job in plan.of_kind("teacher") if not done(job))
    for job in plan.of_kind("distill"):
        if not done(job):
            sets[job.method.name, job.ipc] = sets.get((job.method.name, job.ipc), 0) + 1
    for job in plan.of_kind("evaluate"):
        if not done(job):
            key = job.identity.student, job.protocol, job.identity.ipc
            students[key] = students.get(key, 0) + 1
    return ToDo(sets, students, shares, trained, teachers)


def backbone_shape(request: Request, facts: Facts, dataset=None) -> tuple[str, Shape | None]:
    """(name, shape) of the backbone that the request means; the shape is None where its files are not here."""
    from benchmark.backbones.resolve import IMAGENET_BACKBONE, shipped
    from benchmark.backbones.settings import default_preset, settings
    from benchmark.pipeline.requirements import dataset_info

    name = request.backbone
    if not name:
        found = shipped(dataset.name, dataset.classes) if dataset is not None else None
        ours = str(found) if found else default_preset(facts.name)
        name = IMAGENET_BACKBONE if dataset_info(request.dataset).imagenet_classes else ours
    if name in registry().names("backbone"):
        if dataset is None:
            return name, None
        return name, shape_of_settings(settings(dataset, name), len(dataset.classes), dataset.channels)
    return name, shape_by_name(name)


@dataclass(frozen=True)
class Block:
    """A method's part of the prediction: its text, the real images that it encodes, the device memory that it takes."""

    lines: list[str]
    encoded: int = 0
    memory: int = 0


def forecast(request: Request, facts: Facts, todo: ToDo, place: Place, dataset=None) -> list[str]:
    """The prediction as lines of text: a block a method, the students, memory, disk and how to divide the work."""
    rows = table.known()
    name, shape = backbone_shape(request, facts, dataset)
    methods = () if request.set_dirs else tuple(m for m in request.methods if any(k[0] == m for k in todo.sets))
    blocks = [_asked(m, request, facts, todo, place, rows, name, shape) for m in methods]
    out = _training(name, dataset, shape, place) if todo.backbone else []
    out += [line for teacher in todo.teachers for line in _teacher(teacher, facts, place, rows)]
    out += [line for block in blocks for line in block.lines] + _students(request, facts, todo, place, rows)
    memory = max([0, *(block.memory for block in blocks)])
    if memory:
        out.append(f"memory: about {predict.bytes_text(memory)} on the device (estimated from the shapes)")
    if methods:
        encoded, disk = max([0, *(block.encoded for block in blocks)]), []
        if encoded:
            disk.append(predict.latents_text(shape, encoded, half=place.precision in ("bf16", "fp16")))
        for ipc in request.ipc:
            number = sum(todo.sets.get((m, ipc), 0) for m in methods)
            disk.append(predict.sets_text(number, ipc * len(facts.classes), facts.image_size, facts.channels))
        out.append("disk, for the store: " + "; ".join(disk))
    return out + (_shards(request) if any(block.lines for block in blocks) else [])


def _asked(name: str, *rest) -> Block:
    """`_method`; a line that says so where the method's plug-in is broken."""
    try:
        return _method(name, *rest)
    except PluginFault as fault:
        return Block([f"{name}: not predicted ({fault.what})"])


def _method(
    name: str, request: Request, facts: Facts, todo: ToDo, place: Place, rows, backbone: str, shape: Shape | None
) -> Block:
    method = method_of(request, name, facts.name)
    needs = method.needs()
    wanted = {ipc: todo.sets.get((name, ipc), 0) for ipc in request.ipc}
    work = _work(method, facts, wanted, todo.shares.get(name, 1.0))
    if not work and not (needs.backbone or needs.teacher):
        return Block([])  # reads images, no more
    if not work or (shape is None and any(not w.network for w, _ in work)):
        why = "it says no cost: Method.work, docs/own-method.md"
        if work:
            why = f"the files of backbone {backbone} are not here"
        return Block([f"{name}: not predicted ({why})"])
    networks = {w.network: _classifier(w.network, request, facts) for w, _ in work if w.network}
    if unknown := [reason for _, _, reason in networks.values() if reason]:
        return Block([f"{name}: not predicted ({unknown[0]})"])
    lines = []
    for w, n in work:
        if w.network:
            network, flops, _ = networks[w.network]
            lines.append(predict.classifier_line(w, network, facts.image_size, flops, place, rows, n))
        else:
            lines.append(predict.work_line(w, shape, place, rows, n))
    if networks:
        first = next(iter(networks.values()))[0]
        fill = f"ddbench speed --student {first} --image-size {facts.image_size} --precision {place.precision}"
        return Block(
            [f"{name} on {facts.name}, {', '.join(n for n, *_ in networks.values())}:"]
            + predict.report(lines, place, fill)
        )
    fill = f"ddbench speed --backbone {backbone} --precision {place.precision}"
    fill += f" --dataset {facts.name}" if backbone in registry().names("backbone") else ""
    return Block(
        [f"{name} on {facts.name}, {shape.name}:", *predict.report(lines, place, fill)],
        encoded=max([0, *(w.images for w, _ in work if w.stage == "encode" and w.shared)]),
        memory=shape.memory(needs.batch, training=needs.training),
    )


def _classifier(network: str, request: Request, facts: Facts) -> tuple[str, float, str]:
    """(architecture, FLOPs an image, why they are not known) of a network of `Work`."""
    from benchmark.evaluation.protocols import load_protocol
    from benchmark.pipeline.requirements import dataset_info
    from benchmark.students.flops import forward_flops

    name = network
    if network == TEACHER:
        soft = load_protocol("soft")
        imagenet = bool(dataset_info(request.dataset).imagenet_classes)
        name = request.teacher or soft.teacher_for(facts.name, facts.image_size, imagenet)
    name = name.split("+")[0].partition("@")[0]  # of several the first is recovered from
    try:
        return name, forward_flops(name, len(facts.classes), facts.channels, facts.image_size), ""
    except (DDBenchError, RuntimeError) as error:
        return name, 0.0, f"the cost of {name} is not known: {error}"


def _training(name: str, dataset, shape: Shape, place: Place) -> list[str]:
    """The backbone that is trained here first: FLOPs only, its speed is not in the table."""
    from benchmark.backbones.settings import settings

    chosen = settings(dataset, name)
    coder = predict.STEP_PASSES * (shape.encode_flops() + shape.decode_flops())
    vae = predict.training_line("vae", chosen.vae_steps, chosen.vae_batch, coder)
    dit = predict.training_line("dit", chosen.dit_steps, chosen.dit_batch, predict.STEP_PASSES * shape.forward_flops())
    return [f"backbone {name}, trained once:", *predict.report([vae, dit], place, "")]


def _teacher(name: str, facts: Facts, place: Place, rows) -> list[str]:
    """A teacher that is trained here first."""
    from benchmark.students.flops import forward_flops
    from benchmark.teachers import recipe_of

    recipe = recipe_of(facts.name, facts.train, facts.image_size, facts.channels)
    flops = forward_flops(name, len(facts.classes), facts.channels, facts.image_size)
    line = predict.student_line(name, facts.image_size, recipe.steps, recipe.batch, 1, flops, place, rows)
    line = dataclasses.replace(line, stage="teacher")
    fill = f"ddbench speed --student {name} --image-size {facts.image_size} --precision {place.precision}"
    return [f"teacher {name}, trained once:", *predict.report([line], place, fill)]


def _work(method: Method, facts: Facts, wanted: dict[int, int], share: float) -> list[tuple[Work, int]]:
    """(work, sets) of all IPC values; what is shared stands once, with the share that is still to be done."""
    found: list[tuple[Work, int]] = []
    for ipc, sets in wanted.items():
        for work in method.work_at(facts.train, len(facts.classes), ipc, facts.image_size):
            if work.shared:
                work = dataclasses.replace(work, images=math.ceil(work.images * share))
                if not work.images or any(other == work for other, _ in found):
                    continue
            if sets:
                found.append((work, sets))
    return sorted(found, key=lambda pair: not pair[0].shared)


def student_steps(request: Request, facts: Facts, student: str, name: str, ipc: int) -> tuple[Protocol, int, int]:
    """(protocol, steps, images a step) of a student on a set of the dataset's classes."""
    from benchmark.evaluation.protocols import load_protocol

    overrides = {k.partition(".")[2]: v for k, v in request.sets.items() if k.startswith("protocol.")}
    protocol = load_protocol(name, overrides).for_dataset(facts, student)
    images = ipc * len(facts.classes)
    steps = protocol.length(ipc, len(facts.classes), images)[1]
    return protocol, steps, protocol.batch_size(ipc, len(facts.classes), images)


def _students(request: Request, facts: Facts, todo: ToDo, place: Place, rows) -> list[str]:
    from benchmark.students.flops import forward_flops

    out = []
    for (student, name, ipc), count in todo.students.items():
        try:
            protocol, steps, batch = student_steps(request, facts, student, name, ipc)
            side = protocol.resolution or facts.image_size
            flops = forward_flops(student, len(facts.classes), facts.channels, side)
        except (DDBenchError, RuntimeError) as error:
            out.append(f"students {student}, {name}: not predicted ({error})")
            continue
        line = predict.student_line(student, side, steps, batch, count, flops, place, rows)
        fill = f"ddbench speed --student {student} --image-size {side} --precision {place.precision}"
        teacher = "; the teacher's labels and the tests come on top" if protocol.labels == "soft" else ""
        out.append(f"students {student}, protocol {protocol.name}, ipc {ipc}{teacher}:")
        out += predict.report([line], place, fill)
    return out


def _shards(request: Request) -> list[str]:
    common = f"--dataset {shlex.quote(request.dataset)} --ipc {','.join(map(str, request.ipc))}"
    for name, value in request.dataset_options.items():
        common += f" --{name.replace('_', '-')}" + ("" if value is True else f" {shlex.quote(str(value))}")
    method = request.methods[0]
    return [
        "more devices (hours divide by their number; results do not change):",
        f"  torchrun --nproc-per-node N --no-python ddbench run --method {method} {common} …",
        f"  ddbench distill --method {method} {common} … --shard I/N --out DIR    on machine I = 0 … N-1, one store",
        f"  ddbench plan --method {method} {common} … --jobs N --emit slurm",
    ]
