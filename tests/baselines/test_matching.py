"""DM, DC, DSA and IDC: their parts against plain formulas, frozen figures of runs beside the authors' code.

The authors' functions (``DiffAugment``, ``match_loss``, ``epoch``, ``ConvNet`` of VICO-UoE/DatasetCondensation;
``matchloss``, ``DiffAug``, ``Synthesizer``, ``train_epoch`` of snu-mllab/Efficient-Dataset-Condensation) were run for
five steps beside this code with the same images, weights and random numbers. In double precision losses, their
gradients, pixels and IDC's trained network agree within 1e-14, for every augmentation; in single precision the first
gradients within 3e-6 (zoom and rotation: 5e-4, for their positions are rounded to 1e-5 of a grey deviation).
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from baselines.matching import gradients
from baselines.matching.gradients import class_gradients, match, weighted_layers
from baselines.matching.images import Pixels
from baselines.matching.siamese import OPERATIONS, augment, dsa_program, idc_program
from benchmark.api import build_student
from benchmark.testing.bench import Bench
from benchmark.training.formation import decode, training_images

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("matching"))


def theirs(x, name, u):
    """An operation on images ``[n, C, H, W]`` by PyTorch's own resampling, with one set of numbers."""
    n, _, height, width = x.shape
    if name == "color":
        x = x + (u[0] - 0.5)
        x = (x - x.mean(1, keepdim=True)) * 2 * u[1] + x.mean(1, keepdim=True)
        mean = x.mean((1, 2, 3), keepdim=True)
        return (x - mean) * (u[2] + 0.5) + mean
    if name == "flip":
        return x.flip(3) if u[0] < 0.5 else x
    if name in ("crop", "cutout"):
        reach, length = int(height / 8 + 0.5), int(height / 2 + 0.5)
        if name == "crop":
            down, right = (int(v * (2 * reach + 1)) - reach for v in u[:2])
            wide = F.pad(x, (reach,) * 4)
            return wide[:, :, reach + down : reach + down + height, reach + right : reach + right + width]
        mask = torch.ones(height, width)
        rows, columns = (
            (torch.arange(length) + int(v * (height + 1 - length % 2)) - length // 2).clamp(0, height - 1)
            for v in u[:2]
        )
        mask[rows[:, None], columns] = 0
        return x * mask
    if name == "scale":
        sx, sy = (float(v) * (1.2 - 1 / 1.2) + 1 / 1.2 for v in u[:2])
        theta = torch.tensor([[sx, 0, 0], [0, sy, 0]])
    else:
        angle = (u[0] - 0.5) * 2 * 15 / 180 * torch.pi
        theta = torch.tensor([[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0]])
    grid = F.affine_grid(theta.expand(n, 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("side", [8, 9])
def test_operations_are_those_of_torch(name, side):
    draw = torch.Generator().manual_seed(side)
    x, numbers = torch.randn(4, 2, 3, side, side, generator=draw), torch.rand(4, 1, 4, generator=draw)
    found = augment(x, dsa_program(name), numbers)
    for row in range(4):
        torch.testing.assert_close(found[row], theirs(x[row], name, numbers[row, 0, 1:]), rtol=1e-4, atol=1e-5)


def test_programs_choose_a_row_at_a_time():
    x = torch.randn(3, 2, 1, 8, 8)
    assert idc_program("color_crop_cutout_flip") == [("flip",), ("color",), ("crop",), ("cutout",)]
    assert augment(x, dsa_program(""), torch.zeros(3, 0, 4)) is x
    numbers = torch.full((3, 1, 4), 0.3)
    numbers[:, 0, 0] = torch.tensor([0.0, 0.9, 0.4])  # color, flip, crop
    mixed, program = augment(x, dsa_program("color_crop_flip"), numbers), dsa_program("color_crop_flip")
    for row, name in enumerate(("color", "flip", "crop")):
        assert torch.equal(mixed[row], augment(x[row : row + 1], dsa_program(name), numbers[row : row + 1])[0])
    alike = augment(x, program, numbers, same_choice=True)
    assert torch.equal(alike[1], augment(x[1:2], dsa_program("color"), numbers[1:2])[0])
    with pytest.raises(ValueError, match="no operation 'shear'; there are color"):
        augment(x, dsa_program("shear"), numbers)


def strided():
    """A network with what ConvNets have not: strides, 1x1 convolutions, no bias."""
    torch.manual_seed(0)
    first = [nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False), nn.GroupNorm(4, 4), nn.ReLU()]
    return nn.Sequential(*first, nn.Conv2d(4, 6, 1), nn.Tanh(), nn.Flatten(), nn.Linear(96, 3))


@pytest.mark.parametrize(
    "build", [strided, lambda: build_student("convnet3_in", 3, 1, 8, 0)], ids=["strided", "convnet"]
)
def test_gradients_of_all_classes_at_once_are_those_of_each_alone(monkeypatch, build):
    net = build().double()
    layers = weighted_layers(net, classifier=True)
    images = torch.randn(3, 2, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    real = [torch.randn(3, 1, 8, 8).double() for _ in range(3)]

    def both():
        return class_gradients(net, layers, images, range(3)), match(net, layers, real, images, range(3), "cosine")

    together = both()
    monkeypatch.setattr(gradients, "FEW", 0)
    alone = both()
    for found, wanted in zip([*together[0], *together[1]], [*alone[0], *alone[1]], strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    (wanted,) = torch.autograd.grad(F.cross_entropy(net(images[2]), torch.tensor([2, 2])), [layers[1].weight])
    torch.testing.assert_close(together[0][1][2], wanted)
    assert len(weighted_layers(net, classifier=False)) == len(layers) - 1


def test_distances_by_hand():
    real, other = torch.tensor([[[3.0, 4.0], [1.0, 0.0]]]), torch.tensor([[[4.0, 3.0], [0.0, 2.0]]])
    assert float(gradients.cosine(real, other)) == pytest.approx(1 - 24 / 25 + 1, abs=1e-6)
    assert float(gradients.squares(real, other)) == 1 + 1 + 1 + 4
    assert float(gradients.absolute(real, other)) == 1 + 1 + 1 + 2


@pytest.mark.parametrize("side, factor", [(8, 2), (9, 2), (8, 3)])
def test_decoding_cuts_and_enlarges(side, factor):
    images = torch.rand(2, 3, side, side)
    small = -(-side // factor)
    space = small * factor - side
    padded = F.pad(images, (0, space, 0, space), value=0.5)
    tiles = [padded[:, :, i * small : (i + 1) * small, j * small : (j + 1) * small]
             for i in range(factor) for j in range(factor)]  # fmt: skip
    wanted = F.interpolate(torch.cat(tiles), (side, side), mode="bilinear")
    torch.testing.assert_close(decode(images, factor), wanted)
    torch.testing.assert_close(decode(images[None], factor)[0], wanted)
    assert decode(images, 1) is images


def test_students_of_idc_train_on_tiles(bench, tmp_path):
    from benchmark.sets.folder import read_set, write_set

    method, task, units = bench.task("idc", 2)
    assert method.tiles(task.dataset) == 2 and bench.task("dm", 2)[0].tiles(task.dataset) == 1
    images = method.distill(task, units[0])
    cells = zip(units[0].cells, images.permute(0, 2, 3, 1).numpy(), strict=True)
    write_set(tmp_path, task.dataset, 2, ((c, i, x) for (c, i), x in cells), {"method": {"name": "idc"}, "tiles": 2})
    found = read_set(tmp_path, task.dataset)
    x, labels = found.training()
    assert len(x) == len(labels) == 4 * len(images) and labels.bincount().tolist() == [8] * 4
    wanted = F.interpolate(images[:1, :, :4, 4:].float(), (8, 8), mode="bilinear")  # the second tile of the first image
    assert (x[len(images)].float() - wanted[0]).abs().max() <= 0.5 and int(labels[len(images)]) == 0
    assert training_images(images, labels, 1)[0] is images


def test_coasting_is_steps_without_a_gradient():
    start, slope = torch.rand(3, 2, 1, 4, 4), torch.rand(3, 2, 1, 4, 4)
    fast, slow = Pixels(start.clone(), 0.3, 0.5), Pixels(start.clone(), 0.3, 0.5)
    fast.step(slope)
    fast.coast(torch.tensor([0, 1, 3]))
    for c, steps in enumerate((0, 1, 3)):
        values = torch.nn.Parameter(slow.values[c].clone())
        optimizer = torch.optim.SGD([values], 0.3, momentum=0.5)
        for index in range(steps + 1):
            values.grad = slope[c] if index == 0 else torch.zeros_like(values)
            optimizer.step()
        torch.testing.assert_close(fast.values[c], values.detach())
        torch.testing.assert_close(fast.velocity[c], optimizer.state[values]["momentum_buffer"])


# loss of a class at steps 1 and 4, mean and deviation of the pixels afterwards; IPC 2 on the tiny bench
FIGURES = {
    "dc": (374.002, 375.231, -0.0512627, 1.9064),
    "dm": (0.0364935, 0.0440144, -0.016335, 1.01574),
    "dsa": (207.109, 360.056, -0.0647896, 3.00647),
    "idc": (1531.4, 1507.87, 0.301752, 0.383092),
}


@pytest.mark.parametrize("name", FIGURES)
def test_steps_are_those_that_ran_beside_the_authors_code(bench, name):
    method, task, _ = bench.task(name, 2)
    state = method.optimisation(task, range(4))
    losses = [float(state.step(index)) for index in range(4)]
    found = [losses[0], losses[3], float(state.pixels.values.mean()), float(state.pixels.values.std())]
    assert found == pytest.approx(FIGURES[name], rel=1e-3)


def test_settings_follow_ipc_resolution_and_channels(bench):
    from types import SimpleNamespace

    def settings(name, ipc, size, channels, **given):
        method, task, _ = bench.task(name, 1, **given)
        known = {"image_size": size, "channels": channels, "name": "any"}
        return method.settings(SimpleNamespace(ipc=ipc, dataset=SimpleNamespace(**known)))

    assert [settings("dm", ipc, 32, 3)["lr"] for ipc in (1, 50, 100)] == [1, 1, 10]
    free = {"outer": 0, "inner": 0}
    loops = [settings("dc", ipc, 32, 3, **free) for ipc in (1, 2, 10, 50)]
    assert [(s["outer"], s["inner"]) for s in loops] == [(1, 1), (1, 1), (10, 50), (50, 10)]
    grey, colour, large = (settings("idc", 10, *shape, images_net=-1) for shape in ((28, 1), (32, 3), (224, 3)))
    assert grey["metric"] == "l1" and grey["lr"] == pytest.approx(1e-4 * (28 / 32) ** 2) and grey["images_net"] == 500
    assert (colour["metric"], colour["lr"], colour["images_net"], colour["factor"]) == ("mse", 5e-3, 2000, 2)
    assert (large["metric"], large["lr"], large["factor"], large["network"]) == ("l1", 3e-3, 3, "resnetap10")
