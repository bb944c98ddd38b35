"""D3HR's speed beside its authors' functions (or, without them, a plain implementation), with the results compared.

    python tests/speed/bench_d3hr.py --reference DIR     DIR: a checkout of github.com/lin-zhao-resoLve/D3HR
    python tests/speed/bench_d3hr.py --only search --ipc 10 --repeats 30

Every line is a ratio of two things run in turn in this script, on the same inputs. Peak memory is the growth of a
process that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "d3hr_plugin")]

import d3hr_authors  # noqa: E402
import torch  # noqa: E402
from scipy import stats  # noqa: E402
from tabulate import tabulate  # noqa: E402

from d3hr_plugin import groups, scores, winner_distribution  # noqa: E402

D = 4096  # 4 x 32 x 32, a 256-pixel image's latent
AT_A_TIME = 1000  # candidates a call of the authors' function: 10,000, as they call it, do not fit
PAPER, RELEASED = scores.Score(), scores.Score("released", skew=0.1)


def deviations() -> torch.Tensor:
    """Made-up deviations ``[D]`` of a class: around 1 and uneven, as inverted latents have them."""
    return (0.2 * torch.randn(D, generator=torch.Generator().manual_seed(0))).exp()


def plain_search(m: int, n: int, std: torch.Tensor, seed: int, score: scores.Score) -> tuple[torch.Tensor, float]:
    """The obvious implementation: all candidates of a batch in memory, moments by torch's own reductions."""
    torch.manual_seed(seed)
    best, winner = float("inf"), None
    for first in range(0, m, AT_A_TIME):
        count = min(AT_A_TIME, m - first)
        samples = torch.normal(torch.zeros(count, n, D), std.expand(count, n, D))
        mean, spread = samples.mean(1, keepdim=True), samples.std(1, keepdim=True)
        value = mean[:, 0].norm(dim=1) + (spread[:, 0] - std).norm(dim=1)
        if score.form == "paper":
            biased = samples.std(1, keepdim=True, unbiased=False)
            value = value + score.skew * (((samples - mean) / biased) ** 3).mean(1).norm(dim=1)
        else:
            skew = (((samples - mean) / spread) ** 3).sum(2) * (D / ((D - 1) * (D - 2)))
            value = value + score.skew * skew.norm(dim=1)
        row = int(value.argmin())
        if value[row] < best:
            best, winner = float(value[row]), samples[row].clone()
    assert winner is not None
    return winner, best


def reference_search(authors, m: int, n: int, std: torch.Tensor, seed: int) -> tuple[torch.Tensor, float]:
    """The authors' function in calls of ``AT_A_TIME`` candidates (or the plain form of the same score)."""
    if authors is None:
        return plain_search(m, n, std, seed, RELEASED)
    best, winner = float("inf"), None
    for first in range(0, m, AT_A_TIME):
        found, _, score, _ = authors.select_algorithm_batch(AT_A_TIME, n, torch.zeros(D), std, "cpu", seed + first)
        if score < best:
            best, winner = float(score), found
    assert winner is not None
    return winner, best


def ours(n: int, m: int, std: torch.Tensor, seed: object, by_draws: bool = False, score=PAPER) -> groups.Group:
    """Our search, on one thread as a distillation job runs it (its blocks are too small to be shared out)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _ours(n, m, std, seed, by_draws, score)
    finally:
        torch.set_num_threads(before)


def _ours(n, m, std, seed, by_draws, score) -> groups.Group:
    sampler = groups.SAMPLERS["search-by-draws" if by_draws else "search"]
    return sampler(groups.Draw(n, std, ("bench", seed), m, score))


def timed(call, *arguments) -> tuple[float, object]:
    began = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - began, result


def grown(kind: str, n: int, reference: str | None, m: int = AT_A_TIME) -> float:
    """MiB by which a process grows at its peak while it searches once (`kind` is reference, distribution or draws)."""
    command = [sys.executable, __file__, "--child", kind, "--ipc", str(n), "--m", str(m)]
    command += ["--reference", reference] if reference else []
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def child(kind: str, n: int, m: int, authors) -> None:
    def status(field: str) -> int:
        return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1])

    std = deviations()
    groups.gaussian(groups.Draw(2, std, ("warm",)))
    Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets the peak so far
    before = status("VmRSS")
    if kind == "reference":
        reference_search(authors, AT_A_TIME, n, std, 0)
    else:
        ours(n, m, std, 0, kind == "draws")
    print(json.dumps((status("VmHWM") - before) / 1024))


def search(authors, reference: str | None, sizes: list[int], repeats: int, m: int) -> None:
    """Time a candidate, peak memory, and whether the winners have the same distribution."""
    std, rows, name = deviations(), [], "authors" if authors else "plain"
    for n in sizes:
        reference_search(authors, AT_A_TIME, n, std, 1), ours(n, 100, std, "warm")
        theirs = min(timed(reference_search, authors, AT_A_TIME, n, std, 2)[0] for _ in range(3)) / AT_A_TIME
        theirs_peak = grown("reference", n, reference)
        for kind, count in (("draws", AT_A_TIME), ("distribution", 10_000), ("distribution", 1_000_000)):
            winner_distribution._skewness_pool.cache_clear(), winner_distribution.skewness_distribution.cache_clear()
            run = [timed(ours, n, count, std, r, kind == "draws") for r in range(3)]
            first, best = run[0][0], min(t for t, _ in run)
            peak = grown(kind, n, reference, count)
            rows.append(
                [n, f"{kind}, m = {count:,}", 1e6 * theirs, 1e6 * best / count, theirs * count / best]
                + [theirs * count / first, theirs_peak, peak, theirs_peak / max(peak, 0.1)]
            )
    heads = ["IPC", "ours", f"{name} us/cand.", "ours us/cand.", "times", "times (first class)"]
    print(f"\nGroup search, d = {D}, skewness included, {torch.get_num_threads()} threads\n")
    print(tabulate(rows, [*heads, f"{name} peak MiB", "ours", "times less"], floatfmt=".4g"), flush=True)

    rows = []
    for n in sizes:
        plain = [plain_search(m, n, std, 1000 * r, PAPER)[1] for r in range(repeats)]
        for kind in ("distribution", "draws"):
            found = [ours(n, m, std, r, kind == "draws") for r in range(repeats)]
            again = [
                float(PAPER((g.latents.double() * std.double() / std.double())[None], std.double())) for g in found
            ]
            apart = max(abs(a - g.score) for a, g in zip(again, found, strict=True))
            mine = [g.score for g in found]
            p = stats.ks_2samp(mine, plain).pvalue
            rows.append([n, kind, statistics.mean(mine), statistics.stdev(mine), statistics.mean(plain)])
            rows[-1] += [statistics.stdev(plain), p, apart]
    print(f"\nBest score of m = {m:,} over {repeats} repeats beside a plain search (paper's score)\n")
    heads = ["IPC", "ours", "mean", "std", "plain mean", "plain std", "Kolmogorov-Smirnov p", "reported - float64"]
    print(tabulate(rows, heads, floatfmt=".4g"), flush=True)
    for n in sizes:
        x = torch.randn(200, n, D, generator=torch.Generator().manual_seed(n)) * std
        mine = RELEASED((x / std).double(), std.double())
        if authors:
            theirs = authors.evaluate_distribution_batch(x, torch.zeros(D), std)
            print(f"released score of 200 groups, IPC {n}: authors - ours at most {(mine - theirs).abs().max():.1e}")


def samplers(authors, sizes: list[int]) -> None:
    """Samplers that match moments instead of searching, beside the search's best of 10,000, on one thread."""
    std, rows, name = deviations(), [], "authors" if authors else "plain"
    torch.set_num_threads(1)
    for n in sizes:
        theirs = 10 * min(timed(reference_search, authors, AT_A_TIME, n, std, 2)[0] for _ in range(2))
        by_distribution, found = timed(ours, n, 10_000, std, "a")
        by_draws = 10 * min(timed(ours, n, 1000, std, "a", True)[0] for _ in range(2))
        for kind in ("search", "matched", "moments", "latin", "sobol", "gaussian"):
            sampler = groups.SAMPLERS[kind]
            runs = [timed(sampler, groups.Draw(n, std, ("bench", 1), 10_000)) for _ in range(10)]
            seconds, group = min(t for t, _ in runs), runs[0][1]
            distances = torch.pdist(group.latents.double()) / (2 * D) ** 0.5
            few = torch.cat(
                [sampler(groups.Draw(n, std, ("n", s), 100)).latents[:, 7::512] for s in range(100 // n + 1)]
            )
            normal = stats.kstest((few / few.std()).flatten().numpy(), "norm").pvalue
            rows.append([n, kind, group.score, found.score / max(group.score, 1e-12), 1e3 * seconds])
            rows[-1] += [theirs / seconds, by_draws / seconds, by_distribution / seconds]
            rows[-1] += [float(distances.min()), float(distances.max()), normal]
    print("\nSamplers: paper-form score beside the best of 10,000; distances in units of independent draws' mean")
    print(
        "Times faster than searching 10,000: the authors' (or plain) way, drawing all, from the winner's distribution\n"
    )
    heads = ["IPC", "sampler", "score", "times lower", "ms", f"than {name}", "than draws", "than distribution"]
    print(tabulate(rows, [*heads, "nearest", "farthest", "normality p"], floatfmt=".4g"), flush=True)


def inversion(authors, images: int, guidance: float) -> None:
    """Statistics at depth 30 of 50 on a small random transformer, both stopped there; and what stopping there gains."""
    from tiny_backbone import tiny_backbone

    from d3hr_plugin.inversion import invert
    from d3hr_plugin.statistics import Moments

    backbone = tiny_backbone(1000, width=96, layers=4, side=16)
    x = torch.randn(images, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    y = torch.full((images,), 7)

    def mine():
        parts = x.split(64)
        made = (invert(backbone, p, y[: len(p)], steps=50, depths=[30], guidance=guidance)[30] for p in parts)
        return Moments.merged(Moments.of(p.flatten(1)) for p in made)

    def theirs(reference):
        pipe = d3hr_authors.pipe(backbone.dit, backbone.scheduler)
        kept = []
        for part in x.split(64):
            labels = y[: len(part)]
            use = {"do_classifier_free_guidance": guidance != 1, "device": "cpu", "num_inference_steps": 50}
            kept.append(reference.invert(pipe, part, labels, guidance_scale=guidance, **use)[-1].flatten(1))
        kept = torch.cat(kept)
        return kept.mean(0), kept.var(0)

    mine()
    steps = 30 * images
    rows, (seconds, found) = [], timed(mine)
    seconds = min(seconds, timed(mine)[0])
    cut = d3hr_authors.load(authors.folder, keep="if i == 30:", stop="if i > 30:")
    took, (mean, variance) = timed(theirs, cut)
    took = min(took, timed(theirs, cut)[0])
    gap = [float((a - b).abs().max() / b.abs().max()) for a, b in ((found.mean, mean), (found.variance, variance))]
    rows.append(["stopped at depth 30 too", 1e3 * took / steps, 1e3 * seconds / steps, took / seconds, *gap])
    whole, _ = timed(theirs, d3hr_authors.load(authors.folder, keep="if i == 30:"))
    rows.append(["as released (to depth 38)", 1e3 * whole / steps, 1e3 * seconds / steps, whole / seconds, *gap])
    print(f"\nInversion statistics, {images} latents 4x16x16, guidance {guidance:g}, to depth 30 of 50, on the CPU\n")
    heads = ["authors", "ms/image/step", "ours", "times", "mean differs", "variance differs"]
    print(tabulate(rows, heads, floatfmt=".3g"), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", help="checkout of the authors' repository")
    parser.add_argument("--only", choices=("search", "samplers", "inversion"))
    parser.add_argument("--ipc", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--m", type=int, default=1000, help="candidates in the comparison of best scores")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    authors = None
    if given.reference:
        authors = d3hr_authors.load(given.reference)
        authors.folder = given.reference
    if given.child:
        child(given.child, given.ipc[0], given.m, authors)
        return
    if given.only in (None, "search"):
        search(authors, given.reference, given.ipc, given.repeats, given.m)
    if given.only in (None, "samplers"):
        samplers(authors, given.ipc)
        torch.set_num_threads(given.threads)
    if given.only in (None, "inversion"):
        if authors is None:
            print("\nInversion: give --reference DIR to compare with the authors' function")
        else:
            for guidance in (4.0, 1.0):
                inversion(authors, 128, guidance)


if __name__ == "__main__":
    main()
