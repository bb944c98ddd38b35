"""Plug-ins are loaded one at a time: a broken one is reported and breaks nothing."""

import subprocess
import sys
import types

import pytest

from benchmark.core.errors import LISTED, UsageError, unknown_name
from benchmark.plugins import KINDS, MethodInfo, Registry, hookimpl, hookspecs, registry


def plugin(**hooks):
    module = types.SimpleNamespace(**{name: hookimpl(f, specname=None) for name, f in hooks.items()})
    return module


def info(name):
    return MethodInfo(name, "summary", "m:C")


def test_a_plugin_registers():
    reg = Registry()
    reg.add(plugin(ddbench_methods=lambda: [info("x")]), "p", "dist 1")
    assert reg.names("method") == ["x"] and not reg.broken and reg.owner["method", "x"] == "p (dist 1)"


@pytest.mark.parametrize(
    "hooks, message",
    [
        ({"ddbench_method": lambda: [info("x")]}, "did you mean 'ddbench_methods'"),
        ({"ddbench_methods": lambda: 1 / 0}, "ZeroDivisionError"),
        ({"ddbench_methods": lambda: ["x"]}, "must return a list of MethodInfo"),
        ({"ddbench_methods": lambda unknown: []}, "unknown"),
    ],
)
def test_faults_are_reported_and_nothing_is_added(hooks, message):
    reg = Registry()
    reg.add(plugin(**hooks), "bad", "dist 1")
    reg.add(plugin(ddbench_methods=lambda: [info("good")]), "good", "dist 2")
    assert message in reg.broken[0].error and reg.names("method") == ["good"]


def test_an_undecorated_hook_is_caught():
    reg = Registry()
    reg.add(types.SimpleNamespace(ddbench_methods=lambda: []), "p", "d")
    assert "hookimpl" in reg.broken[0].error


def test_duplicates_name_both_distributions():
    reg = Registry()
    reg.add(plugin(ddbench_methods=lambda: [info("x")]), "a", "first 1")
    reg.add(plugin(ddbench_methods=lambda: [info("x")]), "b", "second 2")
    assert "first 1" in reg.broken[0].error and "second 2" in reg.broken[0].error


def test_only_lists_that_there_are_are_hinted_at():
    assert set(LISTED) == set(KINDS) - {"command"} | {"grid"}
    for kind in LISTED:
        assert f"ddbench list {kind}s" in str(unknown_name(kind, "x", ["y"]))
    for kind in ("parameter", "teacher", "command"):
        assert "next:" not in str(unknown_name(kind, "x", ["y"]))
    assert "next:    look" in str(unknown_name("method", "x", ["y"], hint="look"))


def test_unknown_names_get_the_nearest_one():
    with pytest.raises(UsageError, match="did you mean 'd3hr'"):
        registry().get("method", "d3rh")


def test_wildcards_and_commas():
    assert registry().select("method", ["r*"]) == [n for n in registry().names("method") if n.startswith("r")]
    assert registry().select("method", ["random, dit"]) == ["random", "dit"]


def test_ours_all_load():
    assert not registry().broken
    for kind in KINDS:
        for name in registry().names(kind):
            if kind != "protocol":
                assert registry().get(kind, name if not name.endswith(":") else name + "x").load() is not None


def test_every_hook_is_documented():
    for hook, _ in KINDS.values():
        assert getattr(hookspecs, hook).__doc__


@pytest.mark.parametrize("arguments", [["--help"], ["list", "methods"], ["run", "--help"]])
def test_help_and_lists_do_not_import_torch(arguments):
    code = (
        "import sys; sys.argv = ['ddbench', *sys.argv[1:]]\n"
        "from benchmark.cli import main\n"
        "try: main()\n"
        "except SystemExit as e: assert e.code in (0, None), e.code\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
