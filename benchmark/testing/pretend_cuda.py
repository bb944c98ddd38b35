"""A pretended GPU, for machines without one: tensors that say they lie on ``cuda:0`` and are computed on the CPU.

Inside :func:`pretended` a tensor that is made on or moved to ``cuda:0`` is an :class:`OnGpu`. As on a real GPU an
operation on tensors of both devices fails (but for single numbers, and positions on the CPU into a tensor on the GPU),
so do a CPU generator that draws there and ``numpy()``; what makes the host wait until the GPU has done all that it was
given is noted. The numbers are the CPU's, so results must equal those of ``cpu``. Nothing is learned of CUDA's kernels,
autocast, memory or streams.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import safetensors.torch
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten
DEVICE = torch.device("cuda:0")
INDEXING = {aten.index, aten._unsafe_index, aten.index_put, aten.index_put_, aten._index_put_impl_}
READING = {aten._local_scalar_dense, aten.equal, aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim}
ROOT = Path(__file__).parents[2]


class OnGpu(torch.Tensor):
    """A tensor on the pretended GPU; ``host`` holds its numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: DEVICE)
    is_cuda = property(lambda self: True)
    is_cpu = is_meta = property(lambda self: False)
    host: torch.Tensor

    @staticmethod
    def __new__(cls, host: torch.Tensor) -> OnGpu:
        host = host.detach()
        shell = torch.empty_strided(host.size(), host.stride(), dtype=host.dtype, device="meta")
        made = torch.Tensor._make_subclass(cls, shell, False)
        made.host = host
        return made

    def __repr__(self) -> str:
        return f"OnGpu({self.host})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise AssertionError(f"{function} outside of pretended()")


class _Gpu(TorchDispatchMode):
    """Computes every operation on the CPU, refuses what a GPU refuses, notes where the host waits."""

    def __init__(self, waits: list[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        there = any(isinstance(x, OnGpu) for x in tensors)
        wanted = kwargs.get("device")
        to_gpu = there if wanted is None else torch.device(wanted).type != "cpu"  # meta: that of an OnGpu's shell
        kind = function.overloadpacket
        if kind in (aten._to_copy, aten.copy_):
            to_gpu = self._copy(kind, args, kwargs, to_gpu)
        elif there:
            self._check(function, args, kwargs, tensors)
        host_args, host_kwargs = tree_map(_host, (args, kwargs))
        host_kwargs |= {k: v for k, v in {"device": "cpu", "pin_memory": False}.items() if k in host_kwargs}
        result = function(*host_args, **host_kwargs)
        if kind is aten._to_copy and result is host_args[0]:
            result = result.clone()
        known = {id(_host(x)): x for x in tensors}

        def placed(x: Any) -> Any:
            if not isinstance(x, torch.Tensor) or isinstance(x, OnGpu):
                return x
            if kind is not aten._to_copy and id(x) in known:  # in place
                shell = known[id(x)]
                if shell.shape != x.shape:  # such as `unsqueeze_`
                    with torch._C._DisableTorchDispatch():
                        shell.as_strided_(x.size(), x.stride())
                return shell
            return OnGpu(x) if to_gpu else x

        return tree_map(placed, result)

    def _copy(self, kind, args, kwargs, to_gpu: bool) -> bool:
        """Whether the copy's result lies on the GPU; to there without waiting it must be ``non_blocking``."""
        source = args[0]
        blocking = not kwargs.get("non_blocking")
        if kind is aten.copy_:
            to_gpu, source = isinstance(args[0], OnGpu), args[1]
            blocking = not (args[2] if len(args) > 2 else kwargs.get("non_blocking"))
        if isinstance(source, OnGpu) != to_gpu and source.numel() and (blocking or not to_gpu):
            self._wait(kind)
        return to_gpu

    def _check(self, function, args, kwargs, tensors) -> None:
        kind = function.overloadpacket
        if kwargs.get("generator") is not None:
            raise RuntimeError(f"{function}: expected a 'cuda' device type for generator but found 'cpu'")
        if kind in INDEXING:
            places = [x for x in args[1] if x is not None]
            if not isinstance(args[0], OnGpu):
                raise RuntimeError(f"{function}: indices on cuda:0, the tensor on the cpu")
            if any(not isinstance(x, OnGpu) or x.dtype == torch.bool for x in places):
                self._wait(function)  # moved there, or counted
            tensors = [x for x in tensors if not any(x is place for place in places)]
        stray = [tuple(x.shape) for x in tensors if not isinstance(x, OnGpu) and x.ndim]
        if stray:
            raise RuntimeError(f"{function}: expected all tensors on the same device, found cuda:0 and cpu {stray[0]}")
        if kind in READING:
            self._wait(function)

    def _wait(self, function) -> None:
        stack = [f for f in traceback.extract_stack() if f.filename.startswith(str(ROOT)) and f.filename != __file__]
        stack = [f for f in stack if "site-packages" not in f.filename]  # of a .venv in the checkout
        self.waits.append(f"{function} {stack[-1].filename}:{stack[-1].lineno} {stack[-1].line}" if stack else "")


def _host(x: Any) -> Any:
    return x.host if isinstance(x, OnGpu) else x


def _copied(tree: Any) -> Any:
    return tree_map(lambda x: x.host.clone() if isinstance(x, OnGpu) else x, tree)


@contextlib.contextmanager
def pretended() -> Iterator[list[str]]:
    """While open, ``cuda:0`` is there; gives the list of what made the host wait: operation, file, line."""
    waits: list[str] = []
    cuda = {"is_available": lambda: True, "mem_get_info": lambda *_: (1 << 33, 1 << 33)}
    cuda["is_current_stream_capturing"] = lambda: False  # optimisers of torch 2.6 ask the driver
    cuda |= {name: lambda *_: 0 for name in ("max_memory_allocated", "memory_allocated", "memory_reserved")}
    cuda |= {name: lambda *_: None for name in ("reset_peak_memory_stats", "empty_cache", "synchronize", "_lazy_init")}
    tensor, save = torch.tensor, torch.save
    write, read = safetensors.torch.save_file, safetensors.torch.load_file
    overwrite = torch.__future__.set_overwrite_module_params_on_conversion
    with contextlib.ExitStack() as stack:
        for name, value in cuda.items():
            stack.enter_context(patch.object(torch.cuda, name, value))
        # these four look at a tensor's memory, or for a driver, before any operation can be caught
        stack.enter_context(patch.object(torch, "tensor", lambda x, device="cpu", **k: tensor(x, **k).to(device)))
        stack.enter_context(patch.object(torch, "save", lambda state, *a, **k: save(_copied(state), *a, **k)))
        files = {
            "save_file": (write, lambda tensors, *a, **k: write(_copied(tensors), *a, **k)),
            "load_file": (read, lambda file, device="cpu": {k: v.to(device) for k, v in read(file).items()}),
        }
        for module in list(sys.modules.values()):
            for name, (real, stand_in) in files.items():
                if getattr(module, "__dict__", {}).get(name) is real:
                    stack.enter_context(patch.object(module, name, stand_in))
        overwrite(True)  # `module.to`: new parameters, of another type
        stack.callback(overwrite, False)
        if hasattr(torch._C, "_ensureCUDADeviceGuardSet"):  # torch 2.6 has none and needs none
            torch._C._ensureCUDADeviceGuardSet()
        stack.enter_context(_Gpu(waits))
        yield waits
