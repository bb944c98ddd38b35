"""Streaming moments."""

from __future__ import annotations

import weakref

import pytest
import torch

from d3hr_plugin.statistics import Moments, load_moments, save_moments


def streamed(x: torch.Tensor, batch: int) -> Moments:
    return Moments.merged(Moments.of(part) for part in x.split(batch))


@pytest.mark.parametrize("batch", [1, 7, 64, 500])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_equals_two_passes_in_float64(batch, offset):
    x = torch.randn(500, 20, generator=torch.Generator().manual_seed(0)) + offset
    found = streamed(x, batch)
    torch.testing.assert_close(found.mean, x.double().mean(0), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.variance, x.double().var(0), rtol=1e-6, atol=0)
    assert found.count == 500


def test_halves_merge_to_the_whole_whatever_their_sizes():
    x = torch.randn(301, 20, generator=torch.Generator().manual_seed(1))
    whole = Moments.of(x)
    for cut in (1, 150, 300):
        merged = Moments.of(x[:cut]).merge(Moments.of(x[cut:]))
        torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(merged.squares, whole.squares, rtol=1e-12, atol=0)


def test_a_batch_is_dropped_before_the_next_but_one_is_read():
    alive: set[int] = set()
    most = 0

    def batches():
        nonlocal most
        for i in range(200):
            batch = torch.randn(50, 64)
            alive.add(i)
            weakref.finalize(batch, alive.discard, i)
            most = max(most, len(alive))
            yield batch
            del batch

    assert Moments.merged(Moments.of(batch) for batch in batches()).count == 10_000
    assert most <= 2


def test_one_image_has_no_spread():
    assert torch.equal(Moments.of(torch.ones(1, 4)).variance, torch.zeros(4, dtype=torch.float64))


def test_artifact_holds_count_moments_and_facts(tmp_path):
    moments = Moments.of(torch.randn(9, 5))
    save_moments(tmp_path / "a.safetensors", moments, {"depth": 30, "guidance": 4.0, "class": "cat"})
    again, facts = load_moments(tmp_path / "a.safetensors")
    assert torch.equal(again.mean, moments.mean) and torch.equal(again.squares, moments.squares) and again.count == 9
    assert facts == {"depth": 30, "guidance": 4.0, "class": "cat"}
