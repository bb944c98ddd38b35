"""The packages form layers: each imports only from layers below it, function-level imports included."""

import ast
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
    ("benchmark.calls",),
    ("benchmark.api",),
    ("benchmark.cli", "benchmark.builtin", "baselines", "d3hr_plugin"),
)
LEVEL = {package: level for level, packages in enumerate(LAYERS) for package in packages}
PLUGINS = ("baselines", "d3hr_plugin")


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
            elif here in PLUGINS and there != "benchmark.api":
                found.append(f"{at}: plug-ins import benchmark.api only")
    return found


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
    ],
)
def test_this_check_can_fail(tmp_path, path, line):
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(line)
    assert len(faults(tmp_path)) == 1
