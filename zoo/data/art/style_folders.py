"""Many content pictures and one or more styles: training data for networks that stylise in one pass.

Every name is a file, a folder of pictures, a glob pattern, or a picture from an installed package
(``zoo.data.art.pictures.EMBEDDED``). A few pictures work as well as thousands, since an epoch is a number of crops.
Files to stylise may also be videos or animated pictures, whose frames become separate pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset

from zoo.data.art.frames import Frames
from zoo.data.art.pictures import EMBEDDED, LICENCE, SMALLEST, Style, listed, picture_file, shares_of
from zoo.data.base import Split
from zoo.data.files import UnreadableImage, matching_files, read_image, upright_size, whole
from zoo.data.image_data import ImageData
from zoo.data.loading import derive_seed
from zoo.data.pixels import as_floats
from zoo.data.predicting import SkipUnreadable
from zoo.data.walk import LeftOut
from zoo.errors import UserError
from zoo.facts import Facts

CONTENT = ("astronaut", "chelsea", "china", "coffee", "flower", "rocket")  # the embedded photographs
STYLE = ("brick", "grass", "gravel", "hubble", "ihc")  # the embedded textures
KEPT = 2**29  # maximum bytes of decoded pictures held in memory: 2,000 pictures at 256 pixels


@runtime_checkable
class HoldsStyle(Protocol):
    """A task that says whether its weights hold the style, so that a prediction needs none."""

    holds_style: bool


class StyleFolders(ImageData):
    """Crops of contents and styles for training, and whole pictures to stylise.

    Args:
        content: pictures to train on; default: the embedded photographs.
        style: pictures of the styles; default: the embedded textures.
        style_weights: one per style, to mix several; default: equal weights in training, and prediction takes only one
            style.
        image_size: side of the square crops.
        resize: length of the shorter side that contents are resized to; a crop is a random part of at least
            ``image_size``; default: ``image_size``.
        style_size: the same for styles, which sets the size of their strokes; default: ``resize``.
        crops: training samples per epoch; every content is used equally often, and every style about equally often.
        val_fraction: fraction of the contents that is held out for validation.
        test_fraction: fraction of the contents that is held out for the test, always the same ones.
        style_test_fraction: fraction of the styles that is held out for the test; 0 tests with the training styles.
        files: pictures to stylise: file, folder, glob pattern, embedded name or video, or a list of these.
        size: length of the longer side that ``files`` are resized to; default: their own size.
        batch_size: samples per training step, over all processes.
        eval_batch_size: the same for validation and test; ``files`` are processed one by one.
        num_workers: processes that make crops, for sets that do not fit in memory.
        skip_unreadable: leave crops of pictures that can't be read out of training, where each is printed to stderr.
            Pictures for evaluation are all read before training, and unreadable ones refused.

    Shape:
        training: contents in [0, 1], (B, 3, image_size, image_size), and styles, likewise
        evaluation: the same, centre crops: of each held-out content once, with the styles in turn
        prediction: a picture (1, 3, H, W), its name in a list, and a list of ``Style``, each (3, h, w), in the order
            given; empty for a task whose weights hold its style, which declares ``holds_style``
    """

    batch: ClassVar[str] = "stylization"
    licence: ClassVar[str] = LICENCE
    about: ClassVar[str] = "your own folders of pictures and styles; embedded: 6 photographs and 5 textures"
    example: ClassVar[dict[str, Any]] = {
        "content": [*CONTENT, *STYLE],
        "style": ["ihc", "hubble"],
        "style_weights": [1.0, 3.0],
        "image_size": 32,
        "resize": 40,
        "crops": 8,
        "val_fraction": 0.3,
        "test_fraction": 0.3,
        "files": ["chelsea", "rocket", "ihc"],
        "size": 36,
    }

    may_change = ("size", "skip_unreadable")  # the size is that of pictures to stylise

    def __init__(
        self,
        content: list[str] | str | None = None,
        style: list[str] | str | None = None,
        style_weights: list[float] | None = None,
        image_size: int = 256,
        resize: int | None = None,
        style_size: int | None = None,
        crops: int = 2000,
        val_fraction: float = 0.0,
        test_fraction: float = 0.1,
        style_test_fraction: float = 0.0,
        files: list[str] | str | None = None,
        size: int | None = None,
        batch_size: int = 4,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        skip_unreadable: bool = False,
    ) -> None:
        super().__init__(files, batch_size, eval_batch_size, num_workers)
        self.content, self.style = listed(content or list(CONTENT)), listed(style or list(STYLE))
        self.style_weights, self.style_said = style_weights, style is not None
        self.image_size, self.resize = image_size, image_size if resize is None else resize
        self.style_size = self.resize if style_size is None else style_size
        self.crops, self.size, self.skip_unreadable = crops, size, skip_unreadable
        self.fractions = {"val": val_fraction, "test": test_fraction, "style_test": style_test_fraction}
        self._parts: dict[str, tuple[PictureStore, PictureStore]] = {}
        self.left_out = LeftOut()
        self._check()

    def _check(self) -> None:
        if self.image_size < SMALLEST or (self.size is not None and self.size < SMALLEST):
            raise UserError(f"data.image_size and data.size must be at least {SMALLEST}")
        if min(self.resize, self.style_size) < self.image_size:
            raise UserError(f"data.resize and data.style_size must be at least data.image_size, {self.image_size}")
        if self.crops < 1:
            raise UserError(f"data.crops must be at least 1, not {self.crops}")
        for name, value in self.fractions.items():
            if not 0 <= value < 1:
                raise UserError(f"data.{name}_fraction must be at least 0 and below 1, not {value}")

    @property
    def facts(self) -> Facts:
        """Colour, and the size of the crops."""
        return Facts(in_channels=3, image_size=[self.image_size] * 2)

    # Splits

    def setup(self, stage: str | None = None) -> None:
        """Find the pictures and hold some out; decode those for training if they fit in memory.

        Raises:
            UserError: a picture is missing or damaged, or there are too few to hold any out.
        """
        if stage == "predict":
            return
        if not self._parts:
            self._split()
        if stage in (None, "fit"):
            for store in self._parts["train"]:
                store.fill(self.skip_unreadable)
            if self.skip_unreadable:
                self.refuse_unreadable(("val", "test"))

    def _split(self) -> None:
        if self.style_weights and self.fractions["style_test"]:
            raise UserError("data.style_weights are for all styles, so none can be held out by style_test_fraction")
        contents = found_pictures(self.content, "content", self.left_out)
        styles = found_pictures(self.style, "style", self.left_out)
        shares_of(self.style_weights, len(styles))  # checks their number
        rest, tested = held_out(contents, self.fractions["test"], "test_fraction")
        rest, validated = held_out(rest, self.fractions["val"], "val_fraction")
        kept, unseen = held_out(styles, self.fractions["style_test"], "style_test_fraction")
        seen = PictureStore(kept, self.style_size)
        others = PictureStore(unseen, self.style_size) if unseen else seen
        self._parts = {
            "train": (PictureStore(rest, self.resize), seen),
            "val": (PictureStore(validated, self.resize), seen),
            "test": (PictureStore(tested, self.resize), others),
        }

    def samples(self, split: Split) -> Dataset | None:
        """Random crops for training, centre crops of the held-out pictures; None if none are held out."""
        if split == "predict":
            return None
        if split not in self._parts:
            raise RuntimeError(f"call setup before samples({split!r})")
        contents, styles = self._parts[split]
        if split == "train":
            return RandomCrops(contents, styles, self.image_size, self.crops)
        return CentralCrops(contents, styles, self.image_size) if len(contents) else None

    def summary(self) -> str:
        """Contents and styles of each part, and what was left out."""
        counts = ", ".join(f"{len(contents):,} {split}" for split, (contents, _) in self._parts.items())
        styles = {split: len(styles) for split, (_, styles) in self._parts.items()}
        unseen = f" ({styles['test']} others for the test)" if self.fractions["style_test"] else ""
        left_out = f"; left out: {self.left_out}" if str(self.left_out) else ""
        return f"{type(self).__name__}: contents {counts}; styles {styles['train']}{unseen}{left_out}"

    def setup_to_check(self) -> None:
        """Find the pictures, without decoding those for training."""
        self.setup("validate")

    def check_samples(self, split: Split) -> list[str]:
        """The part's pictures that can't be read; the training styles are checked with the training contents."""
        stores = self._parts[split] if split != "predict" else ()
        seen = self._parts["train"][1] if split != "train" else None
        checked = [store for store in stores if store is not seen and len(store)]
        return [line for store in checked for line in self.problems_of(store)]

    def whole_styles(self) -> list[Style]:
        """The whole training styles with their weights, for a network that learns one style."""
        styles = self._parts["train"][1]
        shares = shares_of(self.style_weights, len(styles))
        return [Style(styles[i].float() / 255, share, None) for i, share in enumerate(shares)]

    # Prediction

    def predict_dataloader(self) -> SkipUnreadable:
        """Whole pictures and frames, one by one; unreadable ones are printed to stderr and listed in ``unreadable``.

        Raises:
            UserError: there are no ``files``, one of them matches nothing, or no style is chosen for a task that needs
                one.
        """
        if not self.files:
            raise UserError("there is nothing to stylise: give pictures by --data.files 'photos/*.jpg'")
        self.unreadable = []
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        self._chosen = self._chosen_styles()
        return SkipUnreadable(Frames(found_pictures(self.files, "files"), self.size, rank, world), self.unreadable)

    def _chosen_styles(self) -> list[Style]:
        task = self.trainer.lightning_module if self.trainer else None
        if isinstance(task, HoldsStyle) and task.holds_style:
            return []
        names = found_pictures(self.style, "style")
        if not self.style_said or (len(names) > 1 and not self.style_weights):
            raise UserError("which style? give the picture by --data.style FILE, or several with --data.style_weights")
        images = [read_shorter(name, self.style_size).float() / 255 for name in names]
        return [Style(i, w, None) for i, w in zip(images, shares_of(self.style_weights, len(names)), strict=True)]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Bytes to floats in [0, 1] of the module's dtype; in prediction with the styles."""
        first, second = batch
        dtype = self.dtype
        first = as_floats(first, first.shape[-2:], dtype)
        if isinstance(second, Tensor):
            return first, as_floats(second, second.shape[-2:], dtype)
        return first, second, [s._replace(image=s.image.to(first)) for s in self._chosen]


def found_pictures(names: Sequence[str], argument: str, left_out: LeftOut | None = None) -> list[str]:
    """The files that the names refer to, in order; a name without a file is an embedded picture's.

    A folder with the name of an embedded picture is written as ``brick/``.

    Raises:
        UserError: one of them matches nothing.
    """
    found: dict[str, None] = {}
    for name in names:
        embedded = name in EMBEDDED and not Path(name).is_file()
        matches = [str(picture_file(name))] if embedded else matching_files([name], f"data.{argument}", left_out)
        found |= dict.fromkeys(matches)
    return list(found)


def held_out(names: Sequence[str], fraction: float, argument: str) -> tuple[list[str], list[str]]:
    """The kept and the held-out names, always the same; at least one is held out if the fraction is above 0.

    Raises:
        UserError: none would be left.
    """
    count = max(1, round(fraction * len(names))) if fraction else 0
    if count >= len(names):
        raise UserError(
            f"data.{argument} holds {count} of {len(names)} pictures out, and none is left: give more, or 0"
        )
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(derive_seed(0))).tolist()
    held = set(order[:count])
    return [n for i, n in enumerate(names) if i not in held], [n for i, n in enumerate(names) if i in held]


# Crops


def read_shorter(path: str, side: int) -> Tensor:
    """A whole picture resized to this shorter side, as bytes, (3, H, W)."""
    height, width = upright_size(path)
    factor = side / min(height, width)
    return read_image(path, [max(side, round(height * factor)), max(side, round(width * factor))], region=whole)


class PictureStore:
    """Decoded pictures by index; held in memory if all of them fit in ``KEPT`` bytes.

    Args:
        paths: the files.
        side: length of the shorter side that they are resized to.
    """

    def __init__(self, paths: Sequence[str], side: int) -> None:
        self.paths, self.side = list(paths), side
        self.fits = len(self.paths) * 4 * side * side <= KEPT  # three channels, with an aspect ratio of 4:3
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        if index in self._kept:
            return self._kept[index]
        pixels = read_shorter(self.paths[index], self.side)
        if self.fits:
            self._kept[index] = pixels
        return pixels

    def fill(self, skip_unreadable: bool = False) -> None:
        """Decode all of them now, if they fit: worker processes then share them.

        Args:
            skip_unreadable: whether a picture that can't be read is an error only once it is needed.
        """
        if self.fits and len(self._kept) < len(self):
            with ThreadPoolExecutor() as pool:  # Pillow decodes without holding the GIL
                list(pool.map(self._try if skip_unreadable else self.__getitem__, range(len(self))))

    def _try(self, index: int) -> None:
        with suppress(UnreadableImage):
            self[index]


class RandomCrops(Dataset):
    """Square crops of contents and styles, of random scale and place, with random horizontal flips.

    Args:
        contents: used in turn.
        styles: one is drawn at random for each sample.
        side: side of a crop, in pixels.
        count: number of samples.
    """

    def __init__(self, contents: PictureStore, styles: PictureStore, side: int, count: int) -> None:
        self.contents, self.styles, self.side, self.count = contents, styles, side, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Crops of a content and a style; draws from torch's default generator."""
        style = int(torch.randint(len(self.styles), ()))
        content = self.contents[index % len(self.contents)]
        return random_crop(content, self.side), random_crop(self.styles[style], self.side)


def random_crop(pixels: Tensor, side: int) -> Tensor:
    """A random square crop of at least ``side`` pixels, resized to (3, side, side); flipped half of the time."""
    height, width = pixels.shape[1:]
    scale, down, right, mirror = torch.rand(4).tolist()
    part = side + round(scale * (min(height, width) - side))
    top, left = round(down * (height - part)), round(right * (width - part))
    crop = pixels[:, top : top + part, left : left + part]
    return shrunk(crop.flip(2) if mirror < 0.5 else crop, side)


def shrunk(crop: Tensor, side: int) -> Tensor:
    """A square of bytes resized to this side, antialiased."""
    if crop.shape[1] == side:
        return crop
    return interpolate(crop[None], (side, side), mode="bilinear", antialias=True)[0]


class CentralCrops(Dataset):
    """The centre crop of each content once, with the styles in turn.

    Args:
        contents: the pictures.
        styles: centre crops, too.
        side: side of a crop, in pixels.
    """

    def __init__(self, contents: PictureStore, styles: PictureStore, side: int) -> None:
        self.contents, self.styles, self.side = contents, styles, side

    def __len__(self) -> int:
        return len(self.contents)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        content, style = self.contents[index], self.styles[index % len(self.styles)]
        return central_square(content, self.side), central_square(style, self.side)


def central_square(pixels: Tensor, side: int) -> Tensor:
    """The largest centre crop of a picture, resized to ``side`` pixels."""
    height, width = pixels.shape[1:]
    part = min(height, width)
    top, left = (height - part) // 2, (width - part) // 2
    return shrunk(pixels[:, top : top + part, left : left + part], side)
