"""Asks third-party code what a plan needs, and knows whose code it was where that goes wrong.

A plan asks methods for much before any job runs: what they need, what they cannot make, how their work splits. What
such code raises becomes a `PluginFault`, which fails the cells of its method and of no other. Where it ends the process
instead (``os._exit``, a crash), `benchmark.core.supervise` begins the command again, and the same question is then
answered with a `PluginFault` without asking.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from benchmark.core import supervise
from benchmark.core.errors import DDBenchError, JobError
from benchmark.plugins.registry import registry

Method = TypeVar("Method")  # an instance of `benchmark.methods.Method`, which lies above

# what is asked of an instance of a method before, and beside, `distill`
QUESTIONS = ("needs", "why_not", "inputs", "classifiers", "resolved", "units", "stages", "work", "work_at", "tiles")


class PluginFault(JobError):
    """The code of a plug-in broke while it was asked: its cells fail, and nothing else."""


@contextlib.contextmanager
def asking(name: str, question: str) -> Iterator[None]:
    """Run code of the method ``name``; nothing is done where it is one of ddbench's own.

    Raises:
        PluginFault: it raised anything but a `DDBenchError`, or has ended the process before.
    """
    distribution = registry().third_party("method", name)
    if not distribution:
        yield
        return
    whom = f"method {name}"
    if ended := supervise.blamed(whom):
        raise _fault(name, distribution, ended)
    try:
        with supervise.asking(whom):
            yield
    except DDBenchError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plug-in may raise anything
        what = f"sys.exit({error.code!r})" if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
        raise _fault(name, distribution, f"{question}: {what}") from error


def _fault(name: str, distribution: str, how: str) -> PluginFault:
    return PluginFault(
        f"{name} cannot be planned: {' '.join(how.split())}",
        where=f"in the plug-in {distribution}",
        hint="a fault of the plug-in: tell its authors; --debug prints the traceback; other methods go on",
    )


def load(name: str, where: str = "") -> Any:
    """The class of a method.

    Raises:
        UsageError: an unknown name. PluginFault: it cannot be imported.
    """
    info = registry().get("method", name, where=where)
    with asking(name, "import"):
        return info.load()


def loadable(names: Iterable[str]) -> dict[str, Any]:
    """The classes of those methods that can be imported, by name."""
    found = {}
    for name in names:
        with contextlib.suppress(PluginFault):
            found[name] = load(name)
    return found


def held(name: str, method: Method) -> Method:
    """``method``, whose answers to `QUESTIONS` go through `asking` from now on, where it is a third party's."""
    if registry().third_party("method", name):
        for question in QUESTIONS:
            object.__setattr__(method, question, _held(name, question, getattr(method, question)))
    return method


def _held(name: str, question: str, ask: Any) -> Any:
    @functools.wraps(ask)
    def asked(*arguments: Any, **named: Any) -> Any:
        with asking(name, question):
            return ask(*arguments, **named)

    return asked
