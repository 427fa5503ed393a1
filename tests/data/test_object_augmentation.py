"""torchvision's transforms on samples with boxes, masks, crowds and areas; the epoch; what is refused."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.ops import box_iou, masks_to_boxes
from torchvision.transforms import v2

from zoo.data.loading import Loader
from zoo.data.object_augmentation import AugmentedSamples, ObjectAugmentation
from zoo.data.scenes import SceneMasks, Scenes
from zoo.data.transforms import FlipEach
from zoo.errors import UserError

SMALL: dict[str, Any] = {"image_size": 64, "train_size": 8, "val_size": 2, "test_size": 2, "batch_size": 4}
SIDE = 48


class Squares(Dataset):
    """Each image is black, with one to four squares whose pixels have the value 40 * (label + 1)."""

    def __init__(self, masks: bool = True) -> None:
        self.masks = masks

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(index)
        count = index % 4 + 1
        image = torch.zeros(3, SIDE, SIDE + index, dtype=torch.uint8)
        masks = torch.zeros(count, SIDE, SIDE + index, dtype=torch.bool)
        for i in range(count):  # side by side in strips, so that none covers another
            left = i * 12 + int(torch.randint(3, (), generator=generator))
            top = int(torch.randint(SIDE - 9, (), generator=generator))
            masks[i, top : top + 9, left : left + 9] = True
            image[:, masks[i]] = 40 * (i + 1)
        boxes = masks_to_boxes(masks) + torch.tensor([0.0, 0.0, 1.0, 1.0])
        target = {"boxes": boxes, "labels": torch.arange(count), "iscrowd": torch.arange(count) == 1}
        target |= {"area": torch.full((count,), 81.0)}
        return image, {**target, "masks": masks} if self.masks else target


def augmented(*factories: Any, masks: bool = True, **options: Any) -> AugmentedSamples:
    augmentation = ObjectAugmentation(factories, image_size=[SIDE, SIDE], **options)
    return AugmentedSamples(Squares(masks), augmentation)


def of_seed(samples: Any, index: int, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(seed)
    return samples[index]


def check_by_pixels(image: Tensor, target: dict[str, Tensor], tolerance: float = 1.0) -> None:
    """Boxes, masks, labels, crowds and areas against where the squares' values are in the image."""
    floats = image.float() * (255 if image.is_floating_point() else 1)
    for i, label in enumerate(target["labels"].tolist()):
        value = 40 * (label + 1)
        found = (floats[0] - value).abs() < 8
        box = masks_to_boxes(found[None])[0] + torch.tensor([0.0, 0.0, 1.0, 1.0])
        assert (box - target["boxes"][i]).abs().max() <= tolerance, (box, target["boxes"][i])
        assert bool(target["iscrowd"][i]) == (label == 1)
        if "masks" in target:
            assert (target["masks"][i] & found).sum() > 0.7 * found.sum()
            assert target["area"][i] == target["masks"][i].sum()
    assert len({len(rows) for rows in target.values()}) == 1


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize(
    "transforms",
    [
        [v2.RandomHorizontalFlip],
        [v2.RandomVerticalFlip, partial(v2.RandomPhotometricDistort, p=0.0)],
        [v2.RandomIoUCrop],
        [v2.RandomIoUCrop, v2.SanitizeBoundingBoxes, v2.RandomHorizontalFlip],
        [partial(v2.RandomZoomOut, side_range=[1.0, 2.0])],
        [partial(v2.RandomCrop, size=[40, 40])],
        [partial(v2.ScaleJitter, target_size=[96, 96], scale_range=(0.8, 1.5), interpolation=0), v2.RandomIoUCrop],
    ],
)
def test_torchvisions_transforms_keep_all_entries_right(transforms: list[Any], masks: bool) -> None:
    samples, kept = augmented(*transforms, masks=masks), []
    for seed in range(25):
        image, target = of_seed(samples, seed % 6, seed)
        assert type(image) is type(target["boxes"]) is Tensor, "plain tensors reach the task"
        check_by_pixels(image, target, 2.0)
        kept.append(len(target["labels"]))
    assert any(kept)


def test_objects_of_which_nothing_is_left_are_dropped() -> None:
    samples = augmented(partial(v2.CenterCrop, size=[16, 14]))
    found = [samples[index] for index in range(6)]
    assert {tuple(image.shape) for image, _ in found} == {(3, 16, 14)}
    assert any(len(target["labels"]) < index % 4 + 1 for index, (_, target) in enumerate(found))
    for image, target in found:
        check_by_pixels(image, target)
        assert {int(v) for v in image[0].unique()} - {0} == {40 * (n + 1) for n in target["labels"].tolist()}


def test_a_box_is_cut_down_to_what_is_left_of_its_mask() -> None:
    """An L whose foot is cut away: the clipped box would still be as wide as the foot."""
    mask = torch.zeros(1, 20, 20, dtype=torch.bool)
    mask[0, :18, 2:5] = mask[0, 15:18, 2:19] = True
    target = {"boxes": torch.tensor([[2.0, 0.0, 19.0, 18.0]]), "labels": torch.zeros(1, dtype=torch.int64)}
    image = torch.zeros(3, 20, 20, dtype=torch.uint8)
    crop = ObjectAugmentation([partial(v2.Pad, padding=[0, 10, 0, 0]), partial(v2.CenterCrop, size=[10, 20])])
    _, cut = AugmentedSamples([(image, {**target, "masks": mask})], crop)[0]
    assert cut["boxes"].tolist() == [[2, 0, 6, 10]]  # the upright is 3 wide; a pixel is left to annotators


def test_strong_transforms_end_with_their_epochs() -> None:
    grey = partial(v2.Grayscale, num_output_channels=3)
    flip = partial(v2.RandomHorizontalFlip, p=1.0)
    data = Scenes(**SMALL, augment=[flip], strong_augment=[grey], strong_epochs=2)
    plain, samples = Scenes(**SMALL).samples("train"), data.samples("train")
    for epoch in (0, 1, 2, 3, 1):
        samples.epoch = epoch
        image, _ = samples[0]
        original = plain[0][0].flip(-1)
        assert torch.equal(image, original) == (epoch >= 2)
        assert torch.equal(image[0], image[1]) == (epoch < 2)
    assert torch.equal(data.samples("val")[0][0], Scenes(**SMALL).samples("val")[0][0]), "never in evaluation"


class EpochTrainer:
    """Just enough of a trainer for a loader."""

    global_rank, world_size, overfit_batches = 0, 1, 0

    def __init__(self, epoch: int, batch: int) -> None:
        self.current_epoch = epoch
        self.fit_loop = type("Loop", (), {"batch_idx": batch - 1})


@pytest.mark.parametrize("workers", [0, 1])
def test_the_loader_tells_samples_the_epoch(workers: int) -> None:
    """Also in workers that live on, and where a run resumes; each sample is the same wherever it is read."""
    options = {"strong": [partial(v2.RandomHorizontalFlip, p=1.0)], "strong_epochs": 1}
    trainer: Any = EpochTrainer(0, 0)
    found = {}
    loader = Loader(augmented(**options), 2, trainer, train=True, num_workers=workers, collate=list)
    for epoch, start in ((0, 0), (1, 0), (1, 2), (0, 1)):
        trainer.current_epoch, trainer.fit_loop.batch_idx = epoch, start - 1
        found[epoch, start] = [sample for batch in loader for sample in batch]
    loader.close()
    whole, rest = found[1, 0], found[1, 2]
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole[4:], rest, strict=True))
    originals = {tuple(Squares()[i][0].shape): Squares()[i][0] for i in range(6)}
    for image, _ in whole:
        assert torch.equal(image, originals[tuple(image.shape)])
    for image, _ in [*found[0, 0], *found[0, 1]]:
        assert torch.equal(image.flip(-1), originals[tuple(image.shape)])


def test_masks_of_classes_are_moved_and_padding_is_ignored() -> None:
    data = SceneMasks(**SMALL, augment=[partial(v2.RandomHorizontalFlip, p=1.0)])
    (image, target), (stored, expected) = data.samples("train")[0], data.annotated("train")[0]
    assert torch.equal(image, stored.flip(-1))
    assert torch.equal(target["mask"], expected["mask"].flip(-1))
    crop = partial(v2.RandomCrop, size=[64, 64], pad_if_needed=True)
    shrink = partial(v2.Resize, size=[40, 40])
    padded = SceneMasks(**SMALL, augment=[shrink, crop])
    images, masks = next(iter(padded.train_dataloader()))
    assert images.shape == (4, 3, 64, 64)
    assert masks.dtype == torch.int64
    assert ((masks == 255).sum((1, 2)) == 64 * 64 - 40 * 40).all()
    assert (images.amax(1)[masks == 255] == 0).all()
    with pytest.raises(UserError, match="augment makes images of 40x40, wanted are 64x64: end with a crop or a resize"):
        next(iter(SceneMasks(**SMALL, augment=[shrink]).train_dataloader()))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"augment": [FlipEach]}, "FlipEach knows no boxes and masks: use one of torchvision.transforms.v2"),
        ({"augment": [partial(v2.MixUp, num_classes=13)]}, "MixUp mixes labels of whole images: use DetectionMixUp"),
        ({"augment": [partial(v2.RandomCrop, size=[70, 70])]}, "data.augment: RandomCrop fails: .*larger"),
        ({"strong_epochs": 3}, "data.strong_epochs is 3, but there is no data.strong_augment"),
        ({"strong_epochs": -1, "strong_augment": [v2.RandomIoUCrop]}, "strong_epochs must be at least 0, not -1"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Scenes(**SMALL, **options).train_dataloader()


def test_boxes_of_the_whole_pipeline_fit_the_masks() -> None:
    jitter = partial(v2.ScaleJitter, target_size=[64, 64], scale_range=(0.5, 2.0))
    crop = partial(v2.RandomCrop, size=[64, 64], pad_if_needed=True)
    data = Scenes(**SMALL, augment=[v2.RandomHorizontalFlip, v2.RandomIoUCrop, jitter, crop, v2.ColorJitter])
    images, targets = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert {tuple(image.shape) for image in images} == {(3, 64, 64)}
    for target in targets:
        if len(target["labels"]):
            around = masks_to_boxes(target["masks"]) + torch.tensor([0.0, 0.0, 1.0, 1.0])
            assert box_iou(target["boxes"], around).diagonal().min() > 0.5
