"""Devices, thread counts and precision: what must be fixed for results to be equal bit for bit."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from benchmark.core.errors import UsageError

# Results depend on how a sum is split over threads, so each kind of job has a fixed number, whatever the machine.
# Distillation and student jobs are small and run side by side; DDBENCH_THREADS overrides all (equality is then only
# promised between runs with the same value).
THREADS = {"backbone": 2, "teacher": 2, "distill": 1, "evaluate": 1}

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3), bytes


@dataclass(frozen=True)
class Precision:
    """The precision policy, part of every key: ``dtype`` of weights, autocast dtype, TF32, ``torch.compile``."""

    dtype: str = "float32"
    autocast: str | None = None
    tf32: bool = False
    compile: bool = False

    def document(self) -> dict:
        return asdict(self)

    @staticmethod
    def named(name: str) -> Precision:
        """``fp32``, ``tf32``, ``bf16`` (autocast) or ``fp16`` (autocast); ``bf16+compile`` etc. adds ``torch.compile``.

        Raises:
            UsageError: none of these.
        """
        short, plus, compiled = name.partition("+")
        table = {
            "fp32": Precision(),
            "tf32": Precision(tf32=True),
            "bf16": Precision(autocast="bfloat16", tf32=True),
            "fp16": Precision(autocast="float16", tf32=True),
        }
        if short not in table or (plus and compiled != "compile"):
            allowed = f"{', '.join(table)}, each also with +compile"
            raise UsageError(f"unknown precision {name!r}", where="--precision", allowed=allowed)
        return replace(table[short], compile=bool(plus))

    def check_unscaled(self, what: str) -> None:
        """Refuse float16 where ``what`` is optimised without loss scaling: its small gradients vanish silently.

        Raises:
            UsageError: the policy computes in float16.
        """
        if "float16" in (self.dtype, self.autocast):
            allowed = "fp32, tf32, bf16"
            raise UsageError(f"{what} is not optimised in fp16", where="--precision", allowed=allowed)

    def context(self, device):
        """An autocast context (or a null one) for ``device``."""
        import torch

        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(torch.device(device).type, dtype=getattr(torch, self.autocast))


def threads(job: str) -> int:
    """How many threads a job kind computes with: ``THREADS``, or what ``DDBENCH_THREADS`` says.

    Raises:
        UsageError: ``DDBENCH_THREADS`` is no positive whole number.
    """
    text = os.environ.get("DDBENCH_THREADS", "").strip()
    if not text:
        return THREADS[job]
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{text!r} is no number of threads", where="DDBENCH_THREADS", allowed="1 or more, or unset")
    return int(text)


def prepare(job: str, precision: Precision = Precision()) -> None:  # noqa: B008 - frozen
    """Fix thread count, TF32 and deterministic kernels for a job kind (see ``THREADS``)."""
    import torch

    torch.set_num_threads(threads(job))
    torch.backends.cuda.matmul.allow_tf32 = precision.tf32
    torch.backends.cudnn.allow_tf32 = precision.tf32
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    _keep_freed_memory()


@contextlib.contextmanager
def prepared(job: str, precision: Precision = Precision()) -> Iterator[None]:  # noqa: B008 - frozen
    """:func:`prepare` for a job inside another: afterwards the outer job's threads and TF32 are what they were."""
    import torch

    threads_before = torch.get_num_threads()
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        prepare(job, precision)
        yield
    finally:
        torch.set_num_threads(threads_before)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _keep_freed_memory() -> None:
    """Where the C library is glibc: reuse freed memory rather than give it back to the kernel at every step.

    By default each tensor of some MB is mapped and unmapped anew, and the kernel clears its pages: 40,000 page faults
    a training step of the ConvNet-3 at 28 px, batch 64. Kept, the step takes 0.7 of the time (391 to 550 images/s on
    one core). What the last job left goes back here, before the next one begins.
    """
    import ctypes

    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
        libc.malloc_trim(0)


def fast_layout(model):
    """``model`` (a ``torch.nn.Module``) with its convolutions' weights channels-last, in place.

    On 2 CPU cores a training step of the BatchNorm ConvNet-3 takes 0.6 of the time, MobileNetV2's 0.5. Instance and
    group normalisation have no such kernels and would copy forth and back, so networks with them stay as they are.
    """
    import torch
    from torch import nn

    slow = (nn.GroupNorm, nn.InstanceNorm2d)
    if any(isinstance(m, slow) for m in model.modules()):
        return model
    return model.to(memory_format=torch.channels_last)


def resolve_device(name: str = "auto", elsewhere: bool = False) -> str:
    """``auto`` is ``cuda`` where there is one (under torchrun the rank's own), else ``cpu``.

    A card with a number becomes the process's current one: what is measured without naming a device is then its own.
    With ``elsewhere`` other machines do the work and resolve the name: it need not be there, and ``auto`` stays. Then
    a card's number is left out: the scheduler chooses the card, and a process that was given one calls it 0.

    Raises:
        UsageError: not the name of a device, or it is not there.
    """
    import torch

    if elsewhere:
        return name if name == "auto" else _device(name).type

    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = "auto"
    if name == "auto" and not torch.cuda.is_available():
        return "cpu"
    if name == "auto":
        name = f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"
    device = _device(name)
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise UsageError(
            f"device {name!r} is not there", where="--device", allowed=f"cpu, {torch.cuda.device_count()} CUDA devices"
        )
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return name


def _device(name: str):
    import torch

    try:
        return torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"unknown device {name!r}", where="--device", allowed="auto, cpu, cuda, cuda:N") from error


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from anything printable: independent streams for (seed, method, class, index)."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def generator(*parts: object, device: str = "cpu"):
    """A ``torch.Generator`` seeded by :func:`derive_seed`; on the CPU by default so that devices agree."""
    import torch

    return torch.Generator(device=device).manual_seed(derive_seed(*parts))
