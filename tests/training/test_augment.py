"""Augmentations equal torchvision's with the same parameters, and draw parameters as torchvision does."""

import math
import random

import pytest
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as tv
from scipy.stats import chisquare, ks_2samp

from benchmark.core.compute import generator
from benchmark.training import augment, geometry
from benchmark.training.augment import IMAGENET_MEAN, IMAGENET_STD, Augmenter


def images(n=12, side=32, channels=3, seed=0):
    return torch.randint(0, 256, (n, channels, side, side), generator=generator(seed)).to(torch.uint8)


def boxes_in(n, side, seed=1):
    return augment.crop_boxes(n, side, side, (0.08, 1.0), (3 / 4, 4 / 3), generator(seed))


@pytest.mark.parametrize(("side", "out"), [(32, 32), (64, 32), (28, 28), (48, 20), (20, 48), (8, 8)])
def test_crops_of_tensors_equal_torchvisions_antialiased_ones(side, out):
    x = images(side=side).float() / 255
    boxes = boxes_in(len(x), side)
    flips = augment.random_flips(len(x), 0.5, generator(3))
    ours = augment.resized_crop(x, boxes, out, flips)
    for row, (top, left, h, w) in enumerate(boxes.tolist()):
        expected = tv.resized_crop(x[row], top, left, h, w, [out, out], antialias=True)
        expected = tv.hflip(expected) if flips[row] else expected
        assert torch.allclose(ours[row], expected, atol=1e-4, rtol=0), (side, out, row)


@pytest.mark.parametrize(("side", "out"), [(32, 32), (64, 32), (28, 28), (20, 48)])
def test_crops_of_pil_images_are_equal_to_the_last_level(side, out):
    x = images(side=side)
    boxes = boxes_in(len(x), side)
    ours = augment.resized_crop(x.float(), boxes, out, None, "uint8")
    for row, (top, left, h, w) in enumerate(boxes.tolist()):
        crop = tv.crop(tv.to_pil_image(x[row]), top, left, h, w)
        expected = tv.pil_to_tensor(tv.resize(tv.resize(crop, [h, out]), [out, out]))
        assert torch.equal(ours[row].to(torch.uint8), expected), (side, out, row)
        at_once = tv.pil_to_tensor(tv.resize(crop, [out, out]))
        if h <= out or w >= h:  # Pillow 13 shrinks tall crops vertically first, which moves some pixels by one level
            assert torch.equal(expected, at_once)
        assert (expected.int() - at_once.int()).abs().max() <= 1


@pytest.mark.parametrize(("side", "out"), [(32, 32), (28, 32), (9, 8), (20, 64)])
@pytest.mark.parametrize("flipped", [False, True])
def test_two_taps_are_the_fixed_point_rows_of_every_crop(side, out, flipped):
    """Where a crop is no larger than its output, two pixels and their weights say all that the whole row says."""
    pairs = [(s, n) for n in range(1, min(side, out) + 1) for s in range(side - n + 1)]
    start, length = torch.tensor(pairs).T
    flip = torch.full((len(pairs),), flipped)
    rows = (augment.interpolation(start, length, side, out, flip) * 2**22 + 0.5).floor()
    for place, weight in augment.two_taps(start, length, out, flip):
        rows.scatter_add_(2, place[:, :, None], -weight[:, :, None].double())
    assert not rows.any()


def test_without_antialiasing_only_crops_larger_than_the_output_differ():
    x = images(side=32).float() / 255
    small, large = torch.tensor([[3, 2, 20, 30]]), torch.tensor([[0, 0, 32, 32]])
    for boxes, out, equal in ((small, 32, True), (large, 20, False)):
        top, left, h, w = boxes[0].tolist()
        plain = tv.resized_crop(x[0], top, left, h, w, [out, out], antialias=False)
        ours = augment.resized_crop(x[:1], boxes, out)[0]
        assert torch.allclose(ours, plain, atol=1e-4) == equal


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.5, 1.0)])
def test_boxes_have_torchvisions_distribution(scale):
    n, side = 4000, 32
    ours = augment.crop_boxes(n, side, side, scale, (3 / 4, 4 / 3), generator(5))
    torch.manual_seed(0)
    blank = torch.zeros(3, side, side)
    theirs = torch.tensor([T.RandomResizedCrop.get_params(blank, scale, (3 / 4, 4 / 3)) for _ in range(n)])
    for column in range(4):
        assert ks_2samp(ours[:, column].numpy(), theirs[:, column].numpy()).pvalue > 1e-3, column
    area = lambda b: (b[:, 2] * b[:, 3]).numpy()  # noqa: E731
    assert ks_2samp(area(ours), area(theirs)).pvalue > 1e-3


def test_a_wrong_distribution_would_be_seen():
    n = 4000
    ours = augment.crop_boxes(n, 32, 32, (0.08, 1.0), (3 / 4, 4 / 3), generator(5))
    other = augment.crop_boxes(n, 32, 32, (0.2, 1.0), (3 / 4, 4 / 3), generator(6))
    assert ks_2samp(ours[:, 2].numpy(), other[:, 2].numpy()).pvalue < 1e-6


def test_the_whole_image_is_the_only_crop_of_full_scale_at_32_px():
    boxes = augment.crop_boxes(2000, 32, 32, (1.0, 1.0), (3 / 4, 4 / 3), generator(0))
    assert (boxes == torch.tensor([0, 0, 32, 32])).all()


def test_boxes_always_fit_and_fall_back_to_the_centre():
    boxes = augment.crop_boxes(500, 20, 60, (0.9, 1.0), (3 / 4, 4 / 3), generator(0))
    assert (boxes[:, 0] + boxes[:, 2] <= 20).all() and (boxes[:, 1] + boxes[:, 3] <= 60).all()
    assert (boxes == torch.tensor([0, (60 - 27) // 2, 20, 27])).all()  # no try fits: widest ratio, centred


def test_flips_are_fair_and_drawn_for_each_image():
    flips = augment.random_flips(4000, 0.5, generator(1))
    assert chisquare([int(flips.sum()), 4000 - int(flips.sum())]).pvalue > 1e-3


@pytest.mark.parametrize(("side", "factor"), [(32, 2), (33, 2), (30, 4)])
def test_patches_are_permuted_as_rded_does(side, factor):
    x = images(6, side).float()
    rows, columns = (augment.shuffled_positions(6, side, factor, generator(s)) for s in (1, 2))
    ours = augment.shuffle_patches(x, rows, columns)
    strip = side // factor
    edges = [i * strip for i in range(factor)] + [side]

    def strips(line):  # which strip each position came from, checked to be whole strips in some order
        found, at = [], 0
        while at < side:
            first = edges.index(int(line[at]))
            length = edges[first + 1] - edges[first]
            assert line[at : at + length].tolist() == list(range(edges[first], edges[first + 1]))
            found, at = [*found, first], at + length
        assert sorted(found) == list(range(factor))
        return found

    for i in range(6):
        parts = torch.cat([x[i][..., edges[s] : edges[s + 1]] for s in strips(columns[i])], dim=-1)
        parts = torch.cat([parts[:, edges[s] : edges[s + 1]] for s in strips(rows[i])], dim=-2)
        assert torch.equal(ours[i], parts)
    orders = augment.shuffled_positions(3000, 8, 2, generator(0))[:, 0]
    assert chisquare([int((orders == 0).sum()), int((orders != 0).sum())]).pvalue > 1e-3


def test_cutmix_pastes_a_box_and_reports_the_area_kept():
    x = images(8).float()
    mixed, partner, share = augment.mix(x, "cutmix", 1.0, generator(4))
    changed = (mixed != x).any(dim=1)
    box = (mixed == x[partner]).all(dim=1)
    assert (changed <= box).all()
    inside = (mixed == x[partner]).all(dim=1).all(dim=0)
    assert share == pytest.approx(1 - inside.double().mean().item(), abs=1e-9)


def test_cutmix_boxes_have_the_reference_distribution():
    n, side = 3000, 32
    random_source = generator(0)
    ours = []
    for _ in range(n):
        lam = augment.beta(1.0, random_source)
        top, bottom, left, right = augment.cutmix_box(side, side, lam, random_source)
        ours.append((bottom - top) * (right - left))
    picker = random.Random(0)
    theirs = []
    for _ in range(n):  # rand_bbox of CutMix's authors, RDED and SRe2L
        cut = int(side * math.sqrt(1 - picker.random()))
        sizes = []
        for _ in range(2):
            middle = picker.randrange(side)
            sizes.append(min(middle + cut // 2, side) - max(middle - cut // 2, 0))
        theirs.append(sizes[0] * sizes[1])
    assert ks_2samp(ours, theirs).pvalue > 1e-3


def test_mixup_and_beta():
    x = images(4).float()
    mixed, partner, lam = augment.mix(x, "mixup", 0.8, generator(2))
    assert torch.allclose(mixed, lam * x + (1 - lam) * x[partner])
    draws = [augment.beta(0.8, source) for source in [generator(0)] for _ in range(2000)]
    reference = torch.distributions.Beta(0.8, 0.8).sample((2000,)).tolist()
    assert ks_2samp(draws, reference).pvalue > 1e-3


def test_shifts_and_cutout_have_dsas_ranges():
    x = torch.ones(4000, 1, 8, 8)
    moved = geometry.crop_pad(x, pad=0.125, generator=generator(0))
    rows = moved[:, 0].amax(dim=2).sum(dim=1)  # rows left inside
    assert set(rows.unique().tolist()) == {7.0, 8.0}
    erased = 64 - geometry.cutout(x, size=0.5, generator=generator(0)).sum(dim=(1, 2, 3))
    assert int(erased.max()) == 16 and int(erased.min()) == 4  # a corner keeps a quarter of the square


def test_rotation_and_zoom_equal_grid_sample_by_hand():
    x = images(3, 16).float()
    turned = geometry._affine(x, geometry._rotation(3, 15.0, generator(0)))
    angle = torch.empty(3).uniform_(-15, 15, generator=generator(0))
    for i in range(3):  # torchvision turns the other way round and samples the same grid
        expected = tv.rotate(x[i], float(angle[i]), interpolation=tv.InterpolationMode.BILINEAR)
        middle = (slice(None), slice(4, 12), slice(4, 12))
        assert torch.allclose(turned[i][middle], expected[middle], atol=0.5)


@pytest.mark.parametrize("name", ["color", "crop", "cutout", "flip", "scale", "rotate"])
def test_every_dsa_operation_changes_images_one_by_one(name):
    x = torch.randn(16, 3, 16, 16, generator=generator(0))
    out = geometry.dsa(x, strategy=name, generator=generator(1))
    assert out.shape == x.shape and not torch.equal(out, x)
    again = geometry.dsa(x, strategy=name, generator=generator(1))
    assert torch.equal(out, again)


def test_diffaug_flips_colours_and_takes_one_more(monkeypatch):
    x, taken = torch.randn(4, 3, 16, 16, generator=generator(0)), []
    plain = geometry._named
    monkeypatch.setattr(geometry, "_named", lambda name, x, g: (taken.append(name), plain(name, x, g))[1])
    for seed in range(8):
        geometry.diffaug(x, strategy="color_crop_flip_scale_rotate", generator=generator(seed))
    assert (
        taken[0::3] == ["flip"] * 8 and taken[1::3] == ["color"] * 8 and set(taken[2::3]) == {"crop", "scale", "rotate"}
    )
    taken.clear()
    geometry.diffaug(x, strategy="cutout_color", generator=generator(0))
    assert taken == ["color", "cutout"]


def test_the_whole_recipe_equals_torchvisions_pipeline():
    x = images(6)
    recipe = [{"op": "random_resized_crop", "scale": [0.08, 1], "ratio": [3 / 4, 4 / 3], "rounding": "uint8"}]
    recipe.append({"op": "flip", "p": 0.5})
    pipeline = Augmenter(recipe, 32, IMAGENET_MEAN, IMAGENET_STD)
    ours = pipeline(x, generator(9))
    source = generator(9)
    boxes = augment.crop_boxes(6, 32, 32, (0.08, 1), (3 / 4, 4 / 3), source)
    flips = augment.random_flips(6, 0.5, source)
    finish = T.Compose([T.ToTensor(), T.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    for i, box in enumerate(boxes.tolist()):
        pil = tv.resized_crop(tv.to_pil_image(x[i]), *box, [32, 32])
        pil = tv.hflip(pil) if flips[i] else pil
        assert torch.allclose(ours[i], finish(pil), atol=1e-4)
