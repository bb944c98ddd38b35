"""Loads plug-ins one at a time, so that a broken one is reported and breaks nothing else.

pluggy aborts all loading when one import fails, registers misspelt hooks silently, and aborts a call when one
implementation raises. Here every plug-in gets a manager of its own: loaded, checked (`check_pending`), called alone.
"""

from __future__ import annotations

import difflib
import os
import re
import traceback
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from benchmark.core import supervise
from benchmark.core.errors import UsageError, unknown_name
from benchmark.plugins import hookspecs
from benchmark.plugins.infos import (
    BackbonePresetInfo,
    Broken,
    CommandInfo,
    DatasetInfo,
    ExecutorInfo,
    Info,
    MethodInfo,
    MetricInfo,
    ProtocolInfo,
    StudentInfo,
)

GROUP = "ddbench"
KINDS: dict[str, tuple[str, type[Info]]] = {
    "method": ("ddbench_methods", MethodInfo),
    "dataset": ("ddbench_datasets", DatasetInfo),
    "student": ("ddbench_students", StudentInfo),
    "protocol": ("ddbench_protocols", ProtocolInfo),
    "backbone": ("ddbench_backbones", BackbonePresetInfo),
    "executor": ("ddbench_executors", ExecutorInfo),
    "metric": ("ddbench_metrics", MetricInfo),
    "command": ("ddbench_commands", CommandInfo),
}


class Registry:
    """Everything that plug-ins registered, by kind and name.

    ``plugins`` maps a plug-in's name to its distribution; ``broken`` lists those that failed, with the reason.
    """

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Info]] = {kind: {} for kind in KINDS}
        self.owner: dict[tuple[str, str], str] = {}  # (kind, name) -> "plug-in (distribution)"
        self.plugins: dict[str, str] = {}
        self.broken: list[Broken] = []

    def load_entry_points(self) -> None:
        """Load each entry point of the group ``ddbench``, in name order."""
        for entry in sorted(_found(), key=lambda e: (e.name != "core", e.name)):
            distribution = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"
            if entry.dist and entry.dist.name == GROUP:
                self._load(entry, distribution)
                continue
            whom = f"plug-in {entry.name}"
            if ended := supervise.blamed(whom):
                self.broken.append(Broken(entry.name, distribution, f"it ended the command that loaded it: {ended}"))
                continue
            with supervise.asking(whom):
                self._load(entry, distribution)

    def _load(self, entry: EntryPoint, distribution: str) -> None:
        try:
            plugin = entry.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plug-in may raise anything while it is imported
            self._report(entry.name, distribution, error)
            return
        self.add(plugin, entry.name, distribution)

    def add(self, plugin: Any, name: str, distribution: str = "local") -> None:
        """Register one plug-in object; on any fault it lands in ``broken`` and adds nothing."""
        try:
            manager = pluggy.PluginManager(GROUP)
            manager.add_hookspecs(hookspecs)
            manager.register(plugin, name=name)
            self._check_spelling(plugin, manager)
            manager.check_pending()
            new: list[tuple[str, Info]] = []
            for kind, (hook, info_type) in KINDS.items():
                for info in (i for part in getattr(manager.hook, hook)() for i in part):
                    if not isinstance(info, info_type):
                        raise TypeError(f"{hook} returned {info!r}; it must return a list of {info_type.__name__}")
                    new.append((kind, info))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - as above
            self._report(name, distribution, error)
            return
        self.plugins[name] = distribution
        for kind, info in new:
            for label in (info.name, *getattr(info, "aliases", ())):
                if (kind, label) in self.owner:
                    self.broken.append(
                        Broken(
                            name,
                            distribution,
                            f"{kind} {label!r} is registered twice: by {self.owner[kind, label]} and by {name} "
                            f"({distribution}); the first one is used",
                        )
                    )
                    continue
                self.owner[kind, label] = f"{name} ({distribution})"
                self.items[kind][label] = info

    @staticmethod
    def _check_spelling(plugin: Any, manager: pluggy.PluginManager) -> None:
        """Refuse functions that look like hooks but are not: pluggy would never call them."""
        hooks = [hook for hook, _ in KINDS.values()]
        for attribute in dir(plugin):
            if attribute.startswith("ddbench_") and attribute not in hooks:
                near = difflib.get_close_matches(attribute, hooks, n=1)
                raise AttributeError(f"{attribute!r} is not a hook" + (f"; did you mean {near[0]!r}?" if near else ""))
            if attribute in hooks and manager.parse_hookimpl_opts(plugin, attribute) is None:
                raise AttributeError(f"{attribute!r} lacks the decorator @benchmark.plugins.hookimpl")

    def _report(self, name: str, distribution: str, error: BaseException) -> None:
        text = f"{type(error).__name__}: {error}"
        self.broken.append(Broken(name, distribution, text, traceback.format_exc()))

    def third_party(self, kind: str, name: str) -> str:
        """The distribution that registered ``name``, with its version; empty where it is ddbench, or nobody did."""
        owner = self.owner.get((kind, name), "")
        distribution = owner.partition(" (")[2].removesuffix(")")
        return "" if distribution.partition(" ")[0] == GROUP else distribution

    def names(self, kind: str) -> list[str]:
        """Registered names of a kind, aliases left out."""
        return sorted(name for name, info in self.items[kind].items() if name == info.name)

    def get(self, kind: str, name: str, *, where: str = "") -> Info:
        """The description registered under ``name``; ``imagefolder:/data/x`` finds ``imagefolder:``.

        So does the dataset ``pets=/data/x`` (`named_path`).

        Raises:
            UsageError: the name is unknown; says the nearest one.
        """
        known = self.items[kind]
        name = name if isinstance(name, str) else repr(name)  # a number or a list in somebody's YAML
        if name in known:
            return known[name]
        named = named_path(name) if kind == "dataset" else None
        if named and OWN_DATA in known:
            if named[0] in known:
                raise UsageError(
                    f"{named[0]!r} is a dataset that is known already",
                    where=where,
                    hint="choose another name for yours",
                )
            return known[OWN_DATA]
        prefix, colon, argument = name.partition(":")
        if colon and prefix + ":" in known:
            if not argument:
                raise UsageError(f"{kind} {name!r} needs an argument after the colon", where=where)
            return known[prefix + ":"]
        hint = _data_hint(name) if kind == "dataset" else ""
        if kind == "dataset" and "=" in name:
            hint = "one's own data is NAME=PATH: a name of letters, digits, . _ and -, and a path"
        if kind == "method" and prefix in known and "=" in argument:
            hint = f"parameters are set with --set {prefix}.{argument}"
        elif kind == "method" and colon and prefix not in known:
            hint = "only `ddbench check` takes module:Class; to run it, register it: docs/own-method.md"
        if self.broken:
            first = self.broken[0]
            hint = hint or f"ddbench list {kind}s"
            hint += f"; ddbench plugins (the plug-in {first.plugin} could not be loaded: {first.error})"
        raise unknown_name(kind, name, self.names(kind), where=where, hint=hint)

    def select(self, kind: str, patterns: Iterable[str], *, where: str = "") -> list[str]:
        """Names that match comma-separated names or shell wildcards (``resnet*``), in the order given."""
        from fnmatch import fnmatchcase

        chosen: list[str] = []
        patterns = tuple(patterns)
        if patterns and not any(p.strip(" ,") for p in patterns):
            raise UsageError(f"the name of the {kind} is empty", where=where, allowed=", ".join(self.names(kind)))
        for pattern in (p.strip() for text in patterns for p in text.split(",")):
            if not pattern:
                continue
            if any(c in pattern for c in "*?[") and ":" not in pattern:
                names = [n for n in self.names(kind) if fnmatchcase(n, pattern)]
                if not names:
                    raise unknown_name(kind, pattern, self.names(kind), where=where)
            else:
                self.get(kind, pattern, where=where)
                names = [pattern]
            chosen += [n for n in names if n not in chosen]
        return chosen


def _data_hint(name: str) -> str:
    """What somebody meant who gave a path or an id of the Hugging Face hub in the place of a dataset's name; or ""."""
    short = re.sub(r"[^\w.-]+", "-", os.path.basename(os.path.abspath(name)), flags=re.ASCII).strip("-.") or "mine"
    if os.path.exists(os.path.expanduser(name)):
        return f"data of your own has a name: --dataset {short}={name}"
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name, re.ASCII):
        get = f"hf download {name} --repo-type dataset --local-dir {short}"
        return f"if it is an id on the Hugging Face hub: {get}, then --dataset {short}={short}"
    return ""


OWN_DATA = "imagefolder:"  # the dataset that NAME=PATH is read as
_NAMED = re.compile(r"([A-Za-z0-9][\w.-]*)=(.+)", re.ASCII | re.DOTALL)


def named_path(text: str) -> tuple[str, str] | None:
    """A dataset given as ``NAME=PATH``, as (name, path); None for any other text.

    The name goes into records and tables in the place of the path.
    """
    found = _NAMED.fullmatch(text)
    return (found.group(1), found.group(2).removeprefix(OWN_DATA)) if found else None


@lru_cache(maxsize=1)
def _found() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=GROUP))


def others() -> dict[str, str]:
    """Plug-ins that other distributions than ddbench installed: top-level module to distribution; none is imported."""
    found = ((e.module.partition(".")[0], e.dist.name if e.dist else "unknown") for e in _found())
    return {module: distribution for module, distribution in found if distribution != GROUP}


@lru_cache(maxsize=1)
def registry() -> Registry:
    """The process's registry, loaded on first use."""
    loaded = Registry()
    loaded.load_entry_points()
    return loaded
