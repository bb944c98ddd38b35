"""The layout: packages form layers, no files import each other in a circle, and few rooms and arguments.

Imports inside functions and those for types only count like any other.
"""

import ast
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = (  # from the bottom up; packages of one line do not import each other
    ("benchmark.core",),
    ("benchmark.plugins",),
    ("benchmark.data", "benchmark.students"),
    ("benchmark.training",),
    ("benchmark.teachers",),
    ("benchmark.evaluation",),
    ("benchmark.backbones",),
    ("benchmark.methods",),
    ("benchmark.results",),
    ("benchmark.sets",),
    ("benchmark.pipeline",),
    ("benchmark.studies",),
    ("benchmark.testing",),
    ("benchmark.api",),
    ("benchmark.cli", "benchmark.builtin", "baselines", "d3hr_plugin"),
)
LEVEL = {package: level for level, packages in enumerate(LAYERS) for package in packages}
PLUGINS = ("baselines", "d3hr_plugin")
ROOMS = 20  # folders and loose files that a newcomer sees: `benchmark/` opened, and the plug-ins
ARGUMENTS = 8  # that a function takes by position


def modules(root: Path) -> dict[str, Path]:
    """Dotted name to file of every module of the three packages."""
    files = [f for top in ("benchmark", *PLUGINS) for f in sorted((root / top).rglob("*.py"))]
    return {".".join(f.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def package(module: str) -> str:
    return ".".join(module.split(".")[:2]) if module.startswith("benchmark.") else module.split(".")[0]


def imports(file: Path) -> list[tuple[str, int]]:
    """(module or module.name, line) of every import in the file, those inside functions and type-only ones too."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
    return found


def faults(root: Path) -> list[str]:
    """Imports that go up, or sideways between packages of one layer, and private doors of plug-ins."""
    found = []
    for module, file in modules(root).items():
        here = package(module)
        for target, line in imports(file):
            there = package(target)
            if there in ("benchmark", here) or there not in LEVEL or here not in LEVEL:
                continue
            at = f"{file.relative_to(root)}:{line} imports {target}"
            if LEVEL[there] >= LEVEL[here]:
                found.append(f"{at}: {here} lies below or beside {there}")
            elif here in PLUGINS and not (there == "benchmark.api" and target.count(".") == 2):
                found.append(f"{at}: plug-ins import benchmark.api only")
    return found


def circles(root: Path) -> list[list[str]]:
    """Files that import each other, directly or through others: each group once."""
    files = modules(root)
    edges = {module: {_module(t, files) for t, _ in imports(file)} - {module, ""} for module, file in files.items()}
    # what imports none of the others is in no circle
    while leaves := [m for m, targets in edges.items() if not targets & edges.keys()]:
        for module in leaves:
            del edges[module]
    reach = {m: _reachable(m, edges) for m in edges}
    groups = {tuple(sorted(o for o in reach[m] if m in reach.get(o, ()))) for m in edges if m in reach[m]}
    return [list(group) for group in sorted(groups)]


def _module(target: str, files: dict[str, Path]) -> str:
    """The module that an import loads: ``a.b`` of ``a.b.name``; "" for one that is not ours."""
    while target and target not in files:
        target = target.rpartition(".")[0]
    return target


def _reachable(module: str, edges: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    todo = [module]
    while todo:
        new = edges.get(todo.pop(), set()) - found
        found |= new
        todo += new
    return found


def rooms(root: Path) -> list[str]:
    """The folders and files of ``benchmark/``, and the plug-ins."""
    opened = [p.name for p in (root / "benchmark").iterdir() if not p.name.startswith("_") and p.name != "py.typed"]
    return sorted([*opened, *PLUGINS])


def crowded(root: Path) -> list[str]:
    """Functions that take more than `ARGUMENTS` arguments by position; ``self`` does not count."""
    found = []
    for file in modules(root).values():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                names = [a.arg for a in (*node.args.posonlyargs, *node.args.args) if a.arg not in ("self", "cls")]
                if len(names) > ARGUMENTS:
                    found.append(f"{file.relative_to(root)}:{node.lineno} {node.name} takes {len(names)}")
    return found


def test_no_circle_of_files():
    assert circles(ROOT) == []


def test_few_rooms():
    assert len(rooms(ROOT)) <= ROOMS, rooms(ROOT)


def test_few_arguments_by_position():
    assert crowded(ROOT) == []


def test_imports_go_down():
    unknown = {package(m) for m in modules(ROOT)} - set(LEVEL) - {"benchmark", "benchmark.__init__"}
    assert not unknown, f"packages without a layer: {unknown}"
    assert faults(ROOT) == []


@pytest.mark.parametrize(
    "path, line",
    [
        ("benchmark/core/extra.py", "def f():\n    from benchmark.plugins import registry"),
        ("benchmark/data/extra.py", "import benchmark.students.build"),
        ("baselines/extra.py", "from benchmark.methods import Method"),
        ("baselines/extra.py", "from benchmark.api.calls import run"),
    ],
)
def test_this_check_can_fail(tmp_path, path, line):
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(line)
    assert len(faults(tmp_path)) == 1


@pytest.mark.parametrize(
    "line", ["from {} import Execution", "def f():\n    import {}", "if TYPE_CHECKING:\n    import {}"]
)
def test_a_circle_of_files_is_found(tmp_path, line):
    """One import put back makes the old circle of `describe` and `run` (and of nothing else)."""
    folder = tmp_path / "benchmark" / "pipeline"
    shutil.copytree(ROOT / "benchmark" / "pipeline", folder, ignore=shutil.ignore_patterns("__pycache__"))
    assert circles(tmp_path) == []
    describe = folder / "describe.py"
    describe.write_text(describe.read_text() + "\n" + line.format("benchmark.pipeline.run"))
    assert circles(tmp_path) == [["benchmark.pipeline.describe", "benchmark.pipeline.run"]]


def test_crowded_functions_are_found(tmp_path):
    (tmp_path / "benchmark").mkdir()
    eight = "a, b, c, d, e, f, g, h"
    lines = (f"def f(self, {eight}, *, i): ...", f"def g({eight}, i): ...")
    (tmp_path / "benchmark" / "extra.py").write_text("\n".join(lines))
    assert crowded(tmp_path) == ["benchmark/extra.py:2 g takes 9"]
