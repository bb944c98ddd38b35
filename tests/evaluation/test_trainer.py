"""Training depends on (set, protocol, student, seed) alone, however often it is killed, and follows its protocol."""

import math

import pytest
import torch
from torch import nn

from benchmark.core.compute import Precision
from benchmark.core.errors import JobError, UsageError
from benchmark.evaluation import train_student, trainer
from benchmark.evaluation.optimisers import loss_of, make_optimizer, rate_factor, set_bn_updates
from benchmark.evaluation.protocols import load_protocol
from benchmark.evaluation.trainer import evaluated_epochs, pieces
from benchmark.students import build_student
from benchmark.testing.pretend_cuda import DEVICE, pretended
from benchmark.training import checkpoint
from benchmark.training.memory import is_out_of_memory, recompute, resident

SHORT = {"steps": 24, "batch": 8}


def run(few, easy, protocol="hard", sets=SHORT, **more):
    options = {"student": "convnet3_bn", "teacher": None, "ipc": 5, "seed": 0, **more}
    images, labels = few
    return train_student(images, labels, dataset=easy, protocol=load_protocol(protocol, sets), **options)


def weights(result):
    return [v.clone() for v in result.model.state_dict().values()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(weights(a), weights(b)))


def test_the_same_seed_gives_the_same_student_and_another_seed_another(few, easy):
    torch.manual_seed(1)
    first = run(few, easy)
    torch.manual_seed(2)
    assert same(first, run(few, easy)) and first.scores == run(few, easy).scores
    assert not same(first, run(few, easy, seed=1))


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("protocol", "sets"),
    [
        ("hard", {**SHORT, "ema": 0.9}),
        ("soft", SHORT),
        ("fkd", {"epochs": 12, "batch": 8}),
        ("dc", {"epochs": 8, "milestones": [3], "batch": 8}),
    ],
)
def test_a_killed_run_ends_as_an_undisturbed_one(few, easy, teacher, tmp_path, monkeypatch, protocol, sets):
    monkeypatch.setattr(trainer, "checkpoint_interval", lambda steps: 7)
    whole = run(few, easy, protocol, sets, teacher=teacher)
    begun = []

    def log(steps):
        begun.append(steps)
        if len(begun) in (2, 4):
            raise Killed

    for _ in range(2):
        with pytest.raises(Killed):
            run(few, easy, protocol, sets, teacher=teacher, workdir=tmp_path, on_interval=log)
    resumed = run(few, easy, protocol, sets, teacher=teacher, workdir=tmp_path, on_interval=log)
    assert same(whole, resumed) and whole.scores == resumed.scores and whole.curve == resumed.curve
    assert sum(begun) <= whole.steps + 2 * 7


def test_dropout_is_resumed_too(few, easy, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "checkpoint_interval", lambda steps: 3)
    sets = {"steps": 6, "batch": 8}
    whole = run(few, easy, sets=sets, student="mobilenetv2")

    def kill(steps, seen=[]):  # noqa: B006
        seen.append(steps)
        if len(seen) == 2:
            raise Killed

    with pytest.raises(Killed):
        run(few, easy, sets=sets, student="mobilenetv2", workdir=tmp_path, on_interval=kill)
    torch.manual_seed(77)
    assert same(whole, run(few, easy, sets=sets, student="mobilenetv2", workdir=tmp_path))


def test_a_damaged_checkpoint_is_begun_again(few, easy, tmp_path, capsys):
    (tmp_path / "student-0123456789abcdef.pt").write_bytes(b"not a checkpoint")
    assert same(run(few, easy, workdir=tmp_path), run(few, easy))
    assert "damaged checkpoint" in capsys.readouterr().err
    assert checkpoint.load(tmp_path / "nothing.pt") is None


def test_hard_labels_learn_the_easy_dataset(few, easy):
    result = run(few, easy, sets={"steps": 60, "batch": 20})
    assert result.scores["top1_last"] > 80
    assert result.scores["top5_last"] == 100 and result.resolved["batch"] == 20 and result.label_bytes == 0
    assert result.predict(few[0]).shape == (20, 4)


def test_soft_labels_need_a_teacher(few, easy):
    with pytest.raises(JobError, match="needs a teacher"):
        run(few, easy, "soft")


def test_stored_labels_are_made_once_and_counted(few, easy, teacher, store, monkeypatch):
    sets = {"epochs": 11, "batch": 8}
    first = run(few, easy, "fkd", sets, teacher=teacher, store=store, set_key="s")
    size = first.label_bytes
    assert 2 * 4 * 20 * 11 <= size < 2 * 4 * 20 * 11 + 1000  # fp16 x classes x images x epochs, and headers
    monkeypatch.setattr(teacher, "logits_of", None)  # not needed any more
    again = run(few, easy, "fkd", sets, teacher=teacher, store=store, set_key="s")
    other = run(few, easy, "fkd", sets, teacher=teacher, store=store, set_key="s", seed=1)
    assert same(first, again) and not same(first, other) and other.label_bytes == size


def test_stored_labels_in_half_precision_are_those_of_the_images_that_students_see(few, easy, teacher, monkeypatch):
    labelled = []
    logits_of = teacher.logits_of
    monkeypatch.setattr(teacher, "logits_of", lambda x, *norm: labelled.append(x) or logits_of(x, *norm))
    crop = {"op": "random_resized_crop", "scale": [0.5, 1.0], "rounding": "float"}
    sets = {"epochs": 2, "batch": 10, "mix": "none", "augment": [crop]}
    for name in ("fp32", "bf16"):
        run(few, easy, "fkd", sets, teacher=teacher, precision=Precision.named(name))
    assert len(labelled) == 8 and all(map(torch.equal, labelled[:4], labelled[4:]))


def test_a_loss_that_is_not_finite_is_an_error(few, easy):
    with pytest.raises(JobError, match="not finite|loss is"):
        run(
            few, easy, sets={"steps": 100, "batch": 8, "lr": 1000, "weight_decay": 1000}
        )  # weights grow 1e6 times a step


# -- out of memory ----------------------------------------------------------------------------------------------------


class Small:
    """Pretends that memory holds ``limit`` images of one forward pass with gradients."""

    def __init__(self, limit):
        self.limit, self.largest = limit, 0

    def watch(self, model):
        def check(module, args):
            if torch.is_grad_enabled() and len(args[0]) > self.limit:
                raise torch.OutOfMemoryError("CUDA out of memory (pretended)")
            self.largest = max(self.largest, len(args[0]) if torch.is_grad_enabled() else 0)

        model.register_forward_pre_hook(check)
        return model


@pytest.mark.parametrize("protocol", ["hard", "soft"])
def test_smaller_micro_batches_after_out_of_memory_give_equal_results(few, easy, teacher, monkeypatch, protocol):
    options = {"protocol": protocol, "student": "convnet3_in", "teacher": teacher}
    options["sets"] = {"steps": 5, "batch": 16, "optimizer": "sgd", "lr": 0.05}  # Adam divides by noise
    whole = run(few, easy, **options)
    memory = Small(6)
    monkeypatch.setattr(trainer, "build_student", lambda *a: memory.watch(build_student(*a)))
    cut = run(few, easy, **options)
    assert cut.resolved["micro_batch"] == 4 and memory.largest == 4 and "out of memory" in cut.flags[0]
    assert whole.flags == []
    for a, b in zip(weights(whole), weights(cut)):
        assert torch.allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("student", ["convnet3_bn", "resnet18"])
def test_with_batchnorm_activations_are_computed_twice_instead(few, easy, monkeypatch, student):
    options = {"sets": {"steps": 4, "batch": 16, "optimizer": "sgd", "lr": 0.05}, "student": student}
    whole = run(few, easy, **options)
    failed = []

    def once(*args):
        model = build_student(*args)
        if not failed:
            failed.append(True)
            Small(0).watch(model)
        return model

    monkeypatch.setattr(trainer, "build_student", once)
    again = run(few, easy, **options)
    assert "computed twice" in again.flags[0]
    for a, b in zip(weights(whole), weights(again)):
        assert torch.allclose(a, b, atol=1e-5)


def test_what_libraries_say_when_memory_is_out():
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert is_out_of_memory(torch.OutOfMemoryError("")) and not is_out_of_memory(RuntimeError("a shape"))


def test_memory_that_earlier_jobs_left_to_the_allocator_counts_as_free(monkeypatch):
    with pretended():
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 1000))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 900)
        assert resident(torch.zeros(400, dtype=torch.uint8), str(DEVICE)).is_cuda


def test_computing_activations_twice_saves_them():
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)]
    model = nn.Sequential(*layers, nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        x = torch.randn(8, 1, 6, 6)
        model(x)
        plain = sum(kept)
        kept.clear()
        recompute(model)(x)
    assert sum(kept) < plain / 2


def test_too_small_a_memory_says_so(few, easy, monkeypatch):
    monkeypatch.setattr(trainer, "build_student", lambda *a: Small(0).watch(build_student(*a)))
    for student in ("convnet3_in", "convnet3_bn"):
        with pytest.raises(JobError, match="smallest micro-batch"):
            run(few, easy, student=student)


def test_pieces_weigh_to_the_uncut_mean():
    for n, parts in ((16, 1), (16, 4), (15, 4), (3, 8)):
        cut = list(pieces(n, 16, 1, parts))
        assert [i for s, _ in cut for i in range(n)[s]] == list(range(n))
        assert sum(w for _, w in cut) == pytest.approx(1)
    # SRe2L's accumulation: every part weighs 1/2, a short last batch has only the parts that it fills
    assert [(p.stop, w) for p, w in pieces(100, 1024, 2, 1)] == [(100, 0.5)]  # as SRe2L: one part, half the weight
    assert [w for _, w in pieces(16, 16, 2, 1)] == [0.5, 0.5] and [w for _, w in pieces(8, 16, 2, 1)] == [0.5]


# -- what protocols say -----------------------------------------------------------------------------------------------


def test_one_pass_with_momentum_019_equals_two_passes():
    model, twice = (build_student("convnet3_bn", 4, 1, 8, 0) for _ in range(2))
    set_bn_updates(model, 2)
    for step in range(5):
        x = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(step))
        model(x)
        twice(x), twice(x)
    for key, value in twice.state_dict().items():
        if "running" in key:
            assert torch.allclose(model.state_dict()[key], value, atol=1e-6)
            assert not torch.allclose(value, torch.zeros_like(value))


def test_twenty_steps_of_rded_paper_equal_the_published_loop(few, easy, teacher, monkeypatch):
    """Same weights and batches; beside it RDED's loop as its paper and quirks say, written down plainly: two train-mode
    passes a step, Adam on two groups, half a cosine by epoch. Another order of rounding (a fused Adam, a channels-last
    convolution, even the same batches reversed) misses it by far: Adam's first steps divide small gradients by their
    own size, noise included."""
    import torch.nn.functional as F

    monkeypatch.setattr(trainer, "fast_layout", lambda model: model)
    images, labels = few
    protocol = load_protocol("rded-paper").for_dataset(easy, "convnet3_bn")
    ours = trainer._Run(
        images,
        labels,
        easy,
        protocol,
        "convnet3_bn",
        teacher=teacher,
        ipc=5,
        seed=0,
        device="cpu",
        precision=Precision(),
        parts=1,
    )
    plain = build_student("convnet3_bn", 4, 1, 8, 0).train()
    matrices, others = ([p for p in plain.parameters() if (p.ndim > 1) == wide] for wide in (True, False))
    groups = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01)
    rates = torch.optim.lr_scheduler.LambdaLR(adam, lambda e: 0.5 * (1 + math.cos(math.pi * e / 300 / 2)))
    ours.model.train()
    assert ours.each == 2
    for epoch in range(10):
        for place in range(2):
            x = ours.draw(epoch, place)[0]
            plain(x)
            aim = F.softmax(teacher.logits_of(x, ours.augment.mean, ours.augment.std) / 20, dim=1)
            loss = nn.KLDivLoss(reduction="batchmean")(F.log_softmax(plain(x) / 20, dim=1), aim)
            adam.zero_grad()
            loss.backward()
            adam.step()
            ours._step(epoch, place, 2 * epoch + place)
        rates.step()
    theirs, mine = plain.state_dict(), ours.model.state_dict()
    worst = max(float((mine[k] - v).abs().max()) for k, v in theirs.items() if "num_batches" not in k)
    assert worst <= 1e-5


def test_schedules_follow_their_formulas():
    rded = load_protocol("rded-paper")
    for epoch in (0, 10, 150, 299):
        assert rate_factor(rded, epoch, 300, 7, 9000) == 0.5 * (1 + math.cos(math.pi * epoch / 300 / 2))
    assert rate_factor(rded, 299, 300, 0, 1) > 0.49
    fkd = load_protocol("fkd")
    assert rate_factor(fkd, 150, 300, 0, 1) == pytest.approx(0.5)
    dc = load_protocol("dc")
    assert [rate_factor(dc, e, 301, 0, 1) for e in (0, 151, 152, 300)] == pytest.approx([1, 1, 0.1, 0.1])
    hard = load_protocol("hard")
    factors = [rate_factor(hard, 0, 1, s, 200) for s in range(200)]
    assert factors[0] < 0.2 and max(factors) == 1.0 and factors[-1] < 1e-3


def test_evaluated_epochs_are_the_published_ones():
    rded, d3hr = load_protocol("rded-paper"), load_protocol("d3hr-paper")
    assert evaluated_epochs(rded, 300) == [249, 259, 269, 279, 289, 299]
    assert evaluated_epochs(d3hr, 300) == list(range(291, 300))
    assert evaluated_epochs(load_protocol("fkd"), 31) == [0, 10, 20, 30]
    assert evaluated_epochs(load_protocol("dc"), 301) == [300]


def test_a_drop_makes_a_new_optimizer_where_the_protocol_says(few, easy, monkeypatch):
    made = []
    monkeypatch.setattr(trainer, "make_optimizer", lambda *a: made.append(a[2]) or make_optimizer(*a))
    run(few, easy, "dc", {"epochs": 4, "milestones": [2]})
    assert made == pytest.approx([0.01, 0.001])


def test_norms_and_biases_do_not_decay_where_the_protocol_says():
    model = build_student("convnet3_bn", 4, 1, 8, 0)
    groups = make_optimizer(model, load_protocol("rded-paper"), 1e-3).param_groups
    assert [g["weight_decay"] for g in groups] == [0.01, 0.0]
    assert all(p.ndim > 1 for p in groups[0]["params"]) and all(p.ndim == 1 for p in groups[1]["params"])
    assert len(make_optimizer(model, load_protocol("dc"), 1e-2).param_groups) == 1


def test_losses_follow_their_formulas():
    logits, soft = torch.randn(6, 4), torch.randn(6, 4)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    rded = load_protocol("rded-paper")
    target = (soft / 20).softmax(1)
    expected = (target * (target.log() - (logits / 20).log_softmax(1))).sum(1).mean()
    assert torch.allclose(loss_of(rded, logits, labels, soft, None, 1.0), expected, atol=1e-7)
    clean = load_protocol("soft", {"temperature": 20.0})
    assert torch.allclose(loss_of(clean, logits, labels, soft, None, 1.0), 400 * expected, atol=1e-4)
    hard, other = load_protocol("hard"), labels.flip(0)
    chosen = logits.log_softmax(1)
    by_hand = -(0.3 * chosen[range(6), labels] + 0.7 * chosen[range(6), other]).mean()
    assert torch.allclose(loss_of(hard, logits, labels, None, other, 0.3), by_hand, atol=1e-6)


def test_precision_is_followed(few, easy):
    result = run(few, easy, precision=Precision.named("bf16"))
    assert not same(result, run(few, easy)) and result.scores["top1_last"] > 20


def test_compile_is_part_of_a_precision(few, easy, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or model)
    assert same(run(few, easy, precision=Precision.named("fp32+compile")), run(few, easy)) and len(compiled) == 1
    with pytest.raises(UsageError, match="unknown precision 'bf16[+]fast'"):
        Precision.named("bf16+fast")
