"""The throughput table and what is predicted from it."""

import dataclasses
import re

import pytest
import torch
from click.testing import CliRunner

from benchmark.backbones.shape import DIT_XL_2_256, Shape
from benchmark.cli.speed import speed
from benchmark.core.compute import Precision
from benchmark.core.errors import DataError, UsageError
from benchmark.methods import Work
from benchmark.pipeline.cost import measure, predict
from benchmark.pipeline.cost.predict import Place
from benchmark.pipeline.cost.table import Row, add, committed, parse, seconds_an_image

SHAPE = Shape(16, 2, 1, 2, 3, (4, 4, 4), 4, 8, 1, (8, 16), 1, False)
ROW = Row("GPU", SHAPE.name, "bf16", "invert", 1.0, 30, 64, 0, 50.0, 10**9, "2026-01-01", "ddbench speed")
PLACE = Place("GPU", "bf16")


def test_committed_rows_are_whole():
    rows = committed()
    assert rows and all(
        r.images_per_second > 0 and r.memory > 0 and r.command.startswith("ddbench speed") for r in rows
    )


def test_table_is_read_back_and_replaced(tmp_path):
    path = tmp_path / "t.csv"
    add(path, [ROW])
    add(path, [dataclasses.replace(ROW, guidance=4.0, images_per_second=20.0)])
    newer = dataclasses.replace(ROW, images_per_second=60.0, measured="2026-02-02")
    add(path, [newer])
    assert parse(path.read_text(), "t") == [newer, dataclasses.replace(ROW, guidance=4.0, images_per_second=20.0)]
    with pytest.raises(DataError, match="line 2|not a row"):
        parse(path.read_text().replace("60.0", "fast"), "t.csv")
    with pytest.raises(DataError, match="not a throughput table"):
        parse("a,b\n", "t.csv")


def test_scaling_by_passes():
    guided = dataclasses.replace(ROW, guidance=4.0, images_per_second=20.0)
    ask = ("GPU", SHAPE.name, "bf16", "invert")
    assert seconds_an_image([ROW, guided], *ask, 30, 1.0) == (1 / 50, ROW)
    assert seconds_an_image([ROW, guided], *ask, 60, 8.0) == (2 / 20, guided)
    assert seconds_an_image([ROW], *ask, 15, 4.0) == (1 / 50, ROW)  # half the steps, twice the passes
    assert seconds_an_image([ROW], "other GPU", *ask[1:], 30, 1.0) is None
    assert seconds_an_image([ROW], "GPU", SHAPE.name, "fp32", "invert", 30, 1.0) is None


def test_hours_from_a_row_and_flops_without():
    work = [(Work("invert", 36_000, 30, 4.0, shared=True), 3), (Work("sample", 100, 30, 1.0), 3)]
    text = "\n".join(predict.report([predict.work_line(w, SHAPE, PLACE, [ROW], n) for w, n in work], PLACE, "FILL"))
    assert "predicted 24 min on one GPU (bf16)" in text  # 36,000 x 2 passes / 50 a second, and 6 s more
    assert "36,000 images x 30 steps x 2 passes (guided)" in text and "3 sets x 100 images" in text
    assert "50 images/s" in text and "2026-01-01" in text and "FILL" not in text
    text = "\n".join(predict.report([predict.work_line(work[0][0], SHAPE, PLACE, [])], PLACE, "FILL"))
    assert (
        "no row of the throughput table for this on GPU in bf16" in text and "FILL" in text and "predicted" not in text
    )


def test_imagenet_to_depth_30_is_eighteen_exaflop():
    line = predict.work_line(Work("invert", 1_281_167, 30, 4.0, shared=True), DIT_XL_2_256, PLACE, [])
    assert line.flops == pytest.approx(1_281_167 * 30 * 2 * 237.3e9, rel=1e-3) and "18.2 EFLOP" not in line.text
    text = "\n".join(predict.report([line], PLACE, "FILL"))
    assert "18.2 EFLOP" in text and "50.7 h on an A100, 16.9 h on an H100 in bf16" in text and "--precision" not in text
    cpu = Place("CPU", "fp32", gpu=False)
    assert "50.7 h on an A100" in "\n".join(predict.report([line], cpu, "FILL"))  # years there: a GPU's hours too
    assert "at 20 GFLOP/s" in "\n".join(predict.report([line], cpu, "FILL"))
    small = predict.work_line(Work("invert", 1000, 30, 1.0), DIT_XL_2_256, cpu, [])
    assert "98.9 h at 20 GFLOP/s or 39.6 h at 50 GFLOP/s" in "\n".join(predict.report([small], cpu, "FILL"))


def test_texts():
    assert predict.hours_text(61_200) == "17 h" and predict.hours_text(3.6e9) == "1,000,000 h"
    assert predict.hours_text(720) == "12 min" and predict.hours_text(8) == "8 s"
    assert predict.bytes_text(21e9) == "21 GB" and predict.flops_text(237.3e9) == "237 GFLOP"


def test_command_measures_and_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "LEAST_SECONDS", 0.0)
    path = tmp_path / "t.csv"
    command = ["--backbone", "tiny", "--dataset", "digits", "--batch", "2", "--device", "cpu", "--add", str(path)]
    monkeypatch.setattr("sys.argv", ["ddbench", "speed", *command])
    found = CliRunner().invoke(speed, [*command, "--student", "convnet3_bn", "--image-size", "8", "--classes", "10"])
    assert found.exit_code == 0, found.output
    rows = parse(path.read_text(), "t")
    stages = [(r.stage, r.guidance, r.steps) for r in rows]
    assert sorted(stages) == [
        ("decode", 1, 1),
        ("encode", 1, 1),
        ("invert", 1, 30),
        ("invert", 4, 30),
        ("student", 1, 1),
    ]
    assert {r.backbone for r in rows} == {"dit 4x128/1 4x4x4, vae 16-32 1x8px", "convnet3_bn 8px"}
    assert {r.command for r in rows} == {"ddbench speed --backbone tiny --dataset digits --batch 2 --device cpu"}
    assert all(r.images_per_second > 0 and r.memory > 10**7 and r.threads == 1 for r in rows)


def test_a_compiled_precision_is_measured_compiled(monkeypatch):
    """A row that says bf16+compile and holds the speed of plain bf16 would be wrong."""
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model, *_, **__: compiled.append(type(model).__name__) or model)
    monkeypatch.setattr(measure, "compile_blocks", lambda dit: compiled.append(type(dit).__name__))
    monkeypatch.setattr(measure, "LEAST_SECONDS", 0.0)
    for name in ("fp32", "fp32+compile"):
        measure.with_random_weights(SHAPE, "cpu", Precision.named(name))
        measure.measure_student("convnet3_bn", 3, 1, 8, "cpu", name, 4, "")
    assert compiled == ["DiTTransformer2DModel", "ConvNet"]


def test_command_mistakes():
    for arguments in (["--backbone", "tiny"], ["--dataset", "digits"], ["--batch", "0"]):
        assert isinstance(CliRunner().invoke(speed, arguments).exception, UsageError)
    assert "images/s" in CliRunner().invoke(speed, []).output


def test_assumed_hours_are_ordered_as_common_sense_orders_them():
    """fp32 costs more than TF32, TF32 more than bf16; an H100 less than an A100; no rate is above the card's peak."""
    peaks = {"half": (312e12, 990e12), "tf32": (156e12, 495e12), "fp32": (19.5e12, 67e12)}
    for kind, rates in predict.GPU_RATES.items():
        for column, pair in rates.items():
            assert all(0.05 * peak < rate < 0.65 * peak for rate, peak in zip(pair, peaks[column])), (kind, column)
        assert all(a > b for a, b in zip(rates["half"], rates["tf32"]))
        assert all(a > b for a, b in zip(rates["tf32"], rates["fp32"]))
    lines = [predict.Line(stage, "", 1e18, None, None) for stage in ("invert", "encode", "students")]
    hours = {name: predict.assumed(lines, name) for name in ("fp32", "tf32", "bf16", "bf16+compile")}
    assert hours["fp32"] > hours["tf32"] > hours["bf16"] == hours["bf16+compile"]
    assert all(slow > fast for slow, fast in hours.values())
    said = predict.report(lines, predict.Place("a GPU", "fp32"), "FILL")
    assert any("--precision bf16 would take" in line for line in said)


def test_a_larger_job_is_never_predicted_faster_on_a_cpu():
    """The first time that is printed is this machine's, however long it is."""
    cpu, units, seen = Place("CPU", "fp32", gpu=False), {"s": 1, "min": 60, "h": 3600}, []
    for flops in (1e12, 0.73e15, 17e15, 18e15, 27.9e15, 1e18):
        text = "\n".join(predict.report([predict.Line("teacher", "", flops, None, None)], cpu, ""))
        number, unit = re.search(r"until then: ([\d.,]+) (s|min|h) at", text).groups()
        seen.append(float(number.replace(",", "")) * units[unit])
    assert seen == sorted(seen) and seen[-1] > 1e5 * seen[0]
    assert "too long for a CPU" in text and "fill it with" not in text
