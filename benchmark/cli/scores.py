"""``scores``: label-robust and augmentation-robust scores from records."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import click

from benchmark.cli.options import Number, filters, good_records, table_format
from benchmark.core.errors import MissingError

PLAIN = "+augment=[],mix=none"


@click.command(
    epilog="""\b
Examples:
  ddbench run --method d3hr --dataset digits --ipc 10 --protocol hard,soft
  ddbench run --method d3hr --dataset digits --ipc 10 --protocol soft \\
              --set protocol.augment=[] --set protocol.mix=none
  ddbench scores
  ddbench scores --soft rded-paper --dataset cifar10 --student convnet3_bn --full 84.8 --format csv
"""
)
@functools.partial(filters, names=("dataset", "student"))
@click.option("--hard", default="hard", show_default=True, help="Protocol with class labels.")
@click.option("--soft", default="soft", show_default=True, help="Protocol with a teacher's labels and augmentation.")
@click.option("--plain", help=f"The same without augmentation.  [default: the soft one's name and {PLAIN}]")
@click.option(
    "--full", type=Number(0, 100),
    help="Accuracy in percent of a student trained on all the data. Default: the teacher's, if it is the same network. "
    "Holds for one student on one dataset.",
)  # fmt: skip
@table_format(columns=True)
def scores(
    results: Path,
    hard: str,
    soft: str,
    plain: str | None,
    full: float | None,
    form: str,
    columns: tuple[str, ...],
    **chosen: tuple[str, ...],
) -> int:
    """Gap to full data, gain over random, label-robust and augmentation-robust score of every distilled set.

    As DD-Ranking defines them (arXiv 2505.13300), in fractions, from last-epoch accuracies of records that are there:
    nothing is trained. What a score lacks is named. Of several versions of a protocol the highest counts.
    """
    import dataclasses

    from benchmark.core.sheet import choose, render, simple
    from benchmark.results.boards.boards import select_cells
    from benchmark.results.boards.cells import collect
    from benchmark.results.boards.robust import robust_rows

    cells = select_cells(collect(good_records(results)), {name: chosen[name] for name in chosen if chosen[name]})
    rows = robust_rows(cells, hard, soft, plain or soft + PLAIN, full)
    if not rows:
        raise MissingError(
            f"no records of protocol {soft} in {results / 'records'}",
            where="--soft",
            hint=f"ddbench run --protocol {soft} …",
        )
    documents: list[dict[str, Any]] = []
    for row in rows:
        document = dataclasses.asdict(row)
        for name in ("gap", "gain", "label", "augmentation"):
            value = document.pop(name)
            document |= {name: value and value[0], f"{name}_half": value and value[1]}
        documents.append({**document, "missing": document.pop("missing")})
    lines = [
        [r.dataset, r.student, r.ipc, r.method, r.seeds, *map(_text, (r.gap, r.gain, r.label, r.augmentation))]
        + [r.missing]
        for r in rows
    ]
    headers = ["dataset", "student", "IPC", "method", "seeds", "gap to full", "gain", "label-robust", "augm.-robust"]
    sheet = simple("Robust scores", [*headers, "missing"], lines, "llrlrrrrrl", documents=documents)
    sheet.legend = f"fractions, ± 95 % t interval over seeds; gap under {hard}, gain over random under {soft}"
    choose([sheet], columns)
    click.echo(render([sheet], form, "ddbench scores"), nl=False)
    return 0


def _text(value: tuple[float, float | None] | None) -> str:
    if value is None:
        return "–"
    return f"{value[0]:.3f}" + ("" if value[1] is None else f" ± {value[1]:.3f}")
