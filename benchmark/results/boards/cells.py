"""From records to rows: records that differ in nothing but the seed are one cell; a row is a cell's statistics."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

from benchmark.core.bits import unpack
from benchmark.core.store.keys import canonical_json
from benchmark.results.boards.columns import MIN_SEEDS
from benchmark.results.boards.standing import Column, Member
from benchmark.results.statistics import Results, difference, estimate, mean_interval, mean_std

SHORT = 12
MEMBER = "_member"  # of a row: what tests need of its cell; in no file (names that begin so are not written)
BASELINE = "random"
AUTHORS = "the authors' settings"  # by name, where the harness has others
SCORES = ("top1_last", "top1_best", "top5_last", "ece")
COSTS = ("distill_seconds", "train_seconds", "peak_memory_bytes", "image_bytes", "label_bytes")
PRECISIONS = {
    ("float32", None, False): "fp32",
    ("float32", None, True): "tf32",
    ("float32", "bfloat16", True): "bf16",
    ("float32", "float16", True): "fp16",
}


class Key(NamedTuple):
    """What the records of a cell share; also the order of rows."""

    dataset: str
    dataset_digest: str
    protocol: str
    protocol_version: str
    protocol_digest: str
    teacher: str
    teacher_key: str
    student: str
    ipc: int
    method: str
    method_version: str
    params: str
    inputs: str
    backbone: str
    backbone_key: str
    precision: str
    set: str = ""

    @property
    def column(self) -> tuple:
        """What must be equal for two cells to be compared: dataset, protocol, teacher, student, IPC."""
        return self[:9]


class Sample(NamedTuple):
    """The part of one record that boards need (a record itself may be large: its curve)."""

    seed: int
    set: str
    status: str
    reason: str
    flags: tuple[str, ...]  # without blanks: a row joins them with blanks
    scores: dict[str, float]
    costs: tuple[float | None, ...]
    device: str
    teacher_accuracy: float | None
    recognised: float | None
    set_gate: str
    tuned: str
    created: str
    images: str = ""  # digest of the set's images; empty in records of before
    right: str = ""  # which test images were classified right, as `core.bits` packs them


class Cell(NamedTuple):
    """A key and its samples, by seed."""

    key: Key
    samples: list[Sample]

    def by_seed(self, score: str = "top1_last") -> dict[int, float]:
        """Seed to score, of the seeds that succeeded."""
        return {s.seed: s.scores[score] for s in self.samples if s.status == "ok" and score in s.scores}

    def results(self, score: str = "top1_last") -> Results:
        """`by_seed` with the test images that each student got right, which only the last epoch's top-1 has."""
        scores = self.by_seed(score)
        known = [s for s in self.samples if s.status == "ok" and s.right] if score == "top1_last" else []
        return Results(scores, {s.seed: unpack(s.right) for s in known if s.seed in scores})

    @property
    def whole(self) -> bool:
        """Whether no seed failed: else the mean is the survivors'."""
        return not any(s.status == "failed" for s in self.samples)

    @property
    def tuned(self) -> str:
        """How the settings were tuned, where all seeds that succeeded agree."""
        found = {s.tuned for s in self.samples if s.status == "ok"}
        return found.pop() if len(found) == 1 else ""


def collect(records: Iterable[dict]) -> list[Cell]:
    """Group records (read one at a time) into cells, ordered by key.

    A seed that failed or was skipped counts no more once it succeeded. Where two records differ in nothing but their
    set (a folder made elsewhere was evaluated under the same name), the set that was evaluated later gets a cell of
    its own, with all its seeds.
    """
    groups: dict[Key, list[Sample]] = defaultdict(list)
    for record in records:
        groups[key_of(record["identity"])].append(sample_of(record))
    groups = _under_one_name(groups)
    cells = []
    for key in sorted(groups):
        fine = {s.seed for s in groups[key] if s.status == "ok"}
        samples = [s for s in groups[key] if s.status == "ok" or s.seed not in fine]
        samples.sort(key=lambda s: (s.seed, s.created, s.set))
        apart = {second.set for first, second in zip(samples, samples[1:]) if first.seed == second.seed}
        parts: dict[str, list[Sample]] = defaultdict(list)
        for sample in samples:
            parts[sample.set[:SHORT] if sample.set in apart else ""].append(sample)
        cells += [Cell(key._replace(set=name), part) for name, part in sorted(parts.items())]
    return cells


def _under_one_name(groups: dict[Key, list[Sample]]) -> dict[Key, list[Sample]]:
    """The same content under several names (``pets=/data/pets``, ``imagefolder:pets``) is one dataset, on one board.

    It is called what the user called it, else by the first name in alphabetical order. Of the same seed of the same set
    under two names the later one counts.
    """
    names: dict[str, set[str]] = defaultdict(set)
    for key in groups:
        names[key.dataset_digest].add(key.dataset)
    chosen = {d: min(found, key=lambda n: (":" in n, n)) for d, found in names.items() if len(found) > 1}
    merged: dict[Key, list[Sample]] = defaultdict(list)
    for key, samples in groups.items():
        merged[key._replace(dataset=chosen.get(key.dataset_digest, key.dataset))] += samples
    for key in [k for k in merged if k.dataset_digest in chosen]:
        latest = {(s.seed, s.set): s for s in sorted(merged[key], key=lambda s: (s.status == "ok", s.created))}
        merged[key] = list(latest.values())
    return merged


def key_of(identity: dict) -> Key:
    """The key of a record's cell."""
    dataset, protocol, method = identity["dataset"], identity["protocol"], identity["method"]
    teacher, backbone = identity["teacher"] or {}, identity["backbone"] or {}
    return Key(
        dataset["name"],
        dataset["digest"][:SHORT],
        protocol["name"],
        str(protocol["version"]),
        protocol["digest"][:SHORT],
        teacher.get("name", ""),
        teacher.get("key", "")[:SHORT],
        identity["student"] + (f" v{identity['student_version']}" if "student_version" in identity else ""),
        identity["ipc"],
        method["name"],
        str(method["version"]),
        canonical_json(method["params"]),
        inputs_text(method.get("inputs", {})),
        backbone.get("name", ""),
        backbone.get("key", "")[:SHORT],
        precision_name(identity["precision"]),
    )


def inputs_text(inputs: dict[str, Any]) -> str:
    """``teacher resnet18 0123abcd…, squeeze 4567cdef…``: what a set was made from beside data and backbone."""
    parts = []
    for kind, made in sorted(inputs.items()):
        name, key = (made.get("name", ""), made.get("key", "")) if isinstance(made, dict) else ("", str(made))
        parts.append(" ".join(part for part in (kind, name, key[:SHORT]) if part))
    return ", ".join(parts)


def precision_name(policy: dict) -> str:
    """``fp32`` and its like where the policy has such a name, else the policy as canonical JSON."""
    known = {"dtype", "autocast", "tf32", "compile"}
    short = (policy.get("dtype"), policy.get("autocast"), policy.get("tf32"))
    if set(policy) <= known and short in PRECISIONS:
        return PRECISIONS[short] + ("+compile" if policy.get("compile") else "")
    return canonical_json(policy)


def sample_of(record: dict) -> Sample:
    """The part of a record that boards need."""
    outcome, cost, gates = record["outcome"], record["cost"], record["gates"]
    scores = {k: float(v) for k, v in record["scores"].items() if isinstance(v, (int, float)) and v is not None}
    teacher, gate = gates.get("teacher") or {}, gates.get("set") or {}
    return Sample(
        record["identity"]["seed"],
        record["identity"]["set"],
        outcome["status"],
        " ".join(outcome.get("reason", "").split()),
        tuple("-".join(flag.split()) for flag in outcome.get("flags", ())),
        scores,
        tuple(cost.get(name) for name in COSTS),
        cost.get("device") or "",
        teacher.get("accuracy"),
        gate.get("recognised"),
        gate.get("status", ""),
        tuned_text(record["artifacts"].get("tuning") or {}),
        str(record["provenance"].get("created", "")),
        record["artifacts"].get("images", ""),
        record["scores"].get("right", ""),
    )


def tuned_text(tuning: dict[str, Any]) -> str:
    """A record's note of where its settings come from: what `ddbench tune` did, without the outcome, or the authors."""
    if not tuning:
        return ""
    if tuning.get("settings") == "authors":
        return AUTHORS
    seeds = f"{tuning['seeds']} seed" + ("s" if tuning["seeds"] > 1 else "")
    trials = f"best of {tuning['trials']} trials ({seeds} each)"
    text = f"{trials} on {tuning['on']}, protocol {tuning['protocol']}, student {tuning['student']}"
    return f"{text}; the {tuning['seen']} may have seen the held-out images" if tuning.get("seen") else text


def rows(records: Iterable[dict]) -> list[dict[str, Any]]:
    """One row a cell with the columns of `columns.COLUMNS`, then means of further scores as ``score.NAME``.

    Missing numbers are None. The order and every value depend on the records alone, not on the order of reading.
    """
    return rows_of(collect(records))


def rows_of(cells: list[Cell], beside: Iterable[Cell] = ()) -> list[dict[str, Any]]:
    """`rows` for cells that are already collected.

    Args:
        beside: further cells of the same results folder; where ``cells`` are a part of it without random real images,
            those of ``beside`` are the floor that gains are measured against.
    """
    columns: dict[tuple, list[Cell]] = defaultdict(list)
    for cell in cells:
        columns[cell.key.column].append(cell)
    floors: dict[tuple, list[Cell]] = defaultdict(list)
    for cell in beside:
        if cell.key.method == BASELINE:
            floors[cell.key.column].append(cell)
    results = {id(cell): cell.results() for peers in columns.values() for cell in peers}
    tests = {key: Column([Member(results[id(c)], c.whole) for c in peers]) for key, peers in columns.items()}
    place = {id(cell): i for peers in columns.values() for i, cell in enumerate(peers)}
    out = []
    for cell in cells:
        peers = columns[cell.key.column]
        own = any(p.key.method == BASELINE for p in peers)
        row = _row(cell, results[id(cell)], peers, peers if own else floors[cell.key.column])
        row["standing"] = tests[cell.key.column].standing(place[id(cell)])
        row[MEMBER] = Member(results[id(cell)], cell.whole)
        out.append(row)
    return out


def baseline_of(cell: Cell, peers: Iterable[Cell]) -> Cell | None:
    """The cell of random real images that a cell is compared with: same column, same precision where there is one.

    Where `random` itself was run in several variants, its own sets before a folder evaluated under its name, then
    the one with most seeds (then the first by key).
    """
    candidates = [p for p in peers if p.key.method == BASELINE]
    same = [p for p in candidates if p.key.precision == cell.key.precision]
    return max(same or candidates, key=lambda p: (not p.key.set, len(p.by_seed())), default=None)


def _row(cell: Cell, results: Results, peers: list[Cell], floors: list[Cell]) -> dict[str, Any]:
    ok = [s for s in cell.samples if s.status == "ok"]
    row: dict[str, Any] = cell.key._asdict()
    row["seeds"] = len(ok)
    row["seed_list"] = " ".join(str(s.seed) for s in ok)
    row["failed"] = sum(s.status == "failed" for s in cell.samples)
    row["skipped"] = sum(s.status == "skipped" for s in cell.samples)
    for name in SCORES:
        values = [s.scores[name] for s in ok if name in s.scores]
        mean, half = mean_interval(values) if values else (None, None)
        row[name] = mean
        if name.startswith("top1"):
            row[f"{name}_half"] = number(half)
        if name == "top1_last":
            row["top1_last_std"] = number(mean_std(values)[1]) if values else None
            known = estimate(results) if values else None
            row["top1_last_half_both"] = number(known.half) if known and known.images else None
    row["tuned"] = cell.tuned
    flags = Counter(flag for s in cell.samples for flag in s.flags)
    gain = _gain(cell, floors)
    row["gain_over_random"], row["gain_half"], row["gain_half_both"], row["gain_seeds"] = gain
    for i, name in enumerate(COSTS):
        values = [s.costs[i] for s in ok if s.costs[i] is not None]
        if not values:
            row[name] = None
        else:
            row[name] = float(max(values)) if name.startswith("peak") else math.fsum(values) / len(values)
    row["device"] = " ".join(sorted({s.device for s in ok if s.device}))
    row["teacher_accuracy"] = _mean(s.teacher_accuracy for s in ok)
    row["set_recognised"] = _mean(s.recognised for s in ok)
    row["set_gate"] = " ".join(sorted({s.set_gate for s in ok if s.set_gate}))
    if ok and len(ok) < MIN_SEEDS:
        flags["few-seeds"] += 1
    if ok and gain[3] == 0 and cell.key.method != BASELINE:
        flags["no-random"] += 1
    if len(ok) > 1 and len({s.images or s.set for s in ok}) == 1:
        flags["one-set"] += 1
    if ok and "waived" not in row["set_gate"] and ("weak" in row["set_gate"].split() or _is_weak(row)):
        flags["weak-set"] += 1
    if len({p.key.precision for p in peers}) > 1:
        common = Counter(p.key.precision for p in peers).most_common()
        if cell.key.precision != min(name for name, n in common if n == common[0][1]):
            flags["precision"] += 1
    if row["failed"]:
        flags["failures"] += 1
    if "waived" in row["set_gate"]:
        flags["gate-waived"] += 1
    row["flags"] = " ".join(sorted(flags))
    row["reason"] = "; ".join(sorted({s.reason for s in cell.samples if s.status != "ok" and s.reason}))
    for name in sorted({n for s in ok for n in s.scores} - set(SCORES)):
        row[f"score.{name}"] = _mean(s.scores.get(name) for s in ok)
    return row


def _is_weak(row: dict[str, Any]) -> bool:
    """Whether the teacher recognises less than half as many of the set's images as of test images."""
    known = row["set_recognised"] is not None and row["teacher_accuracy"] is not None
    return known and row["set_recognised"] < row["teacher_accuracy"] / 2


def _gain(cell: Cell, peers: list[Cell]) -> tuple[float | None, float | None, float | None, int]:
    """Mean difference to random real images, its half width over seeds, that over test images as well, seeds."""
    baseline = baseline_of(cell, peers)
    if baseline is None or cell.key.method == BASELINE:
        return None, None, None, 0
    over_seeds = difference(Results(cell.by_seed()), Results(baseline.by_seed()))
    both = difference(cell.results(), baseline.results())
    half = number(both.half) if both.images else None
    return number(over_seeds.mean), number(over_seeds.half), half, over_seeds.seeds


def number(value: float | None) -> float | None:
    """None for NaN and None: JSON and CSV have no NaN."""
    return None if value is None or math.isnan(value) else value


def _mean(values: Iterable[float | None]) -> float | None:
    values = [v for v in values if v is not None]
    return math.fsum(values) / len(values) if values else None
