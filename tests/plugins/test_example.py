"""The example plug-in, installed the way pip leaves it (a module and its metadata on the path), and a broken one."""

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "example_plugin"


def install(target: Path, name: str, entry_points: str) -> None:
    info = target / f"{name.replace('-', '_')}-0.1.dist-info"  # as pip names it
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(entry_points)


@pytest.fixture
def site(tmp_path):
    config = configparser.ConfigParser()
    config.read(EXAMPLE / "setup.cfg")
    site = tmp_path / "site"
    install(site, "ddbench-example", "[ddbench]\n" + config["options.entry_points"]["ddbench"].strip())
    (site / "ddbench_example.py").write_text((EXAMPLE / "ddbench_example.py").read_text())
    install(site, "broken-neighbour", "[ddbench]\nbroken = broken_neighbour\n")
    (site / "broken_neighbour.py").write_text("import no_such_module\n")
    return site


def ddbench(site: Path, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(site), "DDBENCH_CACHE": str(tmp_path / "store")}
    command = [str(Path(sys.executable).parent / "ddbench"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)


def test_it_is_listed_and_the_broken_neighbour_is_reported(site, tmp_path):
    assert "mean-of-k" in ddbench(site, tmp_path, "list", "methods").stdout
    shown = ddbench(site, tmp_path, "plugins").stdout
    assert "ok      example (ddbench-example 0.1): 1 method" in shown
    assert "BROKEN  broken (broken-neighbour 0.1): ModuleNotFoundError" in shown


def test_it_distils(site, tmp_path):
    options = ["--dataset", "digits", "--ipc", "2", "--seeds", "1", "--set", "k=3", "--jobs", "1"]
    done = ddbench(site, tmp_path, "distill", "--method", "mean-of-k", *options, "--out", "set")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "set").glob("*/*.png"))) == 20


def test_the_readme_shows_it_as_it_is():
    readme = (EXAMPLE.parents[1] / "README.md").read_text()
    code = (EXAMPLE / "ddbench_example.py").read_text()
    assert code[code.index("from dataclasses") :].strip() in readme
