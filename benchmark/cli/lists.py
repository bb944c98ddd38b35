"""``list``, ``show``, ``plugins`` and ``env``: what there is. None of the lists imports torch."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from benchmark.cli.options import table_format
from benchmark.core.errors import LISTED, UsageError
from benchmark.core.sheet import Sheet, choose, plain, render, simple
from benchmark.plugins import KINDS, registry
from benchmark.plugins.infos import USES

SHEETS = 4  # contact sheets of a method that are named
PRESET_SIZES = (16, 32, 64, 128, 256)  # working sizes of `benchmark.backbones.settings.geometry`


def _kind(text: str) -> str:
    """``methods`` or ``method``, with the nearest kind named when it is neither."""
    singular = text.removesuffix("s")
    if singular not in LISTED:
        import difflib

        near = difflib.get_close_matches(singular, LISTED, n=1)
        raise UsageError(
            f"there is no list of {text!r}" + (f"; did you mean {near[0] + 's'!r}?" if near else ""),
            allowed=", ".join(kind + "s" for kind in LISTED),
        )
    return singular


@click.command("list", epilog="\b\nExamples:\n  ddbench list methods\n  ddbench list students --format json")
@click.argument("kinds", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@table_format(columns=True)
def list_(kinds: tuple[str, ...], as_json: bool, form: str, columns: tuple[str, ...]) -> None:
    """List what there is: methods, datasets, students, protocols, backbones, executors, metrics, grids."""
    chosen = [_kind(k) for k in kinds] or list(LISTED)
    reg = registry()
    if as_json or form == "json":
        rows = {k: [dataclasses.asdict(info) for info in _infos(k)] for k in chosen}
        click.echo(json.dumps(rows, indent=1))
        return
    sheets = [sheet for kind in chosen for sheet in _sheets(kind, named=len(chosen) > 1)]
    choose(sheets, columns)
    click.echo(render(sheets, form, "ddbench list"), nl=False)
    if reg.broken:
        click.echo(f"\n{len(reg.broken)} plug-in problem(s): ddbench plugins", err=True)


def _sheets(kind: str, named: bool) -> list[Sheet]:
    """One table a kind; of methods one for each thing that they need."""
    infos = _infos(kind)
    if kind != "method":
        parts = {kind + "s" if named else "": infos}
    else:
        parts = {f"methods of {text}": [i for i in infos if i.uses == uses] for uses, text in USES.items()}
        parts["methods that do not say what they need"] = [i for i in infos if i.uses not in USES]
    made = []
    for title, members in parts.items():
        rows = [(i.name, i.summary, getattr(i, "paper", "")) for i in members]
        about = [{"kind": kind, **dataclasses.asdict(i)} for i in members]
        sheet = simple(title, ["name", "summary", "paper"], rows, "lll", documents=about, widths=[None, 66, 44])
        if kind != "method":
            sheet.keep([0, 1])
        if members or kind != "method":
            made.append(sheet)
    return made


@dataclasses.dataclass(frozen=True)
class _Grid:
    name: str
    summary: str


def _infos(kind: str) -> list:
    if kind == "grid":
        from benchmark.studies.spec import shipped

        return [_Grid(name, summary) for name, summary in shipped().items()]
    reg = registry()
    return [reg.items[kind][name] for name in reg.names(kind)]


@click.command(
    epilog="""\b
Examples:
  ddbench show method d3hr
  ddbench show protocol soft hard
  ddbench show grid ipc-curves
"""
)
@click.argument("kind")
@click.argument("names", nargs=-1, required=True)
@click.option("--all", "every", is_flag=True, help="With several protocols: every field, not only the differing ones.")
@table_format()
def show(kind: str, names: tuple[str, ...], every: bool, form: str) -> None:
    """Explain a method's parameters, a protocol's fields (or how several differ), a dataset, a student, a grid."""
    kind = _kind(kind)
    if kind == "grid":
        _show_grids(names)
        return
    infos = [registry().get(kind, name) for name in names]
    if form != "table" and kind != "protocol":
        sheet = simple("", ["name", "summary"], [(i.name, i.summary) for i in infos], "ll")
        sheet.documents = [_document(kind, info) for info in infos]
        click.echo(render([sheet], form, f"ddbench show {kind}"), nl=False)
        return
    if kind == "protocol":
        _show_protocols(names, every, form)
        return
    for name, info in zip(names, infos):
        click.echo(f"{name}: {info.summary}")
        for field in dataclasses.fields(info):
            value = getattr(info, field.name)
            if field.name not in ("name", "summary") and value not in ("", None, ()):
                click.echo(f"  {field.name:10} {value}")
        click.echo(f"  {'from':10} {registry().owner[kind, info.name]}")
        if kind == "method":
            _show_method(info)
        if kind == "dataset":
            _show_source(info.name)
        if kind == "backbone":
            _show_backbone(info)


def _document(kind: str, info) -> dict:
    """What JSON and CSV hold of one of them; of a method with its parameters."""
    about = {"kind": kind, **dataclasses.asdict(info), "from": registry().owner[kind, info.name]}
    if kind == "method":
        about["parameters"] = _parameters(info.load())
    return about


def _parameters(cls) -> list[dict]:
    found = []
    for field in dataclasses.fields(cls.Params):
        default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
        found.append({"name": field.name, "default": default, **field.metadata})
    return found


def _show_grids(names: tuple[str, ...]) -> None:
    from benchmark.core.errors import unknown_name
    from benchmark.studies.spec import shipped, text_of

    for name in names:
        if name not in shipped():
            raise unknown_name("grid", name, shipped())
        click.echo(f"{name}:\n\n{text_of(name)}")


def _show_method(info) -> None:
    cls = info.load()
    doc = (cls.__doc__ or "").strip()
    if doc:
        click.echo("\n" + "\n".join("  " + line.strip() for line in doc.splitlines()))
    uses = cls(cls.Params()).needs()
    needs = ", ".join(name for name in ("backbone", "teacher") if getattr(uses, name))
    needs = needs or "nothing but the training split"
    click.echo(f"\n  needs: {needs}")
    for sheet in sorted(Path("results/sets").glob(f"*-{info.name}-ipc*-s0-*.png"))[:SHEETS]:
        click.echo(f"  contact sheet: {sheet}")
    click.echo()
    rows = []
    for field in dataclasses.fields(cls.Params):
        default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
        choices = field.metadata.get("choices")
        about = field.metadata.get("help", "") + (f" ({', '.join(map(str, choices))})" if choices else "")
        low, high = field.metadata.get("low"), field.metadata.get("high")
        if low is not None or high is not None:
            about += f" [{'…' if low is None else low} to {'…' if high is None else high}]"
        if field.metadata.get("backbone"):
            about += f" [the default is the backbone's {field.metadata['backbone']}, where one was chosen]"
        if field.metadata.get("tune"):
            about += f" [tune: {', '.join(map(str, field.metadata['tune']))}]"
        rows.append((field.name, json.dumps(default), about, field.metadata.get("source", "")))
    if rows:
        heads = ["parameter", "default", "meaning", "source"]
        click.echo(plain([simple("", heads, rows, "llll", widths=[None, 16, 60, 44])]), nl=False)
    special = {d: cls.defaults(d) for d in registry().names("dataset") if cls.defaults(d)}
    for dataset, values in special.items():
        click.echo(f"\n  defaults on {dataset}: " + ", ".join(f"{k}={v}" for k, v in values.items()))
    for preset, values in cls.presets.items():
        click.echo(f"\n  --preset {preset}: " + ", ".join(f"{k}={v}" for k, v in values.items()))


def _show_backbone(info) -> None:
    """A preset's settings, what they become at each image size, and its measured speeds."""
    from benchmark.backbones.settings import Settings, geometry
    from benchmark.backbones.shape import shape_of_settings
    from benchmark.pipeline.cost import table
    from benchmark.pipeline.cost.predict import flops_text

    values, rows, known = info.load(), [], table.known()
    click.echo("\n  settings: " + ", ".join(f"{k}={v}" for k, v in values.items()))
    for side in PRESET_SIZES:
        size, levels = geometry(side)
        shape = shape_of_settings(Settings(**values, image_size=size, levels=levels), 10, 3)
        costs = [flops_text(f) for f in (shape.forward_flops(), shape.encode_flops(), shape.decode_flops())]
        size_of = f"{shape.dit_parameters() / 1e6:.1f} M"
        rows.append((f"{size} px", "x".join(map(str, shape.latent)), shape.tokens, size_of, *costs))
    heads = ["images", "latent", "tokens", "DiT, 10 classes", "a pass", "an encoding", "a decoding"]
    click.echo("\n" + plain([simple("", heads, rows)]), nl=False)
    click.echo("\n  what datasets change of it, with measured quality: benchmark/backbones/datasets.yaml")
    start = f"dit {values['depth']}x{values['width']}/"
    measured = [
        (
            r.backbone,
            r.stage,
            f"{r.guidance:g}" if r.stage == "invert" else "",
            r.images_per_second,
            r.device,
            r.precision,
        )
        for r in known
        if r.backbone.startswith(start)
    ]
    if measured:
        heads = ["backbone", "stage", "guidance", "images/s", "device", "precision"]
        click.echo("\n" + plain([simple("", heads, measured)]), nl=False)
    click.echo("\n  more rows: ddbench speed --backbone NAME --dataset DATASET")


def _show_source(name: str) -> None:
    from benchmark.data.sources import SOURCES, facts

    for what, value in facts(name) if name in SOURCES else ():
        click.echo(f"  {what:10} {value}")


def _show_protocols(names: tuple[str, ...], every: bool, form: str) -> None:
    from benchmark.evaluation.protocols import describe

    rows = describe(*names)
    if len(names) > 1 and not every:
        rows = [row for row in rows if len({str(v) for v in row[1 : 1 + len(names)]}) > 1]
    heads = ["field", *names, "meaning"]
    sheet = simple("", heads, rows, "l" * len(heads), widths=[None, *[34] * len(names), 60])
    click.echo(render([sheet], form, "ddbench show protocol"), nl=False)


@click.command()
@click.option("--traceback", "traces", is_flag=True, help="Show the whole traceback of each broken plug-in.")
@table_format()
def plugins(traces: bool, form: str) -> int:
    """Every plug-in with what it registers, and every broken one with its error."""
    reg, rows, about = registry(), [], []
    for name, distribution in reg.plugins.items():
        owner = f"{name} ({distribution})"
        counts = {kind: sum(o == owner for (k, _), o in reg.owner.items() if k == kind) for kind in KINDS}
        text = ", ".join(f"{n} {kind}{'s' if n > 1 else ''}" for kind, n in counts.items() if n)
        rows.append(("ok", owner, text or "registers nothing"))
        about.append({"plugin": name, "distribution": distribution, "state": "ok", "registers": counts})
    for broken in reg.broken:
        rows.append(("BROKEN", f"{broken.plugin} ({broken.distribution})", broken.error))
        about.append({"plugin": broken.plugin, "distribution": broken.distribution, "state": "broken"})
        about[-1] |= {"error": broken.error, "traceback": broken.traceback}
    if form != "table":
        sheet = simple("", ["state", "plug-in", "registers, or what is wrong"], rows, "lll", documents=about)
        click.echo(render([sheet], form, "ddbench plugins"), nl=False)
        return 0
    for state, owner, text in rows:
        click.echo(f"{state:6}  {owner}: {text}")
        trace = next((a["traceback"] for a in about if state != "ok" and a.get("error") == text), "")
        if traces and trace:
            click.echo(trace)
    return 0


@click.command()
@table_format()
def env(form: str) -> None:
    """Versions, commit and hardware as they go into records, and where things are kept."""
    from benchmark.core.provenance import provenance
    from benchmark.core.store import default_cache
    from benchmark.data.loading import data_root

    found = provenance()
    hardware = found.pop("hardware")
    facts = {**found, **hardware, "gpu": hardware["gpu"] or "none"}
    facts |= {"store": str(default_cache()), "data root": str(data_root() or "not set")}
    if form != "table":
        sheet = simple("", ["name", "value"], list(facts.items()), "ll", documents=[facts])
        click.echo(render([sheet], form, "ddbench env"), nl=False)
        return
    for name, value in facts.items():
        click.echo(f"{name:12} {value}")
