import json

import pytest
from click.testing import CliRunner
from synthetic import make_record

from benchmark.cli.compare import compare as command
from benchmark.core.errors import MissingError, UsageError
from benchmark.results import records
from benchmark.results.boards.cells import collect
from benchmark.results.boards.compare import compare, comparisons, parse_selector, summarise
from benchmark.results.boards.differences import markdown


def runs(method, values, **options):
    return [records.sealed(make_record(method, seed, top1=v, **options)) for seed, v in enumerate(values)]


def cells(*groups):
    return collect(record for group in groups for record in group)


def test_pairs_by_seed_inside_a_cell_only():
    made = cells(
        runs("a", [80, 82, 90]), runs("b", [70, 71, 78]), runs("a", [60, 61, 62], ipc=10), runs("b", [1], protocol="p2")
    )
    (pair,) = compare(made, "a", "b")
    assert pair.difference == pytest.approx(11.0) and pair.seeds == 3 and pair.verdict == "better"
    assert pair.half == pytest.approx(2.4841, abs=1e-3)  # t(0.975, 2) * 1 / sqrt 3


def test_cells_are_one_number_by_protocol_whose_error_is_over_seeds():
    groups = []
    for ipc, shift in ((1, 5), (10, 0.1), (50, -5)):
        groups += [runs("a", [50 + shift, 51 + shift, 53 + shift], ipc=ipc), runs("b", [50, 52, 52], ipc=ipc)]
    groups += [runs("a", [50, 51, 52], protocol="p2"), runs("b", [40, 41, 42.5], protocol="p2")]
    first, second = summarise(compare(cells(*groups), "a", "b"))
    assert (first.wins, first.ties, first.losses, first.cells, first.seeds) == (1, 1, 1, 3, 3)
    assert first.mean_difference == pytest.approx(0.0333, abs=1e-3)  # of each seed over cells: 0.03, -0.97, 1.03
    assert first.half == pytest.approx(4.303 / 3**0.5, abs=1e-3) and first.p == pytest.approx(0.96, abs=0.01)
    assert second.protocol == "p2 v1" and second.cells == 1


def test_variants_are_chosen_by_parameters():
    made = cells(*[runs("a", [50 + d, 51 + d, 52 + d], params={"depth": d, "kind": "x"}) for d in (10, 30)])
    with pytest.raises(UsageError, match="2 variants") as error:
        compare(made, "a", "a")
    assert "a (depth=10); a (depth=30)" in str(error.value)
    (pair,) = compare(made, "a:depth=30", "a:depth=10")
    assert pair.difference == pytest.approx(20)
    with pytest.raises(UsageError, match="did you mean 'depth'"):
        compare(made, "a:dept=30", "a:depth=10")
    with pytest.raises(MissingError):
        compare(made, "a:depth=31", "a:depth=10")


def made_from(method, values, **inputs):
    """Records of a method whose sets were made from these inputs: {kind: key}."""
    made = runs(method, values, backbone={"name": "tiny", "key": inputs.pop("backbone", "e" * 64)})
    for record in made:
        record["identity"]["method"]["inputs"] = inputs
    return [records.sealed(record) for record in made]


@pytest.mark.parametrize("text", ["d3hr:", "d3hr: ", "d3hr:depth", "d3hr:depth=30,x"])
def test_a_selector_without_a_value_is_refused(text):
    with pytest.raises(UsageError, match="KEY=VALUE"):
        parse_selector(text)


def test_variants_are_chosen_by_what_they_were_made_from():
    a, b, c = ({"name": "resnet18", "key": k * 64} for k in ("0", "1", "2"))
    made = cells(
        made_from("a", [50, 51], teacher=a, squeeze="f" * 64),
        made_from("a", [60, 61], teacher=b, squeeze="f" * 64),
        made_from("a", [70, 71], teacher=c, backbone="0" * 63 + "1"),
        made_from("a", [80, 81]),
        runs("b", [10, 11]),
    )
    with pytest.raises(UsageError, match="4 variants") as error:
        compare(made, "a", "b")
    assert "teacher resnet18 000000" in str(error.value) and "backbone_key, inputs" in str(error.value)
    for chosen, top1 in (
        ("a:inputs=teacher resnet18 00", 50), ("a:inputs=teacher resnet18 1", 60), ("a:backbone_key=000", 70),
        ("a:inputs=", 80),
    ):  # fmt: skip
        (pair,) = compare(made, chosen, "b")
        assert pair.difference == pytest.approx(top1 - 10)
    with pytest.raises(MissingError, match="no record of a:inputs=squeeze 9"):
        compare(made, "a:inputs=squeeze 9", "b")


def test_a_skipped_cell_is_no_variant():
    skipped = [records.sealed(make_record("a", s, status="skipped", reason="no backbone")) for s in range(2)]
    (pair,) = compare(cells(skipped, made_from("a", [50, 51]), runs("b", [10, 11])), "a", "b")
    assert pair.difference == pytest.approx(40)


def test_a_list_chooses_and_a_wrong_one_is_no_traceback():
    made = cells(*[runs("a", [50, 51], params={"depths": d}) for d in ([1, 2], [3, 4])], runs("b", [1, 2]))
    (pair,) = compare(made, "a:depths=[3,4]", "b")
    assert pair.difference == pytest.approx(49)
    with pytest.raises(UsageError, match="cannot read"):
        compare(made, "a:depths=[3,4", "b")


def test_nothing_shared_is_an_error():
    with pytest.raises(MissingError, match="no cell holds both"):
        compare(cells(runs("a", [1, 2]), runs("b", [1, 2], ipc=10)), "a", "b")
    with pytest.raises(UsageError, match="unknown method"):
        compare(cells(runs("a", [1, 2])), "a", "b")


def test_different_backbones_are_said():
    one, two = ({"name": n, "key": n[0] * 64} for n in ("tiny", "small"))
    (pair,) = compare(cells(runs("a", [1, 2], backbone=one), runs("b", [1, 2], backbone=two)), "a", "b")
    assert "tiny against small" in pair.note


TEACHER = {"name": "convnet3", "key": "7" * 64}


def two_protocols():
    """Methods a and b under p1 (hard labels) and p2 (a teacher's); c under p1 alone."""
    made = [runs(m, [50 + d, 52 + d, 51 + d], protocol="p1") for m, d in (("a", 0), ("b", -10), ("c", 5))]
    shifts = (("a", 3), ("b", 7))
    return cells(*made, *(runs(m, [50 + d, 52 + d, 51.5 + d], protocol="p2", teacher=TEACHER) for m, d in shifts))


def test_one_against_several():
    found = comparisons(two_protocols(), "a", ["b", "c"])
    assert [(p.second, p.protocol, round(p.difference, 1)) for pairs in found for p in pairs] == [
        ("b", "p1 v1", 10.0), ("b", "p2 v1", -4.0), ("c", "p1 v1", -5.0),
    ]  # fmt: skip
    text = markdown(found)
    assert (
        "paired by seed (3 of them)" in text
        and "**digits, protocol p1 v1: a − …**" in text
        and "| − c | **-5.0 ± 0.0 †** | **-5.0 ± 0.0** |" in text
    )


def test_teachers_are_named_where_one_table_has_several():
    def taught(key, dataset):
        teacher = {"name": "convnet3", "key": key * 64}
        return [runs(m, v, teacher=teacher, dataset=dataset) for m, v in (("a", [50, 51]), ("b", [40, 42]))]

    made = cells(*taught("1", "d1"), *taught("2", "d2"))
    assert "convnet3 2" not in markdown(comparisons(made, "a", ["b"]))
    made = cells(*taught("1", "d1"), *taught("2", "d1"))
    assert "| | IPC 1 convnet3 convnet3 111111 | IPC 1 convnet3 convnet3 222222 |" in markdown(
        comparisons(made, "a", ["b"])
    )


def test_what_both_sides_name_may_differ():
    (pair,) = compare(two_protocols(), "a:protocol=p2", "a:protocol=p1")
    assert pair.difference == pytest.approx(3 + 0.5 / 3) and pair.protocol == "p2 v1 − p1 v1"
    assert pair.teacher == "convnet3 − none"
    with pytest.raises(MissingError, match="no cell holds both"):
        compare(two_protocols(), "a:protocol=p2", "c")
    with pytest.raises(UsageError, match="2 variants") as error:
        compare(two_protocols(), "a:protocol=p*", "a:protocol=p1")
    assert "a with protocol=p1; a with protocol=p2" in str(error.value)


def test_a_wildcard_pairs_each_method_with_itself():
    found = comparisons(two_protocols(), "*:protocol=p2", ["*:protocol=p1"])
    assert [(p.first, round(p.difference, 1)) for pairs in found for p in pairs] == [
        ("a:protocol=p2", 3.2), ("b:protocol=p2", 17.2),
    ]  # fmt: skip
    assert "| b | **+17.2 ± 0.7 †** | **+17.2 ± 0.7** |" in markdown(found)
    for first, others in (("*", ["a"]), ("a", ["*"]), ("*:protocol=p2", ["*:protocol=p1", "a"])):
        with pytest.raises(UsageError, match="both sides"):
            comparisons(two_protocols(), first, others)
    with pytest.raises(UsageError, match="unknown method"):
        comparisons(two_protocols(), "z*:protocol=p2", ["z*:protocol=p1"])


def test_tuned_and_untuned_are_chosen():
    made = runs("a", [60, 61, 62], params={"g": 2})
    note = {"on": "digits@val", "protocol": "p", "student": "s", "trials": 4, "seeds": 1}
    for record in made:
        record["artifacts"]["tuning"] = note
    (pair,) = compare(cells(made, runs("a", [50, 51, 52], params={"g": 1})), "a:tuned=best", "a:tuned=")
    assert pair.difference == pytest.approx(10)


def test_a_folder_without_records_is_said(tmp_path):
    with pytest.raises(MissingError, match="no records in"):
        CliRunner().invoke(command, ["a", "b", "--results", str(tmp_path)], catch_exceptions=False)


def test_command_prints_and_draws(tmp_path):
    for record in runs("a", [80, 82, 90]) + runs("b", [70, 71, 78]):
        records.write_record(tmp_path, record)
    run = CliRunner()
    out = run.invoke(command, ["a", "b", "--results", str(tmp_path), "--plot", str(tmp_path / "p.svg")])
    assert "+11.0 ± 2.5" in out.output and "a wins 1, ties 0, loses 0 of 1 cells" in out.output
    assert (tmp_path / "p.svg").read_text().startswith("<?xml")
    document = json.loads(run.invoke(command, ["a", "b", "--results", str(tmp_path), "--format", "json"]).output)
    assert document["pairs"][0]["seeds"] == 3
    lines = run.invoke(command, ["a", "b", "--results", str(tmp_path), "--format", "csv"]).output.splitlines()
    assert len(lines) == 2 and lines[0].startswith("first,second,dataset,protocol")


def test_an_unknown_score_is_a_wrong_option_not_a_missing_record():
    made = cells(runs("a", [80, 82, 90]), runs("b", [70, 71, 78]))
    with pytest.raises(UsageError, match="did you mean 'top1_last'") as error:
        compare(made, "a", "b", "top1_lst")
    assert error.value.exit_code == 2 and "ece, top1_best, top1_last, top5_last" in str(error.value)
    with pytest.raises(UsageError, match="unknown score 'nope'"):
        compare(made, "a", "b", "nope")
    assert compare(made, "a", "b", "top1_best")[0].difference == pytest.approx(11.0)


def test_several_teachers_are_named_and_one_is_not(tmp_path):
    def table(*teachers):
        folder = tmp_path / str(len(teachers))
        for teacher in teachers:
            for record in runs("a", [80, 82], teacher=teacher) + runs("b", [70, 71], teacher=teacher):
                records.write_record(folder, record)
        plot = tmp_path / "p.svg"
        shown = CliRunner().invoke(command, ["a", "b", "--results", str(folder), "--plot", str(plot)]).output
        return shown.splitlines()

    one, two, third = ({"name": n, "key": k * 64} for n, k in (("resnet18", "a"), ("resnet18", "b"), ("vgg", "c")))
    assert "teacher" not in table(one)[0]
    head, _, *lines = table(one, two, third)[:5]
    assert "teacher" in head
    assert [line.split("v1")[1].split("convnet3")[0].strip() for line in lines] == [
        "resnet18 aaaaaa", "resnet18 bbbbbb", "vgg",
    ]  # fmt: skip
