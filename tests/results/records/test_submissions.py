import json
import shlex

import pytest
from click.testing import CliRunner
from PIL import Image
from synthetic import make_record

from benchmark.cli.results import results as command
from benchmark.core.errors import DataError, MissingError
from benchmark.results.records import read_records, write_record
from benchmark.results.records.submissions import add, verify


def good(seed=0, **options):
    return make_record(seed=seed, curve=False, **options)


@pytest.fixture
def theirs(tmp_path):
    for seed in range(3):
        write_record(tmp_path / "theirs", good(seed))
    return tmp_path / "theirs"


def invoke(*arguments):
    return CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False, standalone_mode=False)


def test_good_records_are_taken_over_with_their_pictures(theirs, tmp_path):
    record = good(3)
    record["artifacts"]["contact_sheet"] = "sets/a.png"
    (theirs / "sets").mkdir()
    Image.new("L", (4, 4)).save(theirs / "sets" / "a.png")
    write_record(theirs, record)
    ours = tmp_path / "ours"
    assert invoke("add", theirs, "--results", ours).return_value == 0
    assert len(read_records(ours)) == 4 and (ours / "sets" / "a.png").is_file()
    assert (ours / "leaderboard.csv").is_file()
    again = add(theirs, ours)
    assert (len(again.new), again.same) == (0, 4)
    assert invoke("verify", ours).return_value == 0


def test_one_bad_record_and_nothing_is_added(theirs, tmp_path):
    path = next((theirs / "records").glob("*.json"))
    path.write_text(path.read_text().replace('"top1_last": 80.0', '"top1_last": 99.0'))
    with pytest.raises(DataError, match="1 of 3 records are bad"):
        add(theirs, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
    result = invoke("verify", theirs)
    assert result.return_value == 1 and "edited" in result.stderr


def test_contradictions_need_a_decision(theirs, tmp_path):
    ours = tmp_path / "ours"
    write_record(ours, good(1, top1=50.0))
    with pytest.raises(DataError, match="contradict"):
        add(theirs, ours)
    assert len(read_records(ours)) == 1
    done = add(theirs, ours, replace=True)
    assert len(done.replaced) == 1 and {r["scores"]["top1_last"] for r in read_records(ours)} == {80.0}


@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_scores_take_the_place_of_a_failure_and_never_the_reverse(theirs, tmp_path, status):
    ours = tmp_path / "ours"
    write_record(ours, good(1, status=status, reason="out of memory"))
    done = add(theirs, ours)
    assert (len(done.new), len(done.replaced), done.same) == (2, 1, 0)
    for seed in range(3):
        write_record(theirs, good(seed, status=status, reason="out of memory"))
    for replace in (False, True):
        done = add(theirs, ours, replace=replace)
        assert (done.replaced, done.same) == ([], 3)
    assert {r["outcome"]["status"] for r in read_records(ours)} == {"ok"}


@pytest.mark.parametrize("change,message", [
    (lambda r: r["gates"].pop("set"), "not recorded"),
    (lambda r: r["gates"]["teacher"].update(status="low"), "gate is low"),
    (lambda r: r["gates"]["set"].update(recognised=5.0), "5.0 % recognised"),
    (lambda r: r["scores"].update(top1_best=10.0), "below top1_last"),
    (lambda r: r["scores"].update(curve=[[1, 60.0, 80.0]]), "curve ends at 60.0"),
    (lambda r: r["provenance"].pop("ddbench"), "which version"),
    (lambda r: r["provenance"].update(commit="abc-dirty"), "in no commit"),
])  # fmt: skip
def test_doubts(tmp_path, change, message):
    record = good()
    change(record)
    write_record(tmp_path, record)
    verdict = verify(tmp_path)
    assert not verdict.faults and any(message in d.reason for d in verdict.doubts)
    assert invoke("verify", tmp_path).return_value == 0 and invoke("verify", tmp_path, "--strict").return_value == 1


def test_a_board_that_is_out_of_date_is_noticed(theirs):
    (theirs / "leaderboard.csv").write_text("old")
    result = invoke("verify", theirs / "records")  # either folder is understood
    assert result.return_value == 1 and "not what the records give" in result.stdout


def test_pictures_outside_the_folder_are_left(theirs, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"x")
    record = good(9)
    record["artifacts"]["contact_sheet"] = "secret.png"
    path = write_record(theirs, record)
    (theirs / "secret.png").symlink_to(tmp_path / "secret.png")
    add(theirs, tmp_path / "ours")  # a link is not followed
    assert not (tmp_path / "ours" / "secret.png").exists() and len(read_records(tmp_path / "ours")) == 4
    path.write_text(path.read_text().replace("secret.png", "../secret.png"))
    with pytest.raises(DataError, match="1 of 4 records are bad"):
        add(theirs, tmp_path / "deep" / "ours")
    assert not (tmp_path / "deep").exists()


def test_no_records(tmp_path):
    with pytest.raises(MissingError):
        invoke("verify", tmp_path)


def test_good_records_raise_no_doubt(theirs):
    assert verify(theirs).doubts == []
    assert json.loads(next((theirs / "records").glob("*.json")).read_text())["schema"] == 1


def dirty(seed, **options):
    record = good(seed, **options)
    record["provenance"]["commit"] = "abc-dirty"
    return record


def test_the_commands_that_make_clean_records_are_named(tmp_path):
    for seed in range(3):
        for ipc in (1, 10):
            write_record(tmp_path, dirty(seed, method="random", ipc=ipc, protocol="hard+epochs=5", student="resnet18"))
        write_record(tmp_path, dirty(seed, method="theirs", params={"k": 4, "mood": "good"}))
        write_record(tmp_path, good(seed, method="noise"))
    out = invoke("verify", tmp_path).stderr
    assert out.count("in no commit") == 1 and " and 8 more: " in out  # one line for all of them
    clean = f"{tmp_path.name}-clean"
    assert (
        "ddbench run --method random --dataset digits --ipc 1,10 --student resnet18 --protocol hard --seeds 3 "
        f"--set protocol.epochs=5 --no-floor --results {clean}\n" in out
    )
    assert "--method theirs" in out and "--set theirs.k=4 --set theirs.mood=good" in out and "noise" not in out
    assert f"ddbench results add {clean} --results {tmp_path}" in out


def test_only_parameters_that_are_not_defaults_are_named(tmp_path):
    from benchmark.backbones.guidance import chosen
    from benchmark.methods import make_params
    from benchmark.plugins import registry
    from benchmark.results.records.remake import commands

    known = vars(make_params(registry().get("method", "d3hr").load(), "d3hr", "digits", {}, chosen("digits")))
    (line,) = commands([dirty(0, params={**known, "depth": 10})], "new")
    assert line.count("--set") == 1 and "--set d3hr.depth=10" in line


def test_a_list_among_the_overrides_stays_whole():
    from benchmark.results.records.remake import commands

    (line,) = commands([dirty(0, protocol="soft+batch={1: 10,50: 100},betas=[0.9,0.99],mix=none")], "new")
    words = shlex.split(line)
    assert words[words.index("--protocol") + 1] == "soft"
    assert [words[i + 1] for i, word in enumerate(words) if word == "--set"] == [
        "protocol.batch={1: 10,50: 100}", "protocol.betas=[0.9,0.99]", "protocol.mix=none",
    ]  # fmt: skip


def test_a_clean_record_takes_the_place_of_an_equal_dirty_one(theirs, tmp_path):
    ours = tmp_path / "ours"
    write_record(ours, dirty(0))
    write_record(ours, good(1))
    assert "1 new, 0 replaced, 1 made clean, 1 already there" in invoke("add", theirs, "--results", ours).stdout
    assert verify(ours).dirty == [] and len(read_records(ours)) == 3
    write_record(theirs, dirty(0))
    assert (add(theirs, ours).same, verify(ours).dirty) == (3, [])  # and never the other way round
