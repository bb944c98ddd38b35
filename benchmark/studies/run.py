"""Plans a grid cell by cell, runs all jobs once, and gathers one row a cell whatever happened to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.core.errors import DDBenchError
from benchmark.core.escape import csv_cell
from benchmark.core.store import Store
from benchmark.pipeline.describe import inner_stages
from benchmark.pipeline.jobs import KINDS, Context
from benchmark.pipeline.plan import Plan, make_plan
from benchmark.pipeline.request import Request, method_of
from benchmark.results.boards.cells import BASELINE, collect, key_of, number, rows_of
from benchmark.results.boards.columns import NAMES
from benchmark.results.boards.table import cell_text
from benchmark.results.records import Identity, find_record, iter_records
from benchmark.results.statistics import paired_difference
from benchmark.studies.expand import GridCell, request_of
from benchmark.studies.spec import Grid


@dataclass
class GridPlan:
    """All cells with one plan: ``wanted`` counts jobs before sharing, ``identities`` are of each cell's students,
    ``faults`` says why a cell cannot be planned, ``unsupported`` which of these the method itself declines."""

    cells: list[GridCell]
    plan: Plan
    identities: list[list[Identity]]
    faults: list[str]
    unsupported: set[int] = field(default_factory=set)
    wanted: Counter = field(default_factory=Counter)


def plan_grid(
    grid: Grid, cells: Sequence[GridCell], store: Store, results: Path, device: str, **options: Any
) -> GridPlan:
    """Plan every cell by itself, so that one that cannot be planned (IPC too large …) is a row and stops no other."""
    merged = Plan(str(store.root), str(results), device)
    out = GridPlan(list(cells), merged, [], [])
    seen: set[str] = set()
    for place, cell in enumerate(cells):
        request = request_of(cell, grid, **options)
        try:
            reason = declined(request)
            if reason:
                out.unsupported.add(place)
            else:
                part = make_plan([request], store, results, device=device)
        except DDBenchError as error:
            reason = " ".join(str(error).split())
        if reason:
            out.identities.append([])
            out.faults.append(reason)
            continue
        merged.skipped += part.skipped
        for job in part.jobs:
            out.wanted[job.kind] += len(grid.seeds) if job.kind in ("backbone", "teacher") else 1
            if job.key not in seen:
                seen.add(job.key)
                merged.jobs.append(job)
        out.identities.append([x.identity for x in (*part.of_kind("evaluate"), *part.skipped)])
        out.faults.append("")
    merged.jobs.sort(key=lambda job: list(KINDS).index(job.kind))  # stable: needs come before those that need them
    return out


def declined(request: Request) -> str:
    """Why the request's method cannot make its IPC of its dataset, or an empty string."""
    from benchmark.data import load_dataset

    dataset = load_dataset(request.dataset, root=request.data_root, **request.dataset_options)
    (name,), (ipc,) = request.methods, request.ipc
    return method_of(request, name, dataset.name).why_not(dataset.without_test(), ipc)


def describe(planned: GridPlan, context: Context) -> str:
    """What the grid needs, how much of it is shared between cells, and what is there already."""
    plan = planned.plan
    seeds = {job.seed for job in plan.of_kind("distill")}
    lines = [f"{len(planned.cells)} cells, {len(plan.of_kind('evaluate'))} students, {len(seeds)} seeds"]
    for kind in KINDS:
        jobs = plan.of_kind(kind)
        if jobs:
            done = sum(job.is_done(context) for job in jobs)
            shared = planned.wanted[kind] - len(jobs)
            lines.append(
                f"  {kind:9} {planned.wanted[kind]:6} wanted, {len(jobs):6} distinct ({shared} shared), "
                f"{done} cached, {len(jobs) - done} to do"
            )
    lines += [f"  {stages.name:9} {stages.text}" for stages in inner_stages(plan, context)]
    for cell, fault in zip(planned.cells, planned.faults):
        if fault:
            lines.append(f"  cannot run: {cell.label}: {fault}")
    return "\n".join(lines)


def gather(planned: GridPlan, results: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """One row a cell: its axes under their names, ``group``, then the columns of the leaderboard.

    Gains are over the random real images of the grid, else over those that the results folder holds.
    A cell without a record has a reason: its method declined it (``skipped`` seeds), it could not be planned, or its
    jobs were not run (``failed`` seeds). Where axes are varied one at a time, ``base_difference`` ± ``base_half`` is
    the difference from the base cell (of the same column), paired by seed.
    """
    found, keys = [], []
    for identities in planned.identities:
        records = [r for r in (find_record(results, i.to_json()) for i in identities) if r is not None]
        found += records
        keys.append(key_of(identities[0].to_json()) if identities else None)
    unique = {record["id"]: record for record in found}
    cells = collect(unique.values())
    others = collect(r for r in iter_records(results, []) if r["identity"]["method"]["name"] == BASELINE)
    by_key = {cell.key._replace(set=""): row for cell, row in zip(cells, rows_of(cells, others))}
    scores = {cell.key._replace(set=""): cell.by_seed() for cell in cells}
    bases: dict[str, Any] = {}
    for cell, key in zip(planned.cells, keys):
        if not cell.group and not cell.beside:
            bases.setdefault(cell.column, key)
    varied = any(cell.group for cell in planned.cells)
    rows = []
    for place, (cell, key, fault) in enumerate(zip(planned.cells, keys, planned.faults)):
        row = by_key.get(key) if key is not None else None
        if row is None:
            known = key._asdict() if key is not None else _settings(cell)
            lost, left = (0, len(seeds)) if place in planned.unsupported else (len(seeds), 0)
            row = {**known, "seeds": 0, "failed": lost, "skipped": left, "gain_seeds": 0}
            row["flags"] = "failures" if lost else ""
            row["reason"] = fault or "no record: its jobs did not run"
        base = bases.get(cell.column)
        if varied and (cell.group or cell.beside) and key in scores and base in scores:
            mean, half, _ = paired_difference(scores[key], scores[base])
            row = {**row, "base_difference": number(mean), "base_half": number(half)}
        axes = {f"axis.{name}": value for name, value in cell.axes.items()}
        if cell.column:
            axes["axis.column"] = cell.column
        rows.append({**axes, "axis.group": cell.group, "beside": int(cell.beside), **row})
    return rows


def _settings(cell: GridCell) -> dict[str, Any]:
    return {n: cell.settings.get(n, "") for n in ("dataset", "protocol", "student", "ipc", "method", "backbone")}


def grid_csv(rows: list[dict[str, Any]]) -> str:
    """The long-form table: a line a cell, axes first, then the columns of ``leaderboard.csv``."""
    import csv
    import io

    first = list(dict.fromkeys(n for row in rows for n in row if n.startswith("axis.") or n == "beside"))
    extra = sorted({n for row in rows for n in row if n[0] != "_"} - set(NAMES) - set(first))
    names = [*first, *NAMES, *extra]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([str(csv_cell(row.get(n, ""))) if n in first else cell_text(row.get(n), n) for n in names])
    return out.getvalue()
