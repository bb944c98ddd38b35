"""Teachers: trained once, resumed after a kill, given as files that cannot run code, joined to ensembles."""

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from benchmark.core.errors import DataError, GateError, MissingError, UsageError
from benchmark.core.store import digest_of
from benchmark.core.store.checked import replace_checked
from benchmark.evaluation import gates
from benchmark.students import build_student
from benchmark.teachers import (
    RECIPES,
    external,
    get,
    get_teacher,
    recipe_for,
    recipe_of,  # noqa: I001
    teacher_key,
    teacher_stage,
)
from benchmark.teachers.external import read_weights
from benchmark.training import checkpoint, loop


def test_a_trained_teacher_is_cached_and_records_its_accuracy(store, easy):
    first = get_teacher(store, easy, "convnet3_bn")
    stage = teacher_stage(easy, "convnet3_bn")
    assert first.key == stage.key == teacher_key(easy, "convnet3_bn") and store.has(stage)
    report = json.loads((store.path(stage) / "report.json").read_text())
    assert report["accuracy"] == first.accuracy > 90
    again = get_teacher(store, easy, "convnet3_bn")
    images = easy.test.images(range(10))
    assert torch.equal(first.logits(images), again.logits(images))
    assert first.features(images).shape == (10, 128) and first.logits(images).shape == (10, 4)
    assert gates.check_teacher(first, easy)["status"] == "ok"


def test_a_killed_teacher_costs_one_interval_and_ends_the_same(tmp_path, easy, monkeypatch):
    from dataclasses import replace

    from benchmark.core.store import Store

    monkeypatch.setitem(RECIPES, "tiny", replace(RECIPES["tiny"], steps=30))
    monkeypatch.setattr(loop, "FIRST_INTERVAL", 7)
    monkeypatch.setattr(loop, "INTERVAL_SECONDS", 1e-6)  # so that intervals shrink to one step
    whole = get_teacher(Store(tmp_path / "a"), easy, "convnet3_bn")
    killed = Store(tmp_path / "b")
    saved = []

    def kill(file, state, about):
        save(file, state, about)
        saved.append(about["done"])
        if len(saved) in (1, 3):
            raise KeyboardInterrupt

    save = loop._save
    monkeypatch.setattr(loop, "_save", kill)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            get_teacher(killed, easy, "convnet3_bn")
    resumed = get_teacher(killed, easy, "convnet3_bn")
    for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values()):
        assert torch.equal(a, b)
    work = [json.loads(line)["steps"] for line in (killed.root / "work.jsonl").read_text().splitlines()]
    assert saved[:2] == [7, 14] and saved[-1] == 30 and sum(work) == 30
    assert not (killed.root / "work" / "teacher").exists() or not list((killed.root / "work" / "teacher").iterdir())


def test_a_training_split_beyond_memory_gives_the_same_teacher(tmp_path, easy, monkeypatch):
    from dataclasses import replace

    from benchmark.core.store import Store
    from benchmark.training import testing

    monkeypatch.setitem(RECIPES, "tiny", replace(RECIPES["tiny"], steps=5))
    resident = get_teacher(Store(tmp_path / "a"), easy, "convnet3_in")
    monkeypatch.setattr(testing, "memory_limit", lambda: easy.train.array.nbytes - 1)
    read = get_teacher(Store(tmp_path / "b"), easy, "convnet3_in")
    for a, b in zip(resident.model.state_dict().values(), read.model.state_dict().values()):
        assert torch.equal(a, b)


def test_threads_are_put_back(store, easy, monkeypatch):
    from dataclasses import replace

    monkeypatch.setitem(RECIPES, "tiny", replace(RECIPES["tiny"], steps=1))
    monkeypatch.setenv("DDBENCH_THREADS", str(torch.get_num_threads() + 1))
    before = torch.get_num_threads()
    get_teacher(store, easy, "convnet3_in")
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("text", ["x", "0", "-2", "1.5"])
def test_a_wrong_number_of_threads_is_a_usage_error_before_any_job(monkeypatch, store, tmp_path, text):
    from benchmark.pipeline.plan import make_plan
    from benchmark.pipeline.request import Request

    monkeypatch.setenv("DDBENCH_THREADS", text)
    with pytest.raises(UsageError, match="DDBENCH_THREADS"):
        make_plan([Request("digits", ("random",))], store, tmp_path)
    assert not store.root.exists() or not any(store.root.rglob("*.json"))


def test_imagenets_weights_are_refused_for_other_classes_before_any_work(monkeypatch, store, tmp_path):
    from benchmark.pipeline.plan import make_plan
    from benchmark.pipeline.request import Request

    with pytest.raises(GateError, match="head for 1000 classes, digits has 10"):
        make_plan([Request("digits", ("random",), teacher="torchvision:resnet18")], store, tmp_path)


def test_wrong_teacher_files_say_what_is_allowed(store, easy, tmp_path):
    (tmp_path / "there.safetensors").write_bytes(b"")
    for name, error in (("mis.pt", MissingError), ("weights.txt", UsageError), ("weights", UsageError)):
        with pytest.raises(error) as caught:
            teacher_key(easy, str(tmp_path / name))
        assert "ARCHITECTURE@FILE" in caught.value.allowed and ".safetensors" in caught.value.allowed
        assert error is UsageError or "there.safetensors" in str(caught.value)


def test_a_changed_students_version_changes_keys_and_identities(monkeypatch, store, tmp_path, easy):
    """Version 1 adds nothing, so that keys and records from before versions stay valid."""
    import dataclasses

    from benchmark.pipeline.plan import make_plan
    from benchmark.pipeline.request import Request
    from benchmark.plugins import registry

    def jobs():
        plan = make_plan([Request("digits", ("random",), seeds=(0,))], store, tmp_path)
        return {j.kind: j for j in plan.jobs}, teacher_stage(easy, "convnet3_bn").key

    before, key = jobs()
    students = registry().items["student"]
    monkeypatch.setitem(students, "convnet3_bn", dataclasses.replace(students["convnet3_bn"], version=2))
    after, other = jobs()
    assert key != other and before["evaluate"].key != after["evaluate"].key
    assert before["teacher"].key != after["teacher"].key and before["distill"].key == after["distill"].key
    assert "student_version" not in before["evaluate"].identity.to_json()
    assert after["evaluate"].identity.student_version == 2


def test_a_teacher_in_mixed_precision_has_a_key_of_its_own_and_float32_weights(store, easy, monkeypatch):
    from dataclasses import replace

    plain = teacher_stage(easy, "convnet3_bn").key
    monkeypatch.setitem(RECIPES, "tiny", replace(RECIPES["tiny"], autocast="bfloat16"))
    seen = []
    forward = torch.nn.Linear.forward
    monkeypatch.setattr(torch.nn.Linear, "forward", lambda s, x: seen.append(forward(s, x)) or seen[-1])
    mixed = get_teacher(store, easy, "convnet3_bn")
    assert mixed.key == teacher_stage(easy, "convnet3_bn").key != plain
    assert seen[0].dtype == torch.bfloat16 and seen[-1].dtype == torch.float32  # the last one: its test
    assert {p.dtype for p in mixed.model.parameters()} == {torch.float32} and mixed.accuracy > 90


def test_a_teacher_trained_inside_a_job_leaves_the_jobs_precision(store, easy, monkeypatch):
    from dataclasses import replace

    from benchmark.core import compute

    monkeypatch.setitem(RECIPES, "tiny", replace(RECIPES["tiny"], steps=2))
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    seen = []
    forward = torch.nn.Linear.forward
    watch = lambda s, x: seen.append([f.allow_tf32 for f in flags]) or forward(s, x)  # noqa: E731
    monkeypatch.setattr(torch.nn.Linear, "forward", watch)
    with compute.prepared("evaluate", compute.Precision.named("bf16")):
        get_teacher(store, easy, "convnet3_bn")
        assert [f.allow_tf32 for f in flags] == [True, True] and seen[0] == [False, False]


def test_recipes_follow_the_dataset(easy):
    from easy import easy_dataset

    assert recipe_for(easy) == RECIPES["tiny"]
    assert recipe_for(easy_dataset(train=100, name="digits")) == RECIPES["digits"]
    assert recipe_for(easy_dataset(train=800)) == RECIPES["gray"]
    assert recipe_for(easy_dataset(3, train=800)) == RECIPES["small"]
    assert not any(e["op"] == "flip" for e in RECIPES["digits"].augment)
    assert teacher_stage(easy, "convnet3_bn").key != teacher_stage(easy, "resnet18").key


def test_an_ensemble_averages_logits(easy, teacher, store):
    other = get_teacher(store, easy, "convnet3_in")
    team = get._ensemble([teacher, other], easy, "convnet3_bn+convnet3_in")
    images = easy.test.images(range(8))
    assert torch.allclose(team.logits(images), (teacher.logits(images) + other.logits(images)) / 2)
    assert team.features(images).shape == (8, 256) and team.accuracy > 80
    assert team.key == teacher_key(easy, "convnet3_bn+convnet3_in")
    x = teacher.normalise(images)
    assert torch.allclose(team.logits_of(x, teacher.mean, teacher.std), team.logits(images), atol=1e-5)
    assert gates.check_teacher(team, easy)["status"] == "ok"


def test_another_normalisation_is_converted(teacher, easy):
    images = easy.test.images(range(4))
    mean, std = torch.full((1, 1, 1, 1), 0.4), torch.full((1, 1, 1, 1), 0.2)
    x = (images.float() / 255 - mean) / std
    assert torch.allclose(teacher.logits_of(x, mean, std), teacher.logits(images), atol=1e-4)


# -- given weights ----------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(teacher, easy, tmp_path):
    file = tmp_path / "given.safetensors"
    document = {"student": "convnet3_bn", "accuracy": str(teacher.accuracy)}
    save_file({k: v.contiguous() for k, v in teacher.model.state_dict().items()}, file, metadata=document)
    return file


def test_a_safetensors_file_names_its_architecture(saved, teacher, easy, store):
    given = get_teacher(store, easy, str(saved))
    images = easy.test.images(range(10))
    assert torch.equal(given.logits(images), teacher.logits(images)) and given.accuracy == teacher.accuracy
    assert given.key == teacher_key(easy, str(saved)) and gates.check_teacher(given, easy)["status"] == "ok"


def test_a_checkpoint_of_the_field_with_wrappers_and_prefixes(teacher, easy, store, tmp_path):
    file = tmp_path / "easy_conv3.pth"
    torch.save({"model": {f"module.{k}": v for k, v in teacher.model.state_dict().items()}, "epoch": 3}, file)
    given = get_teacher(store, easy, f"convnet3_bn@{file}")
    images = easy.test.images(range(10))
    assert torch.equal(given.logits(images), teacher.logits(images)) and given.accuracy is None
    with pytest.raises(UsageError, match="does not say its architecture"):
        get_teacher(store, easy, str(file))
    with pytest.raises(DataError, match="does not hold weights of convnet3_in"):
        get_teacher(store, easy, f"convnet3_in@{file}")


def test_rdeds_checkpoints_of_convnets(teacher, easy, store, tmp_path):
    """`synthesize/models.py` numbers convolutions and norms each for themselves."""
    names = {f"features.{4 * d + place}": f"layers.{kind}.{d}" for d in range(3)
             for place, kind in enumerate(("conv", "norm"))}  # fmt: skip
    state = {}
    for key, value in teacher.model.state_dict().items():
        layer, _, leaf = key.rpartition(".")
        state[f"{names.get(layer, layer)}.{leaf}"] = value
    assert "layers.norm.2.running_mean" in state and "classifier.weight" in state and len(state) == 23
    torch.save({"model": state}, tmp_path / "easy_conv3.pth")
    given = get_teacher(store, easy, f"convnet3_bn@{tmp_path / 'easy_conv3.pth'}")
    images = easy.test.images(range(10))
    assert torch.equal(given.logits(images), teacher.logits(images))


def test_the_json_beside_a_file_is_part_of_the_teachers_key(saved, teacher, easy, store):
    plain = teacher_key(easy, str(saved))
    beside = saved.with_suffix(".json")
    beside.write_text(json.dumps({"accuracy": 12.5}))
    assert teacher_key(easy, str(saved)) == plain and get_teacher(store, easy, str(saved)).accuracy == 12.5
    beside.write_text(json.dumps({"mean": [0.4], "std": [0.2]}))
    keyed = teacher_key(easy, str(saved))
    beside.write_text('{"std":[0.2], "mean":[0.4], "accuracy":99}')
    assert plain != keyed == teacher_key(easy, str(saved)) == get_teacher(store, easy, str(saved)).key
    for text in ("{", "[1]"):
        beside.write_text(text)
        with pytest.raises(DataError, match="JSON"):
            teacher_key(easy, str(saved))


@pytest.mark.parametrize(
    "said",
    [{"size": 10**9}, {"size": "x"}, {"size": 8.5}, {"accuracy": "nan"}, {"accuracy": 101}, {"mean": "[0.4"},
     {"mean": [None]}, {"mean": 0.4}, {"std": [0]}, {"std": [0.2, 0.2]}, {"mean": {"a": 1}}],
)  # fmt: skip
def test_nonsense_beside_weights_is_named(said, saved, easy, store):
    saved.with_suffix(".json").write_text(json.dumps(said))
    (key,) = said
    with pytest.raises(DataError, match=f"given.safetensors says {key}"):
        get_teacher(store, easy, str(saved))


def test_weights_that_are_fewer_numbers_than_they_say_are_refused(easy, store, tmp_path):
    for number, state in enumerate(({"a": torch.zeros(1).expand(10**9, 10)}, {1: torch.zeros(2)})):
        torch.save(state, tmp_path / f"{number}.pt")
        with pytest.raises(DataError, match="not a state dict"):
            get_teacher(store, easy, f"convnet3_bn@{tmp_path}/{number}.pt")


def test_timms_weights_are_keyed_by_their_full_name(easy):
    import timm

    plain = teacher_key(easy, "timm:resnet18")
    assert plain != digest_of(["pretrained", "timm:resnet18"])
    assert timm.models.get_pretrained_cfg("resnet18").hf_hub_id in external._weights_name("timm:resnet18")


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("writer", [torch.save, lambda x, f: f.write_bytes(pickle.dumps(x))])
def test_a_malicious_pickle_is_refused_and_does_nothing(store, easy, tmp_path, writer):
    proof = tmp_path / "it ran"
    file = tmp_path / "weights.pth"
    writer({"model": Malicious(str(proof))}, file)
    with pytest.raises(DataError, match="could run code"):
        get_teacher(store, easy, f"convnet3_bn@{file}")
    assert not proof.exists()
    torch.load(file, weights_only=False) if writer is torch.save else pickle.loads(file.read_bytes())
    assert proof.exists(), "the trap itself must work, or the test proves nothing"


def test_our_own_checkpoints_are_not_unpickled_either(tmp_path):
    file, proof = tmp_path / "student.pt", tmp_path / "it ran"
    replace_checked(file, lambda temporary: torch.save({"step": Malicious(str(proof))}, temporary))
    assert checkpoint.load(file) is None and not proof.exists()


def test_bad_files_say_what_is_wrong(store, easy, tmp_path):
    with pytest.raises(MissingError, match="no file of weights"):
        get_teacher(store, easy, "resnet18@nowhere.pt")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"xx")
    with pytest.raises(DataError, match="cannot be read as weights"):
        read_weights(broken)
    short = tmp_path / "short.pt"
    short.write_bytes(b"")
    with pytest.raises(DataError):
        read_weights(short)
    listed = tmp_path / "list.pt"
    torch.save([1, 2], listed)
    with pytest.raises(DataError, match="not a state dict"):
        read_weights(listed)


def test_a_head_for_other_classes_is_refused(store, easy, tmp_path):
    file = tmp_path / "seven.safetensors"
    save_file(build_student("convnet3_bn", 7, 1, 8, 0).state_dict(), file, metadata={"student": "convnet3_bn"})
    with pytest.raises(GateError, match="head for 7 classes, easy has 4"):
        get_teacher(store, easy, str(file))


def test_subsets_of_imagenet_keep_their_rows(store, tmp_path):
    from dataclasses import replace

    from easy import easy_dataset

    colour = replace(easy_dataset(3), backbone_classes=(5, 999, 0, 7))
    model = build_student("convnet3_bn", 1000, 3, 8, 0)
    file = tmp_path / "thousand.safetensors"
    save_file(model.state_dict(), file, metadata={"student": "convnet3_bn"})
    given = get_teacher(store, colour, str(file))
    images = colour.test.images(range(5))
    assert torch.allclose(given.logits(images), model.eval()(given.normalise(images))[:, [5, 999, 0, 7]], atol=1e-5)


def test_pretrained_names_are_checked_before_any_download(store, easy):
    with pytest.raises(UsageError, match="unknown teacher"):
        get_teacher(store, easy, "torchvision:resnet1")
    with pytest.raises(UsageError, match="takes colour images"):
        get_teacher(store, easy, "torchvision:resnet18")


@pytest.mark.parametrize(("side", "channels"), [(28, 1), (32, 3), (224, 3)])
def test_one_image_more_is_no_cliff(side, channels):
    """299 images got 40 steps of 32, 300 got 3,000 of 128: a hundred times the work for one image more."""
    counts = (100, 299, 300, 301, 500, 1000, 2000, 2999, 3000, 3001, 10**6)
    recipes = [recipe_of("own", n, side, channels) for n in counts]
    seen = [r.steps * r.batch for r in recipes]
    assert seen == sorted(seen) and seen[0] == seen[1] == 40 * 32 and seen[-3] == seen[-1]
    for low, high in ((1, 2), (2, 3), (7, 8)):
        assert seen[high] <= 1.2 * seen[low] and abs(recipes[high].ema - recipes[low].ema) < 0.01
