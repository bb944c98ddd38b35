"""Sections that are tables: reported numbers, protocols, failures, provenance. All folded until they are asked for."""

from __future__ import annotations

import html
import json
from collections import defaultdict
from collections.abc import Sequence

from benchmark.core.errors import DDBenchError
from benchmark.results.boards.reported import Reported, by_cell
from benchmark.results.boards.table import cell_text
from benchmark.results.records.remake import split_commas
from benchmark.results.report.facts import Facts, Protocols, Resolved
from benchmark.results.report.parts import data, section, table


def reported(rows: list[dict], published: Sequence[Reported]) -> str:
    """Published numbers of the datasets at hand, beside what was measured here (each variant and protocol apart)."""
    datasets = {row["dataset"] for row in rows}
    measured = defaultdict(list)
    for row in rows:
        if row["top1_last"] is not None:
            key = (row["dataset"], row["method"], row["student"], row["ipc"])
            measured[key].append(f"{row['top1_last']:.1f} ({row['protocol']})")
    lines = []
    for key, items in by_cell([item for item in published if item.dataset in datasets]).items():
        for i in items:
            texts = [i.method, i.dataset, str(i.ipc), i.student, i.label_type, i.text, "; ".join(measured.get(key, []))]
            note = f" ({i.note})" if i.note else ""
            lines.append((data(dataset=i.dataset, ipc=i.ipc), [*texts, i.source + note]))
    if not lines:
        return ""
    head = ["method", "dataset", "IPC", "student", "labels", "reported %", "measured here % (protocol)", "source"]
    note = (
        '<p class="soft">Other code, other protocols, other hardware; never averaged with measured numbers. ? marks a '
        "number seen only in a secondary summary.</p>"
    )
    body = note + table(head, lines, wrap=(6, 7))
    return section("reported", "Reported by papers", body, f"{len(lines)} numbers", group=True)


def protocols(used: Protocols, resolved: Resolved) -> str:
    """Every field of the protocols that records were made with, and what they came to for each student and IPC.

    A version that is registered here is explained; of another (older, or with changes) the fields that its records
    carry are shown; what neither has is named.
    """
    from benchmark.evaluation.protocols import describe, load_protocol
    from benchmark.plugins import registry

    registered = registry().items["protocol"]
    known, recorded, lost = [], [], []
    for (name, version, digest), document in sorted(used.items(), key=lambda item: item[0]):
        base, _, changes = name.partition("+")  # hard+steps=200: made of hard and what --set changed
        found = None
        try:
            if base in registered:
                found = load_protocol(base, dict(part.split("=", 1) for part in split_commas(changes)) or None)
        except (DDBenchError, ValueError):
            pass  # a field that protocols of today do not have
        if found is not None and found.digest != digest:
            found = None
        if found is not None and not changes:
            known.append(name)
        elif document or found is not None:
            recorded.append((f"{name} v{version}", document or found.document()))
        else:
            lost.append(f"{name} v{version}")
    note = f"Neither registered here nor in the records: {html.escape(', '.join(lost))}." if lost else ""
    if not used:
        return ""
    parts = [f'<p class="soft">{note}</p>' if note else "", in_force(resolved)]
    if len(known) > 1:
        parts.append("<h3>Where they differ</h3>")
        rows = (("", tuple(map(str, row))) for row in describe(*known))
        parts.append(table(["field", *known, "meaning"], rows, wrap=tuple(range(1, len(known) + 2))))
    for name in known:
        lines = (("", tuple(map(str, row))) for row in describe(name))
        parts.append(f"<details {data(protocol=name)}><summary>{html.escape(name)}: every field</summary>")
        parts.append(table(["field", "value", "meaning"], lines, wrap=(1, 2)) + "</details>")
    for name, document in recorded:
        lines = (("", (field, json.dumps(value, ensure_ascii=False))) for field, value in sorted(document.items()))
        parts.append(f"<details><summary>{html.escape(name)}: every field</summary>")
        parts.append(table(["field", "value"], lines, wrap=(1,)) + "</details>")
    many = f"{len(used)} protocol{'s' * (len(used) != 1)}: fields, and what they came to for each student and IPC"
    return section("protocols", "Protocols", "".join(parts), many)


def in_force(resolved: Resolved) -> str:
    """The values that protocols came to, as the records hold them: a line a dataset, protocol, student and IPC."""
    fields = sorted({name for values in resolved.values() for name in values})
    lines = [
        (
            data(dataset=d, protocol=p.rpartition(" v")[0], student=s, ipc=i),
            [d, p, s, str(i), *(_plain(values.get(name)) for name in fields)],
        )
        for (d, p, s, i), values in sorted(resolved.items(), key=lambda item: item[0])
    ]
    head = ["dataset", "protocol", "student", "IPC", *(name.replace("_", " ") for name in fields)]
    return "<h3>As resolved for the records</h3>" + table(head, lines) if lines else ""


def _plain(value: object) -> str:
    return "–" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def failures(rows: list[dict], label: dict[int, str]) -> str:
    """What failed or was skipped, with the reason."""
    lines = [
        (
            data(dataset=r["dataset"], protocol=r["protocol"], student=r["student"], ipc=r["ipc"]),
            [label.get(id(r), r["method"]), r["dataset"], r["protocol"], r["student"], str(r["ipc"])]
            + [str(r["failed"]), str(r["skipped"]), cell_text(r["reason"], "reason")],
        )
        for r in rows
        if r["failed"] or r["skipped"]
    ]
    if not lines:
        return ""
    head = ["method", "dataset", "protocol", "student", "IPC", "failed", "skipped", "reason"]
    body = table(head, lines, wrap=(7,))
    return section("failures", "Failed and skipped", body, f"{len(lines)} cells", group=True)


def provenance(facts: Facts) -> str:
    """Versions, commits and machines of the records."""
    dates = sorted({d[:10] for d in facts.created if d})
    when = f"Records were made between {dates[0]} and {dates[-1]}. " if len(dates) > 1 else ""
    when = f"Records were made on {dates[0]}. " if len(dates) == 1 else when
    gates = ", ".join(f"{n} {status}" for status, n in sorted(facts.gates.items()))
    head = ["records", "ddbench", "python", "torch", "torchvision", "diffusers", "commit", "hardware"]
    lines = [("", [str(n), *key]) for key, n in sorted(facts.provenance.items(), key=lambda kv: (-kv[1], kv[0]))]
    note = (
        f'<p class="soft">{html.escape(when)}Gate of the distilled sets (the teacher recognises them): '
        f"{html.escape(gates)}.</p>"
    )
    return section("provenance", "Provenance", note + table(head, lines, wrap=(7,)), "Versions, commits, machines")
