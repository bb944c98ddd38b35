"""What a user asked for: one dataset, and lists of methods, IPC values, students, protocols and seeds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmark.core.errors import UsageError
from benchmark.plugins.asked import PluginFault, asking, held, load, loadable

if TYPE_CHECKING:
    from benchmark.methods import Method, Needs

DEFAULT_PROTOCOLS = ("hard",)


@dataclass(frozen=True)
class Request:
    """A block of cells: the product of its lists, for one dataset and one set of parameter values.

    ``sets`` maps ``KEY`` (every method that has it), ``METHOD.KEY`` or ``protocol.KEY`` to values.
    ``set_dirs`` are sets to evaluate instead of distilling, that of seed ``s`` at ``s`` modulo their number;
    ``methods`` then holds the name they are listed under, ``set_factor`` how they are decoded (`open_set`).
    """

    dataset: str
    methods: tuple[str, ...]
    ipc: tuple[int, ...] = (1,)
    students: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    sets: dict[str, Any] = field(default_factory=dict)
    teacher: str = ""  # "" = the dataset's default
    backbone: str = ""  # folder, hub id or preset name; "" = the dataset's default
    precision: str = "fp32"
    data_root: str | None = None
    dataset_options: dict[str, Any] = field(default_factory=dict)
    set_dirs: tuple[str, ...] = ()
    set_factor: int | None = None
    metrics: tuple[str, ...] = ()  # extra scores
    waive_gate: bool = False  # score sets whatever their labels look like to the teacher; the records say so
    tuning: dict[str, Any] = field(default_factory=dict)  # by method: where its settings come from; goes into records


def parse_sets(pairs: tuple[str, ...] | list[str]) -> dict[str, str]:
    """``("m=1000", "protocol.epochs=5")`` as a dict.

    Raises:
        UsageError: an item without ``=``.
    """
    sets = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set takes KEY=VALUE, not {pair!r}", where="--set", hint="e.g. --set m=1000")
        sets[key.strip()] = value.strip()
    return sets


def split_sets(sets: dict[str, Any], methods: tuple[str, ...]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Sort ``sets`` into per-method parameters and protocol overrides.

    A bare key goes to every requested method that has such a parameter; one that none has is an error, raised with the
    nearest name of the first method.
    """
    import dataclasses

    from benchmark.methods import convert, make_params

    protocol = {}
    per_method: dict[str, dict[str, Any]] = {m: {} for m in methods}
    known = loadable(methods)
    fields = {m: {f.name: f for f in dataclasses.fields(cls.Params)} for m, cls in known.items()}
    for key, value in sets.items():
        head, dot, rest = key.partition(".")
        if dot and head == "protocol":
            protocol[rest] = value
        elif dot and head in ("method", *methods):
            for m in methods if head == "method" else (head,):
                per_method[m][rest] = value
        elif dot:
            allowed = [*methods, "protocol"]
            raise UsageError(f"unknown prefix {head!r}", where=f"--set {key}={value}", allowed=", ".join(allowed))
        else:
            having = [m for m in known if key in fields[m]]
            if not having:
                if not known:
                    raise UsageError(f"unknown parameter {key!r}", where=f"--set {key}={value}", allowed="protocol.KEY")
                main = next(iter(known))
                make_params(known[main], main, "", {key: value})  # raises
            for m in having:
                convert(value, fields[m][key], f"--set {key}={value}")
                per_method[m][key] = value
    return per_method, protocol


def method_of(request: Request, name: str, dataset: str = "") -> Method:
    """One of the request's methods with the parameters that the request gives it.

    Args:
        dataset: its name where it is loaded; default the request's.

    Raises:
        UsageError: an unknown method or parameter, or a value that is not allowed.
        PluginFault: its plug-in is broken.
    """
    from benchmark.backbones import guidance
    from benchmark.methods import make_params

    cls, dataset = load(name, "--method"), dataset or request.dataset
    given = split_sets(request.sets, request.methods)[0][name]
    with asking(name, "its parameters"):
        return held(name, cls(make_params(cls, name, dataset, given, guidance.chosen(dataset, request.backbone))))


def needs_of(request: Request, name: str) -> Needs:
    """What one of the request's methods needs; nothing where its plug-in is broken, which the plan will say."""
    from benchmark.methods import Needs

    try:
        return method_of(request, name).needs()
    except PluginFault:
        return Needs()
