"""Sets released as tensors: DC's files, MTT's pairs, npz; soft labels, other normalisations and damage are refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from test_distilled_import import make_dataset

from benchmark.core.compute import Precision
from benchmark.core.errors import DataError, MissingError, UsageError
from benchmark.evaluation.trainer import _Run
from benchmark.sets.folder import array_digest
from benchmark.sets.given import describe_set, open_set
from benchmark.sets.released import read_released
from benchmark.sets.tensors import NORMALISATION, read_tensors, tensor_notes


def pixels(ipc=2, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3 * ipc, 3, 8, 8), dtype=np.uint8))


def normalised(images):
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in NORMALISATION["cifar10"])
    return (images / 255 - mean) / std


def cifar():
    dataset = make_dataset()
    dataset.name = "cifar10"
    return dataset


LABELS = torch.tensor([0, 0, 1, 1, 2, 2])


def test_the_files_of_dc(tmp_path):
    """main.py writes {'data': [[images, labels] of each experiment], 'accs_all_exps': …}."""
    file = tmp_path / "res_DC_CIFAR10_ConvNet_2ipc.pt"
    sets = [[normalised(pixels(seed=s)), LABELS] for s in (0, 1)]
    torch.save({"data": sets, "accs_all_exps": {"ConvNet": []}}, file)
    images, labels = read_tensors(file, cifar())
    assert torch.equal(images, pixels()) and torch.equal(labels, LABELS)
    assert torch.equal(read_tensors(file.with_name(file.name + "#1"), cifar())[0], pixels(seed=1))
    text = tensor_notes(file, cifar())
    assert "0.4914" in text and "DC's code" in text and "2 sets: this is number 0" in text and "rate" not in text
    assert describe_set(file) == {"ipc": 2} and open_set(file, cifar()).ipc == 2
    with pytest.raises(UsageError, match="2 set"):
        read_tensors(file.with_name(file.name + "#2"), cifar())
    with pytest.raises(DataError, match="2 images, 5 expected"):
        open_set(file, cifar(), 5)


def test_floats_stay_floats_also_outside_the_range_of_pixels(tmp_path):
    images = normalised(pixels())
    images[0, 0, 0, :4], images[1, 0, 0, 0] = 3.0, images[1, 0, 0, 0] + 0.002
    torch.save([images, LABELS], tmp_path / "s.pt")
    read = read_tensors(tmp_path / "s.pt", cifar())[0]
    assert read.dtype == torch.float32 and float(read[0, 0, 0, 0]) == pytest.approx(255 * (3.0 * 0.2023 + 0.4914))
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in NORMALISATION["cifar10"])
    assert torch.allclose((read / 255 - mean) / std, images, atol=1e-6)  # what the network sees, as the authors'
    assert "0.3 % of the values lie outside" in tensor_notes(tmp_path / "s.pt", cifar())
    found = open_set(tmp_path / "s.pt", cifar())
    torch.save([normalised(pixels()), LABELS], tmp_path / "whole.pt")
    whole = open_set(tmp_path / "whole.pt", cifar())
    assert whole.digest == array_digest(pixels(), LABELS) != found.digest and "floats" in found.note
    torch.save([images * 5, LABELS], tmp_path / "zca.pt")
    with pytest.raises(DataError, match="more than 0.5 outside 0..1") as error:
        read_tensors(tmp_path / "zca.pt", cifar())
    assert "ZCA" in error.value.hint


def test_the_pair_of_mtt_and_npz(tmp_path):
    torch.save(normalised(pixels()), tmp_path / "images_best.pt")
    with pytest.raises(MissingError, match="without labels") as error:
        read_tensors(tmp_path / "images_best.pt", cifar())
    assert "labels_best.pt" in error.value.hint
    torch.save(LABELS, tmp_path / "labels_best.pt")
    torch.save(torch.tensor(0.02), tmp_path / "lr_best.pt")
    assert torch.equal(read_tensors(tmp_path / "images_best.pt", cifar())[0], pixels())
    assert "learning rate is not used" in tensor_notes(tmp_path / "images_best.pt", cifar())
    channels_last, shuffled = pixels().permute(0, 2, 3, 1).numpy(), [5, 3, 1, 0, 2, 4]
    np.savez(tmp_path / "s.npz", images=channels_last[shuffled], labels=LABELS.numpy()[shuffled])
    images, labels = read_tensors(tmp_path / "s.npz", cifar())
    assert labels.tolist() == [0, 0, 1, 1, 2, 2] and torch.equal(images[0], pixels()[1])
    np.savez(tmp_path / "f.npz", x=pixels().numpy() / 255.0, y=np.eye(3)[LABELS])  # 0..1, one-hot
    assert torch.equal(read_tensors(tmp_path / "f.npz", cifar())[0], pixels())


def test_soft_labels_are_refused(tmp_path):
    torch.save({"images": pixels(), "labels": torch.softmax(torch.randn(6, 3), 1)}, tmp_path / "s.pt")
    with pytest.raises(DataError, match="soft"):
        read_tensors(tmp_path / "s.pt", cifar())
    for label in range(3):
        (tmp_path / "fkd" / str(label)).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "fkd" / str(label) / "0.png")
    assert describe_set(tmp_path / "fkd") == {"ipc": 1}
    (tmp_path / "fkd" / "epoch_0").mkdir()
    (tmp_path / "fkd" / "epoch_0" / "batch_0.tar").write_bytes(b"")
    with pytest.raises(DataError, match="batch_0.tar"):
        read_released(tmp_path / "fkd", cifar())


@pytest.mark.parametrize("name", ["s.pt", "s.npz"])
def test_half_a_file(tmp_path, name):
    file = tmp_path / name
    torch.save([pixels(), LABELS], file) if name == "s.pt" else np.savez(file, images=pixels(), labels=LABELS)
    file.write_bytes(file.read_bytes()[:900])
    with pytest.raises(DataError, match="cannot be read") as error:
        read_tensors(file, cifar())
    assert error.value.where == str(file)


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"weights": torch.zeros(3)}, "weights"),
        ([pixels()[:5], LABELS], "labels"),
        ([pixels()[:, :1], LABELS], "images"),
        ([pixels(), LABELS.clamp(max=1)], "0 to 4 images a class"),
        ([pixels(), LABELS + 1], "images a class"),
        ([pixels()[..., :4, :4], LABELS], "4 px"),
        ([torch.full((6, 3, 8, 8), float("nan")), LABELS], "NaN"),
    ],
)
def test_what_does_not_fit(tmp_path, document, text):
    torch.save(document, tmp_path / "s.pt")
    with pytest.raises(DataError, match=text):
        read_tensors(tmp_path / "s.pt", cifar())


def test_code_in_a_file_does_not_run(tmp_path):
    torch.save(Evil(tmp_path / "ran"), tmp_path / "s.pt")
    with pytest.raises(DataError, match="cannot be read"):
        read_tensors(tmp_path / "s.pt", cifar())
    assert not (tmp_path / "ran").exists()


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_transparency_is_laid_over_white(tmp_path):
    for label in range(3):
        (tmp_path / str(label)).mkdir()
        Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / str(label) / "0.png")
    assert int(read_released(tmp_path, make_dataset())[0].min()) == 255


def test_mtt_without_whitening(tmp_path):
    torch.save(normalised(pixels()), tmp_path / "images_zca_500.pt")
    torch.save(LABELS, tmp_path / "labels_500.pt")
    assert torch.equal(read_tensors(tmp_path / "images_zca_500.pt", cifar())[0], pixels())


def test_the_file_of_cim(tmp_path):
    """condense.py writes {'dataset', 'data', 'label'}."""
    torch.save({"dataset": "cifar10", "data": pixels() / 255, "label": LABELS}, tmp_path / "data.pt")
    assert torch.equal(read_tensors(tmp_path / "data.pt", cifar())[0], pixels())


def test_a_float_set_passes_the_gate_and_trains_unrounded(easy, teacher, few, tmp_path):
    from benchmark.evaluation import gates, train_student
    from benchmark.evaluation.protocols import load_protocol

    images = few[0].float() + 0.3
    images[::2] += 40 * (images[::2] > 128)  # beyond white
    torch.save({"data": [[(images / 255 - float(easy.mean[0])) / float(easy.std[0]), few[1]]]}, tmp_path / "s.pt")
    found = open_set(tmp_path / "s.pt", easy)
    assert torch.allclose(found.images, images, atol=1e-3) and float(found.images.max()) > 260
    assert gates.check_set(found.images, found.labels, teacher, easy)["recognised"] > 80
    for name, length in {"dc": "epochs", "rded-paper": "epochs", "hard": "steps"}.items():
        protocol, scores = load_protocol(name, {length: 2}), []
        for given in (found.images, found.images.clamp(0, 255).round().byte()):
            run = _Run(given, few[1], easy, protocol, "convnet3_bn", teacher=teacher, ipc=5, seed=0, device="cpu",
                       precision=Precision(), parts=1)  # fmt: skip
            scores.append(run.draw(0, 0)[0])
        assert scores[0].shape == scores[1].shape and float(scores[0].max()) > float(scores[1].max()) + 0.01
    trained = train_student(found.images, found.labels, dataset=easy, protocol=load_protocol("dc", {"epochs": 2}),
                            student="convnet3_in", teacher=teacher, ipc=5, seed=0)  # fmt: skip
    assert trained.steps > 0
