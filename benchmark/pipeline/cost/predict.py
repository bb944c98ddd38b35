"""What a plan will cost: FLOPs with the arithmetic spelled out, hours where the table knows the device, disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchmark.backbones.shape import Shape
from benchmark.methods import Work
from benchmark.pipeline.cost.table import Row, passes, seconds_an_image, student_name

# FLOP/s of NVIDIA's data sheets (dense), by a part of the device's name; an H100 is the SXM5 one
PEAKS = {
    "A100": {"half": 312e12, "tf32": 156e12, "fp32": 19.5e12},
    "H100": {"half": 990e12, "tf32": 495e12, "fp32": 67e12},
    "H200": {"half": 990e12, "tf32": 495e12, "fp32": 67e12},
}
# FLOP/s that hours are given for where nothing was measured: what an A100 and an H100 are assumed to sustain.
# Convolutions of a VAE reach less of `PEAKS` than a transformer's products, small students less again: NVIDIA's tuned
# ResNet-50 in mixed precision trains 2,470 images/s on an A100 (61 TFLOP/s, DeepLearningExamples), an untuned
# ResNet-18 about a third.
GPU_RATES = {
    "transformer": {"half": (100e12, 300e12), "tf32": (50e12, 150e12), "fp32": (12e12, 35e12)},
    "VAE": {"half": (60e12, 150e12), "tf32": (30e12, 80e12), "fp32": (10e12, 30e12)},
    "classifier": {"half": (20e12, 60e12), "tf32": (12e12, 35e12), "fp32": (8e12, 25e12)},
}
KINDS = {"encode": "VAE", "decode": "VAE", "vae": "VAE", "students": "classifier"}  # of work, by stage
SLOWER = 2.0  # times: from there on a plan in fp32 says what bf16 would cost
CPU_RATES = (20e9, 50e9)  # the same on one core, for what a CPU can do
LONGEST_ON_CPU = 10 * 86400  # s; for more than that a GPU's hours are printed as well
STEP_PASSES = 3  # a training step: forward, and backward that costs two forwards
CLASSIFIER_PASSES = {"score": (1, "pass"), "match": (3 * STEP_PASSES, "(forward, backward, twice differentiated)")}
LATENT_PASSES = 2  # a step on latents: forward, and backward to the input alone
PNG_SHARE = 0.7  # of the raw bytes, what a photograph takes as PNG


@dataclass(frozen=True)
class Line:
    """One stage: its arithmetic as text, its FLOPs, and its seconds if a row of the table tells."""

    stage: str
    text: str
    flops: float
    seconds: float | None
    row: Row | None


@dataclass(frozen=True)
class Place:
    """The device that is asked about: what the table calls it, the precision, and whether it is a GPU."""

    device: str
    precision: str
    gpu: bool = True


def work_line(work: Work, shape: Shape, place: Place, rows: list[Row], sets: int = 1) -> Line:
    """One part of a method's work; ``sets`` multiplies what is not shared."""
    images = work.images * (1 if work.shared else sets)
    count = f"{images:,} images" if work.shared or sets == 1 else f"{sets} sets x {work.images:,} images"
    if work.stage in ("encode", "decode"):
        each = shape.encode_flops() if work.stage == "encode" else shape.decode_flops()
        text = f"{count} x {flops_text(each)}"
        found = seconds_an_image(rows, place.device, shape.name, place.precision, work.stage)
        total = images * each
    else:
        trained = {"tune": STEP_PASSES, "refine": LATENT_PASSES}
        factor = trained.get(work.stage) or passes(work.guidance)
        what = "(forward, backward)" if work.stage in trained else {1: "pass", 2: "passes (guided)"}[factor]
        text = f"{count} x {work.steps} steps x {factor} {what} x {flops_text(shape.forward_flops())}"
        total = images * work.steps * factor * shape.forward_flops()
        found = seconds_an_image(rows, place.device, shape.name, place.precision, "invert", work.steps, work.guidance)
        found = None if work.stage in trained else found
    text += ", once for every IPC and seed" if work.shared else ""
    return Line(work.stage, text, total, images * found[0] if found else None, found[1] if found else None)


def classifier_line(work: Work, name: str, side: int, forward: float, place: Place, rows: list[Row], sets: int) -> Line:
    """One part of a method's work on a classifier of ``forward`` FLOPs an image; a row of training it tells both."""
    images = work.images * (1 if work.shared else sets)
    count = f"{images:,} images" if work.shared or sets == 1 else f"{sets} sets x {work.images:,} images"
    factor, what = CLASSIFIER_PASSES.get(work.stage, (STEP_PASSES, "(forward, backward)"))
    text = f"{count} x {work.steps:,} steps x {factor} {what} x {flops_text(forward)} of {name}"
    text += ", once for every IPC and seed" if work.shared else ""
    found = seconds_an_image(rows, place.device, student_name(name, side), place.precision, "student")
    seconds = images * work.steps * found[0] * factor / STEP_PASSES if found else None
    return Line(work.stage, text, images * work.steps * factor * forward, seconds, found[1] if found else None)


def student_line(
    student: str, side: int, steps: int, batch: int, students: int, forward: float, place: Place, rows: list[Row]
) -> Line:
    """Training ``students`` students for ``steps`` steps of ``batch`` images; ``forward`` FLOPs an image."""
    images = steps * batch * students
    found = seconds_an_image(rows, place.device, student_name(student, side), place.precision, "student")
    text = (
        f"{students:,} x {student} at {side} px x {steps:,} steps x {batch} images x {STEP_PASSES} (forward, backward)"
    )
    text += f" x {flops_text(forward)}"
    total = images * STEP_PASSES * forward
    return Line("students", text, total, images * found[0] if found else None, found[1] if found else None)


def kind_of(stage: str) -> str:
    """transformer, VAE or classifier: whose arithmetic a stage's FLOPs are."""
    return KINDS.get(stage) or ("classifier" if stage in CLASSIFIER_PASSES or stage == "recover" else "transformer")


def assumed(lines: Iterable[Line], precision: str) -> tuple[float, float]:
    """Seconds of the lines on an A100 and on an H100 at `GPU_RATES`."""
    rates = [(line.flops, GPU_RATES[kind_of(line.stage)][_column(precision)]) for line in lines]
    return sum(f / r[0] for f, r in rates), sum(f / r[1] for f, r in rates)


def _column(precision: str) -> str:
    name = precision.partition("+")[0]
    return {"bf16": "half", "fp16": "half", "tf32": "tf32"}.get(name, "fp32")


def data_sheet(device: str, precision: str) -> float | None:
    """FLOP/s that the data sheet of a device promises; None where `PEAKS` does not have it."""
    found = next((peaks for name, peaks in PEAKS.items() if name in device), None)
    return found[_column(precision)] if found else None


def report(lines: Iterable[Line], place: Place, fill: str) -> list[str]:
    """The prediction as text; ``fill`` is the command that measures what is missing, "" where there is none."""
    lines = [line for line in lines if line.flops]
    out = []
    for line in lines:
        known = f": {hours_text(line.seconds)}" if line.seconds is not None else ""
        out.append(f"  {line.stage:9} {flops_text(line.flops):>10}  = {line.text}{known}")
    total, unknown = sum(line.flops for line in lines), sum(line.flops for line in lines if line.seconds is None)
    measured = [line for line in lines if line.row is not None]
    if len(lines) > 1:
        out.append(f"  {'in all':9} {flops_text(total):>10}")
    if measured:
        seconds = sum(line.seconds for line in measured)
        out.append(f"  predicted {hours_text(seconds)} on one {place.device} ({place.precision}), from")
        for row in dict.fromkeys(line.row for line in measured):
            detail = f" (guidance {row.guidance:g}, {row.steps} steps)" if row.stage == "invert" else ""
            threads = f", {row.threads} thread(s)" if row.threads else ""
            rate = f"{row.images_per_second:g} images/s"
            out.append(f"    {row.stage}{detail}: {rate}{threads}, {row.measured}, {row.backbone}: {row.command}")
    if unknown:
        what = "this" if not measured else ", ".join(line.stage for line in lines if line.seconds is None)
        missing = f"  no row of the throughput table for {what} on {place.device} in {place.precision}"
        out += [f"{missing}; fill it with", f"    {fill}"] if fill else [missing]
        rest = [line for line in lines if line.seconds is None]
        if not place.gpu:
            guesses = " or ".join(f"{hours_text(unknown / rate)} at {flops_text(rate)}/s" for rate in CPU_RATES)
            out.append(f"    until then: {guesses} a core (assumed rates, not measurements)")
        if place.gpu or unknown / CPU_RATES[0] > LONGEST_ON_CPU:
            slow, fast = assumed(rest, place.precision)
            begin = "until then, by assumed rates" if place.gpu else "too long for a CPU; by assumed rates"
            out.append(
                f"    {begin}: {hours_text(slow)} on an A100, {hours_text(fast)} on an H100 in {place.precision}"
            )
            half = assumed(rest, "bf16")[0]
            if slow > SLOWER * half:
                out.append(
                    f"    --precision bf16 would take {hours_text(half)} on an A100: {slow / half:.1f} times less"
                )
    return out


def training_line(what: str, steps: int, batch: int, each: float) -> Line:
    """Training for ``steps`` steps of ``batch`` images, ``each`` FLOPs an image and step."""
    text = f"{steps:,} steps x {batch} images x {flops_text(each)} (forward, backward)"
    return Line(what, text, steps * batch * each, None, None)


def latents_text(shape: Shape, images: int, half: bool) -> str:
    """Disk for the cached latents of ``images`` real images."""
    latent, kind = "x".join(map(str, shape.latent)), "2 bytes" if half else "4 bytes"
    size = bytes_text(shape.latent_bytes(images, half))
    return f"latents {size} ({images:,} x mean and deviation x {latent} x {kind})"


def sets_text(sets: int, images: int, side: int, channels: int) -> str:
    """Disk for ``sets`` distilled sets of ``images`` images."""
    raw = images * side * side * channels
    total = bytes_text(sets * raw * PNG_SHARE)
    return f"{sets} set(s) of {images:,} images {total}, and {bytes_text(raw)} while one is made"


def flops_text(value: float) -> str:
    """``237 GFLOP``."""
    for unit, size in (("EFLOP", 1e18), ("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6)):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value < 999.5 * size else f"{value / size:,.0f} {unit}"
    return f"{value:.0f} FLOP"


def hours_text(seconds: float) -> str:
    """``17 h``, ``12 min`` or ``8 s``."""
    if seconds >= 5400:
        return f"{seconds / 3600:,.3g} h" if seconds < 3.6e6 else f"{seconds / 3600:,.0f} h"
    return f"{seconds / 60:.2g} min" if seconds >= 90 else f"{seconds:.2g} s"


def bytes_text(value: float) -> str:
    """``21 GB``."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e3:.3g} kB"
