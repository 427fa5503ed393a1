"""Copy-paste, mosaic, mixup and large-scale jitter: boxes, masks and labels against the pixels."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2

from tests.data.test_object_augmentation import SIDE, SMALL, Squares, of_seed
from zoo.data.loading import Loader
from zoo.data.object_augmentation import AugmentedSamples, ObjectAugmentation, wrapped
from zoo.data.object_transforms import CopyPaste, DetectionMixUp, LargeScaleJitter, Mosaic
from zoo.data.scenes import SceneMasks, Scenes
from zoo.errors import UserError


def augmented(*factories: Any, masks: bool = True) -> AugmentedSamples:
    return AugmentedSamples(Squares(masks), ObjectAugmentation(factories, image_size=[SIDE, SIDE]))


def one_object(mask: Tensor, value: int, label: int, crowd: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
    """An image of one value where the mask is, which has one object."""
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    target = {"boxes": torch.tensor([[float(n) for n in corners]]), "labels": torch.tensor([label])}
    target |= {"masks": mask[None], "iscrowd": torch.tensor([crowd])}
    return wrapped((mask * value).to(torch.uint8).expand(3, -1, -1), target)


def rectangle(top: int, left: int, bottom: int, right: int, side: int = 20) -> Tensor:
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def pasted(below: Any, above: Any, visible: float = 0.1) -> tuple[Tensor, dict[str, Tensor]]:
    """Copy-paste with a seed by which the object is chosen."""
    torch.manual_seed(next(s for s in range(9) if float(torch.manual_seed(s) and torch.rand(1)) < 0.5))
    return CopyPaste(visible=visible).mix(below, [above])


def test_pasted_objects_cover_others() -> None:
    below, above = one_object(rectangle(2, 2, 12, 12), 100, 3), one_object(rectangle(2, 8, 16, 18, 24), 200, 5)
    image, target = pasted(below, above)
    assert image.shape == (3, 20, 20), "the pasted image is larger, and is cut"
    assert target["boxes"].tolist() == [[2, 2, 8, 12], [8, 2, 18, 16]]
    assert target["labels"].tolist() == [3, 5]
    for mask, value in zip(target["masks"], (100, 200), strict=True):
        assert torch.equal(mask.as_subclass(Tensor), (image[0] == value).as_subclass(Tensor))
    assert below[1]["masks"].sum() == 100, "the given sample is unchanged"


def test_objects_nearly_hidden_are_dropped() -> None:
    below, above = one_object(rectangle(2, 2, 12, 12), 100, 3), one_object(rectangle(0, 0, 11, 20), 200, 5)
    assert pasted(below, above, visible=0.11)[1]["labels"].tolist() == [5]  # 10 of 100 pixels are left
    assert pasted(below, above, visible=0.1)[1]["labels"].tolist() == [3, 5]
    crowd = one_object(rectangle(2, 2, 12, 12), 100, 3, crowd=True)
    assert pasted(crowd, above, visible=0.5)[1]["iscrowd"].tolist() == [True, False], "what is ignored stays ignored"
    assert pasted(below, crowd)[1]["labels"].tolist() == [3], "crowds are not pasted"


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize(
    "transforms",
    [
        [partial(Mosaic, scale=(0.9, 1.4))],
        [v2.RandomHorizontalFlip, partial(Mosaic, scale=(1.0, 1.0), image_size=[60, 50])],
    ],
)
def test_every_square_of_a_mosaic_has_its_box(transforms: list[Any], masks: bool) -> None:
    samples, counts = augmented(*transforms, masks=masks), []
    for seed in range(20):
        image, target = of_seed(samples, seed % 6, seed)
        assert tuple(image.shape[-2:]) in {(SIDE, SIDE), (60, 50)}
        for label, (x1, y1, x2, y2) in zip(target["labels"], target["boxes"].round().int().tolist(), strict=True):
            inside = image[0, y1:y2, x1:x2]
            assert ((inside.int() - 40 * (int(label) + 1)).abs() < 25).float().mean() > 0.7
        found = torch.zeros_like(image[0], dtype=torch.bool)
        for x1, y1, x2, y2 in target["boxes"].int().tolist():
            found[max(0, y1 - 2) : y2 + 3, max(0, x1 - 2) : x2 + 3] = True
        outside = image[0][~found].int()
        coloured = ((outside > 30) & ((outside - 114).abs() > 4)).sum()
        assert coloured <= 2 * 81 * 0.1 * 4, "only slivers of less than a tenth have no box"
        assert len({len(rows) for rows in target.values()}) == 1
        counts.append(len(target["labels"]))
    assert max(counts) > 4, "objects of several images"


def test_mixup_is_the_mean_of_both() -> None:
    first, second = one_object(rectangle(2, 2, 12, 12), 100, 3), one_object(rectangle(4, 8, 10, 18, 40), 200, 5)
    image, target = DetectionMixUp().mix(first, [second])
    assert target["boxes"].tolist() == [[2, 2, 12, 12], [4, 2, 9, 5]], "the second one is scaled to fit"
    assert target["labels"].tolist() == [3, 5]
    assert [int(image[0, y, x]) for y, x in ((8, 10), (3, 5), (3, 7), (15, 15))] == [50, 150, 150, 0]


def test_large_scale_jitter() -> None:
    samples = augmented(partial(LargeScaleJitter, scale=(0.6, 2.0)))
    for seed in range(20):
        image, target = of_seed(samples, seed % 6, seed)
        assert image.shape == (3, SIDE, SIDE)
        for mask, label, box in zip(target["masks"], target["labels"], target["boxes"], strict=True):
            assert (image[0][mask].float().median() / (40 * (label + 1)) - 1).abs() < 0.4, "smoothed at the edges"
            around = masks_to_boxes(mask[None])[0] + torch.tensor([0.0, 0.0, 1.0, 1.0])
            assert (around - box).abs().max() <= 1
        covered = target["masks"].any(0)
        assert image[0][~covered].float().mean() < 3, "no square without its mask"
    image, _ = LargeScaleJitter([20, 60], scale=(1.0, 1.0))(*wrapped(torch.ones(3, 10, 30), {}))
    assert image.amin() == 1, "factor 1 is where the image fits into the size, of any proportions"
    masks = SceneMasks(**SMALL, augment=[LargeScaleJitter])
    images, classes = next(iter(masks.train_dataloader()))
    assert images.shape == (4, 3, 64, 64)
    assert (images.amax(1)[classes == 255] == 0).all()


def test_mixing_is_a_function_of_key_and_index() -> None:
    """The same samples whatever their batches are, whatever was drawn before: a resumed run is exact."""
    samples, found = augmented(LargeScaleJitter, CopyPaste, partial(Mosaic, p=0.5), DetectionMixUp), []
    for size in (2, 3):
        torch.manual_seed(size)
        loader = Loader(samples, size, train=True, seed=5, collate=list)
        found.append([sample for batch in loader for sample in batch])
    for (image, target), (other, expected) in zip(*found, strict=True):
        assert torch.equal(image, other)
        assert all(torch.equal(rows, expected[name]) for name, rows in target.items())
    torch.manual_seed(1)
    assert not torch.equal(found[0][0][0], samples[0][0])


@pytest.mark.parametrize(
    ("augment", "says"),
    [
        ([partial(CopyPaste, p=2.0)], "CopyPaste: p is a probability, not 2.0"),
        ([partial(CopyPaste, visible=-1)], "CopyPaste: visible is a share from 0 to 1, not -1"),
        ([partial(Mosaic, scale=(2, 1))], r"Mosaic: scale is a least and a largest factor, not \[2, 1\]"),
        ([partial(LargeScaleJitter, image_size=[0, 9])], r"image_size is a height and a width, not \[0, 9\]"),
        (
            [partial(v2.RandomApply, transforms=[CopyPaste()])],
            "CopyPaste mixes samples with boxes: it can't be part of",
        ),
    ],
)
def test_wrong_arguments_are_one_line(augment: list[Any], says: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(UserError, match=says):
        Scenes(**SMALL, augment=augment).train_dataloader()


def test_what_the_data_lacks_is_named() -> None:
    with pytest.raises(UserError, match="CopyPaste needs masks, which this data does not have"):
        ObjectAugmentation([CopyPaste]).check(wrapped(*Squares(masks=False)[0]))
    with pytest.raises(UserError, match="Mosaic: missing 1 required positional argument: 'image_size'"):
        ObjectAugmentation([Mosaic])
    with pytest.raises(UserError, match="Mosaic needs boxes, which this data does not have"):
        SceneMasks(**SMALL, augment=[Mosaic]).train_dataloader()
