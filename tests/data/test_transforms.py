from functools import partial

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from zoo.data.augmentation import BatchAugmentation
from zoo.data.transforms import CropEach, FlipAlternately, FlipEach, PCAColor, mean_and_std, move, pixel_covariance
from zoo.errors import UserError


def images(count=64, channels=3, height=9, width=11, dtype=torch.uint8):
    generator = torch.Generator().manual_seed(1)
    bytes_ = torch.randint(0, 256, (count, channels, height, width), generator=generator, dtype=torch.uint8)
    return bytes_ if dtype == torch.uint8 else bytes_.to(dtype) / 255


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_each_crop_is_torchvisions(mode, dtype):
    batch = images(dtype=dtype)
    crop = CropEach([6, 7], padding=2, padding_mode=mode)
    torch.manual_seed(0)
    params = crop.make_params([batch])
    torch.manual_seed(0)
    result = crop(batch)
    for image, cropped, top, left in zip(batch, result, params["top"].tolist(), params["left"].tolist(), strict=True):
        padded = functional.pad(image, [2, 2, 2, 2], padding_mode=mode)
        assert torch.equal(functional.crop(padded, top, left, 6, 7), cropped)
    assert result.dtype == dtype


def test_crops_reach_every_place_equally_often():
    params = CropEach(8, padding=1).make_params([torch.empty(30_000, 1, 9, 11)])
    places = torch.bincount(params["top"] * 6 + params["left"])
    assert len(places) == 4 * 6
    assert (places - 30_000 / 24).abs().max() < 6 * (30_000 / 24) ** 0.5


def test_crop_of_one_image_and_of_too_small_ones():
    assert CropEach(5)(images()[0]).shape == (3, 5, 5)
    with pytest.raises(UserError, match="9x11 with padding 1 are smaller than the crop of 12x12"):
        CropEach(12, padding=1)(images())
    with pytest.raises(UserError, match="make no crop"):
        CropEach([3])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_each_reflection_is_torchvisions(dtype):
    batch = images(dtype=dtype)
    flip = FlipEach(0.3)
    torch.manual_seed(0)
    which = flip.make_params([batch])["flip"]
    torch.manual_seed(0)
    result = flip(batch)
    assert 0 < which.sum() < len(batch)
    for image, flipped, reflected in zip(batch, result, which.tolist(), strict=True):
        assert torch.equal(flipped, functional.horizontal_flip(image) if reflected else image)
    assert torch.equal(FlipEach(0.0)(batch), batch)
    assert torch.equal(FlipEach(1.0)(batch), batch.flip(-1))
    rate = flip.make_params([torch.empty(20_000, 1, 1, 1)])["flip"].float().mean()
    assert abs(rate - 0.3) < 0.02
    with pytest.raises(UserError, match="probability"):
        FlipEach(1.5)


def test_moves_together_are_moves_one_by_one():
    batch = images()
    steps = [CropEach([7, 9]), FlipEach(), CropEach([6, 6], padding=1), FlipEach(0.2), CropEach(4)]
    torch.manual_seed(0)
    expected = batch
    for step in steps:
        expected = step(expected)
    torch.manual_seed(0)
    assert torch.equal(move(batch, steps), expected)
    assert torch.equal(move(batch, []), batch)


def test_labels_stay_as_they_are():
    batch, labels = images(dtype=torch.float32), torch.arange(64)
    colour = PCAColor()
    colour.fit(batch)
    for transform in (CropEach(5), FlipEach(1.0), colour):
        changed, same = transform(batch, labels)
        assert same is labels
        assert not torch.equal(changed[..., :5, :5], batch[..., :5, :5])


def test_covariance_is_numpys():
    import numpy as np

    batch = images(height=20, width=20)
    pixels = batch.permute(1, 0, 2, 3).reshape(3, -1).double() / 255
    expected = torch.from_numpy(np.cov(pixels.numpy(), bias=True))
    assert torch.allclose(pixel_covariance(batch, chunk=7), expected, atol=1e-12)
    assert torch.allclose(pixel_covariance(batch.double() / 255, chunk=64), expected, atol=1e-12)
    mean, std = mean_and_std(batch)
    assert mean == [round(v, 4) for v in pixels.mean(1).tolist()]
    assert std == [round(v, 4) for v in pixels.std(1, correction=0).tolist()]
    with torch.device("meta"):  # where the images lie, not the default device, is where it is computed
        assert mean_and_std(batch) == (mean, std)


def test_colour_shift_is_the_papers_formula():
    generator = torch.Generator().manual_seed(2)
    mixing = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    batch = 0.5 + 0.05 * torch.einsum("ij,njhw->nihw", mixing, torch.randn(32, 3, 8, 8, generator=generator).double())
    colour = PCAColor(std=0.1)
    colour.fit(batch)
    values, vectors = torch.linalg.eigh(pixel_covariance(batch))
    torch.manual_seed(3)
    alpha = colour.make_params([batch])["alpha"]
    torch.manual_seed(3)
    shifted = colour(batch)
    for image, result, a in zip(batch, shifted, alpha, strict=True):
        signs = colour.axes.double().T @ vectors / values  # each component's sign is free
        shift = vectors @ ((signs.diagonal().sign() * a) * values)
        assert torch.allclose(result, (image + shift[:, None, None]).clamp(0, 1), atol=1e-6)
    assert alpha.shape == (32, 3)
    assert abs(colour.make_params([torch.empty(9000, 3, 1, 1)])["alpha"].std() - 0.1) < 0.005


def test_colour_of_grey_images_and_given_components():
    batch = images(channels=1, dtype=torch.float32) * 0.5 + 0.25
    colour = PCAColor()
    assert colour.needs_fit
    with pytest.raises(UserError, match="call fit first"):
        colour(batch)
    colour.fit(batch)
    shift = (colour(batch) - batch).flatten(1)
    assert shift.std(0).min() > 0
    assert torch.allclose(shift, shift[:, :1].expand_as(shift), atol=1e-6)
    given = PCAColor(std=1.0, eigenvalues=[0.1, 0.2], eigenvectors=[[1.0, 0.0], [0.0, 1.0]])
    assert not given.needs_fit
    two = torch.full((5000, 2, 1, 1), 0.5, dtype=torch.float64)
    shifts = given(two).flatten(1) - 0.5
    assert torch.allclose(shifts.std(0), torch.tensor([0.1, 0.2], dtype=torch.float64), rtol=0.1)
    with pytest.raises(UserError, match="2 components, the images have 1"):
        given(batch)
    with pytest.raises(UserError, match="together"):
        PCAColor(eigenvalues=[1.0])
    with pytest.raises(UserError, match="as many"):
        PCAColor(eigenvalues=[1.0], eigenvectors=[[1.0, 0.0]])


def flips(batch, epoch, seed=0):
    flip = FlipAlternately()
    flip.start_epoch(epoch, seed)
    return flip.make_params([batch])["flip"]


def test_alternate_flips_are_every_other_epoch_s():
    batch = images(2000)
    first = flips(batch, 0)
    assert 900 < first.sum() < 1100
    for epoch in range(1, 6):
        assert torch.equal(flips(batch, epoch), first if epoch % 2 == 0 else ~first)
    order = torch.randperm(2000)
    assert torch.equal(flips(batch[order], 0), first[order])  # an image's own, wherever in a batch it is
    assert torch.equal(flips(batch.float() / 255, 0), first)
    for seed in (1, 2, 3):
        assert 800 < (flips(batch, 0, seed) ^ first).sum() < 1200
    flip = FlipAlternately()
    expected = torch.where(flip.make_params([batch])["flip"][:, None, None, None], batch.flip(-1), batch)
    assert torch.equal(flip(batch), expected)
    steps = [FlipAlternately(), CropEach([7, 9])]
    torch.manual_seed(0)
    one_by_one = steps[1](steps[0](batch))
    torch.manual_seed(0)
    assert torch.equal(move(batch, steps), one_by_one)
    assert flip(batch[0]).shape == batch[0].shape


def test_alternate_flips_do_not_depend_on_similar_sums():
    """Images that differ by one step of one pixel are reflected as if drawn anew."""
    ramp = torch.zeros(256, 1, 4, 4, dtype=torch.uint8)
    ramp[:, 0, 0, 0] = torch.arange(256)
    first = flips(ramp, 0)
    assert 90 < first.sum() < 166
    assert 70 < (first[1:] ^ first[:-1]).sum() < 185


def changed(augment, count=32):
    """Which pictures of a batch an augmentation changes, and the augmented pictures."""
    images = torch.rand(count, 3, 8, 8)
    made, _ = BatchAugmentation(augment, 3, 8, 8, 10)(images, torch.arange(count) % 10)
    return (made - images).flatten(1).abs().amax(1) > 1e-4, made


@pytest.mark.parametrize(
    "transform",
    [
        v2.RandomHorizontalFlip,
        v2.RandomErasing,
        partial(v2.RandomApply, [v2.GaussianBlur(3)]),
        partial(v2.Compose, [v2.RandomHorizontalFlip(0.3), v2.Normalize([0.0] * 3, [1.0] * 3)]),
        type("OwnFlip", (v2.RandomHorizontalFlip,), {}),
    ],
)
def test_torchvisions_transforms_draw_for_each_picture(transform):
    torch.manual_seed(0)
    which, made = changed([transform])
    assert 0 < which.sum() < 32
    assert made.shape == (32, 3, 8, 8)


def test_a_picture_is_changed_as_by_the_transform_alone():
    images = torch.rand(4, 3, 8, 8)
    torch.manual_seed(1)
    expected = torch.stack([v2.RandomErasing(0.5)(v2.ColorJitter(0.5)(image)) for image in images])
    torch.manual_seed(1)
    made, labels = BatchAugmentation([partial(v2.ColorJitter, 0.5), v2.RandomErasing], 3, 8, 8, 10)(
        images, torch.arange(4)
    )
    assert torch.equal(made, expected)
    assert labels.tolist() == [0, 1, 2, 3]


def test_mixing_stays_with_the_batch():
    mix = [v2.MixUp(num_classes=10), v2.CutMix(num_classes=10)]
    augmentation = BatchAugmentation([v2.RandomHorizontalFlip, partial(v2.RandomChoice, mix)], 3, 8, 8, 10)
    images, labels = augmentation(torch.rand(8, 3, 8, 8), torch.arange(8))
    assert images.shape == (8, 3, 8, 8)
    assert labels.shape == (8, 10)
    both = partial(v2.RandomApply, [mix[0], v2.RandomHorizontalFlip()])
    with pytest.raises(UserError, match=r"RandomApply holds MixUp, .* and RandomHorizontalFlip"):
        BatchAugmentation([both], 3, 8, 8, 10)


class OwnMixing(v2.MixUp.__base__):
    """As third parties write one."""

    def make_params(self, flat_inputs):
        return {}

    def transform(self, inpt, params):
        return inpt.roll(1, 0) if inpt.dim() == 4 else inpt


class Neighbours(v2.Transform):
    takes_batch = True

    def forward(self, images, labels):
        return images.roll(1, 0), labels


@pytest.mark.parametrize("transform", [OwnMixing, Neighbours, partial(v2.RandomChoice, [Neighbours()])])
def test_a_third_partys_mixing_gets_the_batch(transform):
    images, labels = torch.rand(4, 3, 8, 8), torch.arange(4)
    augmentation = BatchAugmentation([partial(v2.RandomErasing, p=0.0), transform], 3, 8, 8, 10)
    assert torch.equal(augmentation(images, labels)[0], images.roll(1, 0))


def test_pictures_of_random_sizes():
    sizes = partial(v2.RandomResize, 9, 20)
    augmentation = BatchAugmentation([sizes, v2.RandomHorizontalFlip, partial(v2.RandomCrop, 8)], 3, 8, 8, 10)
    assert augmentation(torch.rand(8, 3, 8, 8), torch.arange(8))[0].shape == (8, 3, 8, 8)
    with pytest.raises(UserError, match="pictures differ in size after RandomResize"):
        BatchAugmentation([sizes], 3, 8, 8, 10)(torch.rand(8, 3, 8, 8), torch.arange(8))
