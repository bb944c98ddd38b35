"""`ddbench selftest`: passes on this CPU, and fails where a kernel's result is perturbed, naming the stage."""

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner

from benchmark.cli.selftest import selftest as command
from benchmark.pipeline.cost import measure, predict, table
from benchmark.testing import selftest
from benchmark.training import ranks_agree


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    selftest._backbone.cache_clear()
    yield
    selftest._backbone.cache_clear()


def perturbed(function, dtype=torch.float32, by=1e-3):
    """``function`` whose results in one type of number are a little off, as those of one bad kernel are."""

    def call(*args, **options):
        found = function(*args, **options)
        return found * (1 + by) if found.dtype == dtype else found

    return call


def failed(findings):
    return [f.name for f in findings if f.state == selftest.FAILED]


def test_a_bad_kernel_is_found_where_it_is_used(monkeypatch):
    """Attention is used by the DiT, the VAE's middle and the ViT; the ConvNets have none."""
    monkeypatch.setattr(F, "scaled_dot_product_attention", perturbed(F.scaled_dot_product_attention))
    names = ("DiT, guided noise", "student convnet3_bn")
    monkeypatch.setattr(selftest, "STAGES", {name: selftest.STAGES[name] for name in names})
    assert failed(selftest.numerics("cpu")) == ["DiT, guided noise"]


def test_what_differs_the_second_time_is_found(monkeypatch):
    calls = []
    plain = F.batch_norm

    def restless(*args, **options):
        calls.append(1)
        return plain(*args, **options) * (1 + 1e-6 * len(calls))

    monkeypatch.setattr(F, "batch_norm", restless)
    monkeypatch.setattr(selftest, "STAGES", {"student convnet3_bn": selftest.STAGES["student convnet3_bn"]})
    assert "not deterministic" in [f.text for f in selftest.numerics("cpu") if f.state == selftest.FAILED][-1]


def test_precision_that_is_not_in_force_and_one_that_is_too_coarse(monkeypatch):
    monkeypatch.setattr(selftest, "MIXED", ("student convnet3_bn",))
    with monkeypatch.context() as strict:
        strict.setattr(selftest, "LIMITS", {"bf16": 1e-5})
        assert failed(selftest.mixed("cpu"))
    assert not failed(selftest.mixed("cpu"))
    monkeypatch.setattr(selftest.Precision, "context", lambda self, device: torch.autocast("cpu", enabled=False))
    assert ["no effect" in f.text for f in selftest.mixed("cpu") if f.state == selftest.FAILED] == [True]


def test_a_method_that_makes_other_images_is_named(monkeypatch, tmp_path):
    """Its reference is made with a float64 backbone."""
    monkeypatch.setattr(F, "scaled_dot_product_attention", perturbed(F.scaled_dot_product_attention, by=3.0))
    assert failed(selftest.methods("cpu", tmp_path, quick=True)) == ["method d3hr"]


def test_ranks_that_disagree_or_die_are_findings(monkeypatch):
    wanted = ranks_agree.summed_gradients("cpu")
    for found, state in (([wanted, wanted], "ok"), ([wanted, wanted * 1.01], "FAILED"), ("one died", "FAILED")):
        monkeypatch.setattr(ranks_agree, "from_two_processes", lambda cuda, found=found: found)
        assert [f.state for f in selftest.ranks("cpu")] == ["not run", state]


@pytest.mark.slow
def test_two_processes_agree():
    assert [f.state for f in selftest.ranks("cpu")] == ["not run", "ok"]


def test_the_quick_command_says_what_it_could_not(monkeypatch):
    names = ("VAE encoder", "student convnet3_bn")
    monkeypatch.setattr(selftest, "STAGES", {name: selftest.STAGES[name] for name in names})
    monkeypatch.setattr(selftest, "MIXED", names[:1])
    found = CliRunner().invoke(command, ["--device", "cpu", "--quick"], standalone_mode=False)
    assert found.return_value == 0, found.output
    for words in ("not run  augmentation", "not run  ranks, speed", "a student out of memory", "0 failed"):
        assert words in found.output
    monkeypatch.setattr(F, "group_norm", perturbed(F.group_norm))
    found = CliRunner().invoke(command, ["--device", "cpu", "--quick"], standalone_mode=False)
    assert found.return_value == 1 and "FAILED   VAE encoder" in found.output, found.output


def test_speeds_are_kept_for_plan(monkeypatch):
    monkeypatch.setattr(measure, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(selftest, "TINY", measure.Shape(16, 2, 1, 2, 3, (4, 4, 4), 4, 8, 1, (8, 16), 1, False))
    rows, found = zip(*selftest.speeds("cpu", "ddbench selftest"))
    table.keep(list(rows))
    assert [r for r in table.known() if r.command == "ddbench selftest"] == sorted(rows, key=table._what)
    assert len(found) == 5 and all("of a large product" in f.text for f in found)


def test_data_sheets_are_found_by_part_of_a_name():
    assert predict.data_sheet("NVIDIA A100-SXM4-80GB", "bf16+compile") == 312e12
    assert predict.data_sheet("NVIDIA H100 80GB HBM3", "fp32") == 67e12
    assert predict.data_sheet("AMD EPYC", "fp32") is None
