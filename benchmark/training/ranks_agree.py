"""The gradients of one step on two processes, to be compared with those of one: part of ``ddbench selftest``.

A module of its own: each process imports it, and little more.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from benchmark.core import distributed
from benchmark.core.compute import generator
from benchmark.students import build_student

WORLD = 2
PATIENCE = 240.0  # s for two processes to start and to answer; seconds on an idle machine


def summed_gradients(device: str) -> torch.Tensor:
    """Gradients float64 ``[p]`` (CPU) of a batch: of this rank's rows, summed with those of other ranks' rows.

    In float64: in float32 another order of sums moves activations across a ReLU's corner.
    """
    draw = generator("ranks agree")
    images, labels = torch.randn(8, 3, 16, 16, generator=draw).double(), torch.arange(8) % 4
    model = build_student("convnet3_bn", 4, 3, 16, 0).to(device).double().train()
    distributed.synchronise_norms(model)
    own, share = distributed.part(8)
    loss = F.cross_entropy(model(images[own].to(device)), labels[own].to(device)) * share
    loss.backward()
    distributed.sum_gradients(model.parameters())
    return torch.cat([p.grad.flatten().cpu() for p in model.parameters()])


def from_two_processes(cuda: bool) -> list[torch.Tensor] | str:
    """The gradients that each of two ranks ends with (NCCL with ``cuda``, else gloo), or what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        started = torch.multiprocessing.spawn(_rank, (port, cuda, folder), nprocs=WORLD, join=False)
        deadline = time.monotonic() + PATIENCE
        try:
            while not started.join(1.0):
                if time.monotonic() > deadline:
                    return f"no answer after {PATIENCE:.0f} s"
        except Exception as ended:  # noqa: BLE001 - whatever ended one of them; torch ends the other
            return str(ended).strip().splitlines()[-1]
        finally:
            for process in started.processes:
                if process.is_alive():
                    process.kill()
        return [load_file(Path(folder) / f"{rank}.safetensors")["gradients"] for rank in range(WORLD)]


def _rank(rank: int, port: int, cuda: bool, folder: str) -> None:
    where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": WORLD, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {key: str(value) for key, value in where.items()}
    if not cuda:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)
    with distributed.together():
        found = summed_gradients(f"cuda:{rank}" if cuda else "cpu")
        save_file({"gradients": found}, Path(folder) / f"{rank}.safetensors")
    distributed.leave()
