import json
import os

import pytest
from synthetic import digest, make_record

from benchmark.core.errors import DataError, JobError, UsageError
from benchmark.core.store import Store
from benchmark.pipeline.jobs import Context, EvaluateJob, Source
from benchmark.pipeline.outcomes import keep_sheet, sheet_name, write_outcome
from benchmark.results import records


def test_written_record_is_found_and_equal(tmp_path):
    record = make_record()
    path = records.write_record(tmp_path, record)
    found = records.find_record(tmp_path, record["identity"])
    assert path.name.startswith("digits-d3hr-ipc1-convnet3-clean_hard-s0-" + found["id"][:12])
    assert {k: found[k] for k in record} == record and records.read_records(tmp_path) == [found]
    assert os.listdir(path.parent) == [path.name]  # no temporary file is left


def test_id_depends_on_identity_only():
    first, second = make_record(), make_record(top1=10.0)
    assert records.record_id(first["identity"]) == records.record_id(second["identity"])
    assert records.record_id(make_record(seed=1)["identity"]) != records.record_id(first["identity"])


def test_names_of_paths_are_sanitised(tmp_path):
    path = records.write_record(tmp_path, make_record(dataset="imagefolder:/data/../x y", student="timm:resnet26"))
    assert path.parent == tmp_path / "records" and ":" not in path.name and " " not in path.name


def finished(root, record, **scores):
    """(job, context) of a student that is in the store with these scores."""
    context = Context(Store(root / "store"), root / "results")
    place = context.store.place("student", digest(scores))
    place.mkdir(parents=True)
    (place / "outcome.json").write_text(json.dumps({"scores": scores}))
    (place / "artifact.json").write_text('{"files": {}\n}')
    job = EvaluateJob(
        key=place.name,
        label="",
        source=Source("digits", ""),
        identity=records.Identity.from_json(record["identity"]),
        protocol="hard",
        protocol_sets={},
        teacher="",
        gate="chance",
        image_size=8,
    )
    return job, context


def rewritten(record, **scores) -> records.Record:
    """The record with further scores."""
    return records.Record.from_json({**record, "scores": record["scores"] | scores})


def test_a_record_with_a_metric_serves_the_run_without_it(tmp_path):
    """The two are trained apart, and where training is not repeatable their scores differ."""
    record = make_record(top1=80.0)
    plain, context = finished(tmp_path, record, top1_last=80.5, ece=5.0)
    rich, _ = finished(tmp_path, record, top1_last=80.0, ece=5.0, fgsm=40.0)
    assert not plain.is_done(context)
    records.write_record(context.results, record)
    assert plain.is_done(context) and not rich.is_done(context)
    write_outcome(rewritten(record, fgsm=40.0), context.results)
    assert plain.is_done(context) and rich.is_done(context)


@pytest.mark.parametrize("top1, kept", [(80.0, True), (80.5, False)])
def test_metrics_of_another_training_are_not_mixed_in(tmp_path, top1, kept):
    record = make_record(top1=80.0)
    records.write_record(tmp_path, {**record, "scores": record["scores"] | {"fgsm": 40.0}})
    again = make_record(top1=top1)
    write_outcome(rewritten(again, pgd=1.0), tmp_path)
    found = records.find_record(tmp_path, record["identity"])["scores"]
    assert found["pgd"] == 1.0 and found["top1_last"] == top1 and ("fgsm" in found) == kept


@pytest.mark.parametrize("dataset, method", [("imagefolder:/d/" + "long" * 60, "mine" * 60), ("é" * 90, "a/b:c")])
def test_contact_sheets_have_names_that_a_file_system_takes(tmp_path, dataset, method):
    identity = records.Identity.from_json(make_record(method, dataset=dataset)["identity"])
    (tmp_path / "contact_sheet.png").write_bytes(b"")
    kept = keep_sheet(tmp_path, identity, tmp_path / "results", lambda: pytest.fail("the sheet is there"))
    assert (tmp_path / "results" / kept).is_file() and kept.endswith(f"-ipc1-s0-{identity.set[:8]}.png")


def test_contact_sheets_keep_their_names():
    identity = records.Identity.from_json(
        make_record("d3hr-ref", seed=2, dataset="imagefolder:/data/pets@val")["identity"]
    )
    assert sheet_name(identity) == f"imagefolder__data_pets@val-d3hr-ref-ipc1-s2-{identity.set[:8]}.png"


@pytest.mark.parametrize("part,name,value", [
    ("scores", "top1_last", 99.0), ("cost", "distill_seconds", 0.0), ("identity", "ipc", 50),
    ("outcome", "flags", ["x"]),
])  # fmt: skip
def test_edit_by_hand_is_noticed(tmp_path, part, name, value):
    path = records.write_record(tmp_path, make_record())
    document = json.loads(path.read_text())
    document[part][name] = value
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match="edited") as error:
        records.read_records(tmp_path)
    assert error.value.exit_code == 3 and str(path) in str(error.value)
    faults = []
    assert records.read_records(tmp_path, faults) == [] and faults[0].path == path


def test_links_and_provenance_may_change(tmp_path):
    path = records.write_record(tmp_path, make_record())
    document = json.loads(path.read_text())
    document["artifacts"]["set"] = "elsewhere"
    path.write_text(json.dumps(document))
    assert len(records.read_records(tmp_path)) == 1


def test_unknown_schema_broken_json_and_copies_are_refused(tmp_path):
    path = records.write_record(tmp_path, make_record())
    path.with_name("zz-copy.json").write_bytes(path.read_bytes())
    path.with_name("broken.json").write_text('{"schema": 1, ')
    path.with_name("future.json").write_text('{"schema": 99}')
    path.with_name("list.json").write_text("[]")
    faults = []
    assert len(records.read_records(tmp_path, faults)) == 1
    reasons = {fault.path.name: fault.reason for fault in faults}
    assert "the same record" in reasons["zz-copy.json"] and "JSON" in reasons["broken.json"]
    assert "schema is 99" in reasons["future.json"] and "object" in reasons["list.json"]


@pytest.mark.parametrize("change,message", [
    (lambda r: r["scores"].update(top1_last=float("nan")), "nan"),
    (lambda r: r["scores"].update(top1_last=101.0), "percentage"),
    (lambda r: r["scores"].pop("top1_best"), "top1_best is missing"),
    (lambda r: r["identity"].pop("student"), "identity.student is missing"),
    (lambda r: r["identity"].update(ipc=0), "ipc"),
    (lambda r: r["identity"].update(teacher={"name": "x"}), "teacher.key is missing"),
    (lambda r: r["identity"].update(seed=True), "seed must be int"),
    (lambda r: r.pop("identity"), "identity"),
    (lambda r: r["outcome"].update(status="fine"), "one of ok"),
    (lambda r: r["outcome"].update(status="failed"), "reason is missing"),
    (lambda r: r["cost"].update(train_seconds=-1), "negative"),
    (lambda r: r["gates"]["set"].update(status="bad"), "gates.set.status"),
])  # fmt: skip
def test_bad_records_are_not_written(tmp_path, change, message):
    record = make_record()
    change(record)
    with pytest.raises(JobError, match=message):
        records.write_record(tmp_path, record)
    assert not (tmp_path / "records").exists()


def test_failure_is_a_record_and_success_replaces_it(tmp_path):
    records.write_record(tmp_path, make_record(status="failed", reason="out of memory"))
    assert records.read_records(tmp_path)[0]["outcome"]["reason"] == "out of memory"
    records.write_record(tmp_path, make_record())
    assert [r["outcome"]["status"] for r in records.read_records(tmp_path)] == ["ok"]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "records").write_text("a file")
    with pytest.raises(UsageError):
        records.write_record(tmp_path, make_record())


def test_no_records_is_an_empty_list(tmp_path):
    assert records.read_records(tmp_path / "nowhere") == []
