"""``run``, ``plan``, ``distill``, ``evaluate`` and ``worker``."""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmark.api.calls import FLOORS
from benchmark.cli.config import Configured
from benchmark.cli.options import DATA, SEEDS, WORKERS, NamedPath, dataset_options, settled, shared, table_format
from benchmark.core.errors import MissingError, UsageError
from benchmark.core.foreign import check_name
from benchmark.core.outputs import expanded

if TYPE_CHECKING:
    from benchmark.pipeline import Request
    from benchmark.pipeline.execution import Execution


def _common(function):
    """Options that every command with a request takes."""
    options = [
        click.option("--dataset", default="", help="e.g. digits, cifar10, imagenet1k, NAME=PATH for your own."),
        click.option("--ipc", default="1", show_default=True, help="Images per class; several with commas."),
        click.option(
            "--seeds",
            type=SEEDS,
            default=5,
            show_default=True,
            help="How many seeds: each a new set and a new student.",
        ),
        shared("set", "backbone", "teacher", "precision", *DATA),
    ]
    return functools.reduce(lambda f, option: option(f), reversed(options), function)


def _running(function):
    """Options that say where to write and with how many workers."""
    results = click.option(
        "--results", type=NamedPath(), default="results", show_default=True, help="Folder of records and board."
    )
    return results(shared(*WORKERS)(function))


_preset = click.option(
    "--preset",
    default="",
    help="Settings of the method by name, e.g. released, paper, fast: `ddbench show method NAME`. --set goes first.",
)


def _evaluating(function):
    options = [
        click.option(
            "--student",
            "students",
            multiple=True,
            help="Architectures, wildcards allowed; repeatable. Default: the protocol's.",
        ),
        click.option("--metric", "metrics", multiple=True, help="Extra scores, e.g. corruptions, attacks; repeatable."),
        click.option("--protocol", "protocols", multiple=True, help="Protocols; repeatable.  [default: hard]"),
        click.option("--waive-gate", is_flag=True, help="Score sets whose class order looks wrong; records say so."),
    ]
    return functools.reduce(lambda f, option: option(f), reversed(options), function)


def _request(options: dict[str, Any], methods: tuple[str, ...], floors: tuple[str, ...] = ()) -> Request:
    """The `Request` of parsed options; bare ``--set`` keys are tied to the user's own methods, not to the floors."""
    from benchmark.pipeline.request import Request, parse_sets, split_sets
    from benchmark.plugins import registry

    reg = registry()
    if not options["dataset"]:
        raise UsageError("no dataset", where="--dataset", allowed=", ".join(reg.names("dataset")))
    ipc = ipc_values(options["ipc"])
    if options["seeds"] < 1:
        raise UsageError(f"{options['seeds']} seeds are not possible", where="--seeds", allowed="1 or more")
    reg.get("dataset", options["dataset"].removesuffix("@val"), where="--dataset")
    check_name(options["dataset"], "dataset", "--dataset")  # it goes into records
    for name in methods:
        check_name(name, "method", "--as" if options.get("set_dirs") else "--method")
    for part in options["teacher"].split("+") if options["teacher"] else ():
        check_teacher(part)
    students = tuple(reg.select("student", options.get("students", ()), where="--student"))
    protocols = tuple(reg.select("protocol", options.get("protocols", ()), where="--protocol"))
    given = parse_sets(options["sets"])
    per_method, protocol = split_sets(given, () if options.get("set_dirs") else methods)
    sets = preset_sets(options.get("preset", ""), methods)
    sets |= {f"{m}.{k}": v for m, values in per_method.items() for k, v in values.items()}
    sets |= {f"protocol.{k}": v for k, v in protocol.items()}
    request = Request(
        dataset=options["dataset"],
        methods=methods + tuple(f for f in floors if f not in methods),
        ipc=ipc,
        students=students,
        protocols=protocols,
        seeds=tuple(range(options["seeds"])),
        sets=sets,
        teacher=options["teacher"],
        backbone=options["backbone"],
        precision=options["precision"],
        data_root=options["data_root"],
        dataset_options=dataset_options(options),
        set_dirs=tuple(options.get("set_dirs", ())),
        set_factor=options.get("factor"),
        waive_gate=options.get("waive_gate", False),
        metrics=tuple(reg.select("metric", options.get("metrics", ()), where="--metric")),
    )
    return settled(request, options["device"])


def check_teacher(name: str) -> None:
    """Refuse the name of a teacher that is neither one with weights nor a student's.

    Raises:
        UsageError: names the nearest.
    """
    from benchmark.plugins import registry
    from benchmark.teachers import is_external

    check_name(name, "teacher", "--teacher")
    if not is_external(name):
        registry().get("student", name, where="--teacher")


def preset_sets(name: str, methods: tuple[str, ...]) -> dict[str, Any]:
    """``METHOD.KEY: value`` of the preset ``name`` of those of ``methods`` that have it.

    Raises:
        UsageError: none has.
    """
    from benchmark.plugins.asked import loadable

    if not name:
        return {}
    known = {m: cls.presets for m, cls in loadable(methods).items()}
    if not any(name in presets for presets in known.values()):
        allowed = sorted({preset for presets in known.values() for preset in presets})
        raise UsageError(
            f"{', '.join(methods)} has no preset {name!r}",
            where=f"--preset {name}",
            allowed=", ".join(allowed) or "none: leave --preset out",
        )
    return {f"{m}.{key}": value for m, presets in known.items() for key, value in presets.get(name, {}).items()}


def ipc_values(text: Any) -> tuple[int, ...]:
    """``"1,10"`` as numbers."""
    try:
        ipc = tuple(int(part) for part in str(text).split(",") if part.strip())
    except ValueError:
        raise UsageError(f"IPC must be whole numbers, not {text!r}", where="--ipc") from None
    if not ipc or min(ipc) < 1 or max(ipc) > 10**6:
        raise UsageError(f"IPC {text} is not possible", where="--ipc", allowed="whole numbers from 1 to 1,000,000")
    return ipc


def _tuned(request, file: Path | None) -> list:
    """The request split by IPC with the settings of a tuning file; what the user set goes first."""
    if file is None:
        return [request]
    from dataclasses import replace

    from benchmark.studies.tune import read, settings

    document, out = read(file), []
    for ipc in request.ipc:
        sets, notes = dict(request.sets), {}
        for method in request.methods:
            found = settings(document, request.dataset, method, ipc)
            if found:
                sets = {f"{method}.{k}": v for k, v in found["params"].items()} | sets
                notes[method] = found["note"]
            elif method not in FLOORS:
                click.echo(f"{method} at IPC {ipc} is not in {file}: its defaults are used", err=True)
        out.append(replace(request, ipc=(ipc,), sets=sets, tuning=notes))
    return out


_settings = click.option(
    "--settings",
    type=click.Choice(["default", "authors"]),
    default="default",
    show_default=True,
    help="authors: as published, also where a default is the backbone's (guidance); a row of its own on boards.",
)


def _requests(options: dict[str, Any], request) -> list:
    """The request with the settings that ``--tuned`` or ``--settings`` name; what the user set goes first."""
    if options["settings"] == "default":
        return _tuned(request, options["tuned"])
    if options["tuned"] is not None:
        raise UsageError(
            "settings are either tuned or the authors'", where="--settings, --tuned", allowed="one of them"
        )
    return [_authors(request)]


def _authors(request):
    """The request with what its methods' authors set, where the defaults are others; noted in the records."""
    from dataclasses import replace

    from benchmark.plugins.asked import PluginFault, asking, loadable

    name, found = request.dataset.removesuffix("@val"), {}
    for m, cls in loadable(request.methods).items():
        with contextlib.suppress(PluginFault), asking(m, "authors"):
            found[m] = cls.authors(name)
    sets = {f"{m}.{key}": value for m, values in found.items() for key, value in values.items()}
    notes = {m: {"settings": "authors"} for m, values in found.items() if values}
    return replace(request, sets=sets | request.sets, tuning=notes)


def _methods(text: tuple[str, ...]) -> tuple[str, ...]:
    from benchmark.plugins import registry

    return tuple(registry().select("method", text, where="--method"))


def check_first(request: Request, methods: tuple[str, ...], device: str, *, students: bool = True) -> None:
    """Say everything that is missing at once, before anything is loaded.

    ``methods`` are those that the user named: a floor that cannot run is a row with its reason.
    """
    from dataclasses import replace

    from benchmark.pipeline.requirements import check_requirements

    root = request.data_root
    if root and not expanded(root, "--data-root").is_dir() and not request.dataset_options.get("download"):
        raise MissingError(
            f"there is no folder {root}",
            where="--data-root",
            hint=f"ddbench doctor --dataset {shlex.quote(request.dataset)} says where to get the data",
        )
    check_requirements(replace(request, methods=methods), device, students=students)


@click.command(
    cls=Configured,
    epilog="""\b
Examples:
  ddbench run --method d3hr --dataset digits --ipc 1
  ddbench run --method d3hr --method sre2l --dataset fashionmnist --ipc 1,10 --protocol soft --protocol hard
  ddbench run --method d3hr --dataset imagenet1k --ipc 50 --student resnet18,mobilenetv2 --set m=1000000
  ddbench run --method d3hr --dataset imagenet1k --ipc 50 --pilot     ten classes, and hours for the rest
  ddbench run --config run.yaml --seeds 3         options from a file; --print-config writes one
""",
)
@click.option("--method", "methods", multiple=True, required=True, help="Methods, wildcards allowed; repeatable.")
@_evaluating
@_common
@_preset
@_running
@click.option("--floor/--no-floor", default=True, show_default=True, help="Also run random real images and kmeans.")
@click.option("--tuned", type=NamedPath(), help="Take settings that `ddbench tune` chose.")
@_settings
@click.option(
    "--pilot",
    is_flag=True,
    help="One seed of ten classes (or of --classes) end to end, then the hours that the whole command would take, "
    "from what was measured. What was computed for these classes is reused by it.",
)
def run(**options: Any) -> int:
    """Distil with each method, train the same students under the same protocol, add rows to the leaderboard."""
    from benchmark.pipeline.pilot import PILOT_CLASSES, print_hours
    from benchmark.pipeline.run import execute

    methods, seeds = _methods(options["methods"]), options["seeds"]
    if options["pilot"]:
        options |= {"classes": options["classes"] or PILOT_CLASSES, "seeds": min(1, seeds)}
    request = _request(options, methods, FLOORS if options["floor"] else ())
    check_first(request, methods, options["device"])
    requests, execution = _requests(options, request), execution_of(options)
    code = execute(requests, execution)
    if options["pilot"]:
        print_hours(requests, execution, seeds)
    return code


@click.command(cls=Configured)
@click.option("--method", "methods", multiple=True, required=True, help="Methods, wildcards allowed; repeatable.")
@_evaluating
@_common
@_preset
@_running
@click.option("--floor/--no-floor", default=True, show_default=True, help="Also plan random real images and kmeans.")
@click.option("--tuned", type=NamedPath(), help="Take settings that `ddbench tune` chose.")
@_settings
@click.option("--all", "every", is_flag=True, help="List every job, not only the summary.")
@table_format()
@click.option("--emit", type=click.Choice(["joblist", "slurm"]), help="Print --jobs N worker commands instead.")
def plan(**options: Any) -> int:
    """What `run` with the same options would do: what is cached, what is skipped and why, what it would cost."""
    from benchmark.pipeline.describe import print_forecast_without_data, print_plan

    methods = _methods(options["methods"])
    request = _request(options, methods, FLOORS if options["floor"] else ())
    requests = _requests(options, request)
    try:
        return print_plan(
            requests, execution_of(options), every=options["every"], emit=options["emit"], form=options["form"]
        )
    except MissingError:
        if not options["emit"] and options["form"] == "table":
            print_forecast_without_data(request, options["device"])
        check_first(request, methods, options["device"])  # says everything that is missing at once
        raise


@click.command(
    cls=Configured,
    epilog="""\b
Examples:
  ddbench distill --method d3hr --dataset digits --ipc 10 --seeds 1 --out /tmp/d3hr-digits
""",
)
@click.option("--method", "methods", multiple=True, required=True, help="The method.")
@_common
@_preset
@_running
@click.option("--out", required=True, type=NamedPath(), help="Folder to write; one sub-folder a seed.")
@click.option("--shard", default="", metavar="I/N", help="Do only the I-th of N parts (0-based); the store joins them.")
@_settings
def distill(**options: Any) -> int:
    """Make only the distilled set: class folders of PNG files, a manifest, a contact sheet."""
    from benchmark.pipeline.run import distill_to

    methods = _methods(options["methods"])
    if len(methods) > 1:
        raise UsageError(f"distill makes the set of one method, not {len(methods)}", where="--method")
    request = _request(options, methods)
    if options["settings"] == "authors":
        request = _authors(request)
    check_first(request, methods, options["device"], students=False)
    return distill_to(request, options["out"], execution_of(options), _shard(options["shard"]))


@click.command(
    cls=Configured,
    epilog="""\b
Examples:
  ddbench evaluate results/sets/mine --student resnet18 --protocol soft
  ddbench evaluate ~/released/cifar10_ipc10 --as d3hr-released --dataset cifar10 --ipc 10 --protocol d3hr-paper
  ddbench evaluate res_DC_CIFAR10_ConvNet_10ipc.pt --as dc-authors --dataset cifar10 --protocol dc
  ddbench evaluate set-s0 set-s1 set-s2 --as mine --dataset cifar10
""",
)
@click.argument("given", metavar="SET…", nargs=-1, required=True)
@click.option("--as", "name", default="", help="The name it is listed under. Default: the manifest's method.")
@click.option(
    "--factor",
    type=int,
    default=None,
    help="Decode each image to N x N training images, as IDC and CIM do (their factor is 2, or 3).",
)
@_evaluating
@_common
@_running
def evaluate(**options: Any) -> int:
    """Train students on given distilled sets: those that ddbench wrote, or those that a paper's authors released.

    SET is a folder of images, a file .pt, .npz or .zip, or a folder of such sets. Several sets are the seeds of one
    method: the student of seed s trains on the s-th.
    """
    from benchmark.data import load_dataset
    from benchmark.pipeline.run import execute
    from benchmark.sets.given import describe_sets, each_set
    from benchmark.sets.tensors import is_tensors, tensor_notes

    if options["backbone"]:
        raise UsageError("a given set is evaluated without a backbone", where="--backbone", hint="leave it out")
    sets = options["set_dirs"] = each_set(options.pop("given"))
    known = describe_sets(sets)
    source = click.get_current_context().get_parameter_source
    if known.get("ipc") and source("ipc").name == "DEFAULT":
        options["ipc"] = str(known["ipc"])
    if len(sets) > 1 and source("seeds").name == "DEFAULT":
        options["seeds"] = len(sets)
    if options["seeds"] % len(sets):
        raise UsageError(
            f"{options['seeds']} seeds of {len(sets)} sets",
            where="--seeds",
            allowed=f"a multiple of {len(sets)}, so that each set has equally many students",
        )
    if not options["dataset"]:
        if not known.get("dataset"):
            raise UsageError("the set has no manifest that names its dataset", where="--dataset", hint="give --dataset")
        options["dataset"] = known["dataset"]
        options["classes"] = options["classes"] or known.get("classes")
    name = options["name"] or known.get("method") or Path(sets[0]).resolve().name.partition("#")[0]
    request = _request(options, (name,))
    check_first(request, request.methods, options["device"])
    for place in sets:
        if is_tensors(Path(place)):
            dataset = load_dataset(request.dataset, root=request.data_root, **request.dataset_options)
            click.echo(f"{place}: {tensor_notes(Path(place), dataset)}")
    return execute([request], execution_of(options))


@click.command(hidden=True)
@click.argument("folder", type=NamedPath(exists=True))
@click.option("--device", default=None)
def worker(folder: Path, device: str | None) -> int:
    """Work on the jobs of a run until none is left."""
    import signal

    from benchmark.core.supervise import PARENT
    from benchmark.pipeline.engine import work
    from benchmark.pipeline.executors.local import end_with_parent, execute
    from benchmark.pipeline.runs import Run

    # SIGTERM unwinds like Ctrl-C, so that temporary files go and nothing is half-written.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run = Run(Path(os.path.abspath(folder)))
    run.enter()
    if PARENT not in os.environ and run.plan.time_limit:  # a job past its limit ends its process: have one to lose
        execute(run, 1, {"device": device})
        return 1 if run.failures() else 0
    end_with_parent()
    return 1 if work(run, device, say=lambda text: print(text, flush=True)).failed else 0


def check_engine(options: dict[str, Any], planning: bool = False) -> None:
    """Refuse options of how to work that are wrong, or that would do nothing; ``planning``: nothing will be done.

    Raises:
        UsageError: an unknown executor, an option that the executor or the way of starting has no use for.
    """
    from benchmark.core import distributed
    from benchmark.plugins import registry

    engine = registry().get("executor", options["executor"], where="--executor")
    if options["time_limit"] is not None and not options["time_limit"] > 0:
        raise UsageError(f"{options['time_limit']} s is no time limit", where="--time-limit", allowed="seconds above 0")
    if options["jobs"] is not None and options["jobs"] < 1:
        raise UsageError(f"--jobs must be at least 1, got {options['jobs']}", where="--jobs", allowed="1 or more")
    if options["address"] and not engine.elsewhere:
        hint = f"add --executor ray, or leave out --address {options['address']}"
        raise UsageError(f"the executor {engine.name!r} joins no cluster", where="--address", hint=hint)
    if options["ddp"] and options.get("emit"):
        hint = "leave it out, or put `torchrun … ddbench run … --ddp` into a script of your own"
        raise UsageError("workers of --emit share out jobs, none is done together", where="--ddp", hint=hint)
    if options["ddp"] and not planning and not distributed.launched():
        hint = "torchrun --nproc-per-node N --no-python ddbench … --ddp, or leave it out"
        raise UsageError("--ddp needs the ranks that torchrun starts", where="--ddp", hint=hint)
    if options.get("emit") and options["jobs"] is None:
        hint = "--jobs N: how many workers the cluster is to start (this machine's cores say nothing of it)"
        raise UsageError("--emit needs the number of workers", where="--jobs", hint=hint)


def execution_of(options: dict[str, Any], *, planning: bool | None = None) -> Execution:
    """How to carry out what the parsed options ask for; an option that a command does not have has its default.

    Raises:
        UsageError: as :func:`check_engine`.
    """
    from benchmark.core.compute import resolve_device
    from benchmark.pipeline.execution import Execution
    from benchmark.plugins import registry

    options = {"executor": "local", "address": "", "time_limit": None, "ddp": False, **options}
    check_engine(options, planning="emit" in options if planning is None else planning)
    engine = registry().get("executor", options["executor"])
    elsewhere = bool(options.get("emit")) or engine.elsewhere  # this machine may have no GPU; those may
    return Execution(
        results=Path(options["results"]),
        device=resolve_device(options["device"], elsewhere),
        executor=options["executor"],
        workers=options["jobs"],
        address=options["address"],
        time_limit=options["time_limit"],
        ddp=options["ddp"],
    )


def _shard(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    try:
        index, count = (int(part) for part in text.split("/"))
        if not 0 <= index < count:
            raise ValueError
    except ValueError:
        raise UsageError(f"--shard takes I/N with 0 <= I < N, not {text!r}", where="--shard") from None
    return index, count
