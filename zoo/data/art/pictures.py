"""Pictures for tasks whose parameter is an image: textures to synthesise, and photographs with the styles to transfer
to them.

A name instead of a file is a sample picture from scikit-image or scikit-learn (``EMBEDDED``); a file of that name takes
precedence. Common kinds of files are all read: rotated by an EXIF tag, transparent (blended over white), grey, 16 bit,
animated (the first frame).

Such a task uses the same few pictures in every step: an epoch is ``steps`` times the same batch. There is no order, and
nothing to split between processes.
"""

from __future__ import annotations

from abc import abstractmethod
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from zoo.data.base import Data, Split
from zoo.data.files import read_image, upright_size, whole
from zoo.data.loading import Loader
from zoo.errors import UserError
from zoo.facts import Facts

# Name -> package and the file in it. Grey ones are read as colour.
EMBEDDED: dict[str, tuple[str, str]] = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "brick": ("skimage", "data/brick.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "coffee": ("skimage", "data/coffee.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "grass": ("skimage", "data/grass.png"),
    "gravel": ("skimage", "data/gravel.png"),
    "hubble": ("skimage", "data/hubble_deep_field.jpg"),
    "ihc": ("skimage", "data/ihc.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
}
LICENCE = "your own; embedded ones: scikit-image's and scikit-learn's samples (public domain, CC0, CC BY)"
SMALLEST = 16  # minimum of the shorter side in pixels; smaller pictures are too small for networks


def picture_file(name: str | Path) -> Path:
    """The file of a path or of an embedded picture's name; a file takes precedence.

    Raises:
        UserError: there is neither.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if str(name) not in EMBEDDED:
        if path.is_dir():
            raise UserError(f"{name} is a folder: give the path of a picture")
        raise UserError(f"there is no picture {name}; embedded ones are {', '.join(EMBEDDED)}")
    package, place = EMBEDDED[str(name)]
    found = find_spec(package)  # not imported: only its folder is needed
    if found is None or found.origin is None:
        raise UserError(f"the picture {name} comes with {package}, which is not installed")
    return Path(found.origin).parent / place


def scaled_size(height: int, width: int, longer: int) -> list[int]:
    """Height and width with the same aspect ratio (to half a pixel) and this longer side."""
    factor = longer / max(height, width)
    return [max(1, round(height * factor)), max(1, round(width * factor))]


def read_scaled(name: str | Path, longer: int) -> Tensor:
    """A picture whose longer side has ``size`` pixels; smaller ones are enlarged.

    Returns:
        in [0, 1], (3, H, W)

    Raises:
        UserError: it is missing, damaged or too narrow.
    """
    file = picture_file(name)
    size = scaled_size(*upright_size(file), longer)
    if min(size) < SMALLEST:
        raise UserError(
            f"{name} would be {size[1]}×{size[0]} pixels, too narrow (at least {SMALLEST}): give a larger size"
        )
    return read_image(file, size, region=whole).float() / 255


def read_filling(name: str | Path, size: list[int], channels: int = 3) -> Tensor:
    """The largest central crop of a picture with this aspect ratio, resized to this size, in [0, 1], (channels, H,
    W).
    """
    return read_image(picture_file(name), size, channels).float() / 255


class Style(NamedTuple):
    """A picture whose style is transferred.

    Args:
        image: in [0, 1], (3, h, w).
        weight: its weight; all of them sum to 1.
        mask: where the style is applied, in [0, 1], (1, H, W) as the content; None for everywhere.
    """

    image: Tensor
    weight: float
    mask: Tensor | None


class RepeatedBatch:
    """A data set that returns the same batch a number of times.

    Args:
        batch: as the task expects it.
        count: number of pictures in it.
        times: number of batches.
    """

    def __init__(self, batch: Any, count: int, times: int) -> None:
        self.batch, self.count, self.times = batch, count, times

    def __len__(self) -> int:
        return self.count * self.times

    def fetch(self, indices: Tensor) -> Any:
        """The batch, whatever the indices."""
        return self.batch


class PixelData(Data):
    """Base of data for tasks whose parameter is an image: one batch, ``steps`` times per epoch, and once for the test.

    Args:
        steps: training steps per epoch.
        size: length of the longer side, in pixels.
    """

    licence: ClassVar[str] = LICENCE

    def __init__(self, steps: int, size: int) -> None:
        super().__init__()
        if steps < 1:
            raise UserError(f"data.steps must be at least 1, not {steps}")
        if size < SMALLEST:
            raise UserError(f"data.size must be at least {SMALLEST}, not {size}")
        self.steps, self.size = steps, size
        self._batch: Any = None

    @abstractmethod
    def read(self) -> tuple[Any, list[int], int]:
        """The batch, height and width of the result, and the number of pictures."""

    def setup(self, stage: str | None = None) -> None:
        """Read the pictures, once."""
        if self._batch is None:
            self._batch, self._image_size, self._count = self.read()

    @property
    def facts(self) -> Facts:
        """Size and number of the results; known once the pictures are read."""
        if self._batch is None:
            return Facts(in_channels=3)
        return Facts(in_channels=3, image_size=self._image_size, num_images=self._count)

    def samples(self, split: Split) -> RepeatedBatch | None:
        """The batch: repeated in training, once for test and prediction; there is no validation."""
        if split == "val":
            return None
        self.setup()
        return RepeatedBatch(self._batch, self._count, self.steps if split == "train" else 1)

    def loader(self, split: Split) -> Loader | list[Any]:
        """Whole batches only, whatever batch size is requested.

        Raises:
            UserError: there are several processes.
        """
        samples = self.samples(split)
        if samples is None:
            return []
        if self.trainer and self.trainer.world_size > 1:
            raise UserError("one picture can't be made by several processes together: give trainer.devices 1")
        return Loader(samples, samples.count, self.trainer, train=split == "train")


def listed(value: list[str] | str) -> list[str]:
    """One name, or several."""
    names = [value] if isinstance(value, str) else list(value)
    if not names:
        raise UserError("no picture is given")
    return names


def checked_canvas(canvas: list[int] | None) -> list[int] | None:
    """Height and width of the result, if they are given.

    Raises:
        UserError: they are not two sufficiently large numbers.
    """
    if canvas is not None and (len(canvas) != 2 or min(canvas) < SMALLEST):
        raise UserError(f"data.canvas is height and width, at least {SMALLEST} each, not {canvas}")
    return canvas


def read_alike(names: list[str], size: int) -> Tensor:
    """Pictures with the first one's aspect ratio; the others are cropped to it.

    Returns:
        in [0, 1], (B, 3, H, W), the longer side ``size``
    """
    first = read_scaled(names[0], size)
    return torch.stack([first, *(read_filling(name, list(first.shape[1:])) for name in names[1:])])


class Textures(PixelData):
    """Textures to be synthesised.

    Args:
        texture: file or embedded name; several are synthesised in one batch.
        size: length of the longer side that each texture is resized to.
        canvas: height and width of the result; default: the first texture's. Gram matrices do not depend on the size,
            so a larger canvas gives more of the same texture.
        steps: training steps per epoch, which is one scale.

    Shape:
        textures: list of B images in [0, 1], (3, h, w); names: list of B
    """

    batch: ClassVar[str] = "texture"
    about: ClassVar[str] = "your own textures; embedded: brick, grass, gravel (grey), ihc, hubble (colour)"
    example: ClassVar[dict[str, Any]] = {"texture": ["brick", "ihc", "hubble"], "size": 32, "steps": 3}

    def __init__(
        self, texture: list[str] | str = "ihc", size: int = 256, canvas: list[int] | None = None, steps: int = 10
    ) -> None:
        super().__init__(steps, size)
        self.texture, self.canvas = listed(texture), checked_canvas(canvas)

    def read(self) -> tuple[Any, list[int], int]:
        """Textures and their names."""
        images = [read_scaled(name, self.size) for name in self.texture]
        return (images, list(self.texture)), self.canvas or list(images[0].shape[1:]), len(images)


class ContentAndStyle(PixelData):
    """Content pictures, and the styles to transfer to them.

    Args:
        content: file or embedded name; several are processed in one batch, cropped to the first one's aspect ratio.
        style: file or embedded name, or several, which are mixed by their weights.
        style_weights: one per style; default: equal weights.
        masks: one picture per style, white where the style is applied, of the content's shape; default: everywhere.
        size: length of the longer side of the result.
        style_size: length of the longer side that styles are resized to, which sets the size of their strokes; default:
            ``size``.
        steps: training steps per epoch, which is one scale.

    Shape:
        content: in [0, 1], (B, 3, H, W); styles: list of ``Style``
    """

    batch: ClassVar[str] = "style_transfer"
    about: ClassVar[str] = "your own pictures; embedded: astronaut, chelsea, china, coffee, flower, rocket, textures"
    example: ClassVar[dict[str, Any]] = {
        "content": ["chelsea", "rocket", "china"],
        "style": ["ihc", "hubble"],
        "size": 32,
        "steps": 3,
    }

    def __init__(
        self,
        content: list[str] | str = "chelsea",
        style: list[str] | str = "ihc",
        style_weights: list[float] | None = None,
        masks: list[str] | str | None = None,
        size: int = 512,
        style_size: int | None = None,
        steps: int = 10,
    ) -> None:
        super().__init__(steps, size)
        self.content, self.style = listed(content), listed(style)
        self.masks = None if masks is None else listed(masks)
        self.style_size = size if style_size is None else style_size
        if self.style_size < SMALLEST:
            raise UserError(f"data.style_size must be at least {SMALLEST}, not {style_size}")
        self.shares = shares_of(style_weights, len(self.style))
        if self.masks is not None and len(self.masks) != len(self.style):
            raise UserError(f"data.masks has {len(self.masks)} pictures for {len(self.style)} styles: give one each")

    def read(self) -> tuple[Any, list[int], int]:
        """Contents (B, 3, H, W), and styles with their weights and masks."""
        content = read_alike(self.content, self.size)
        size = list(content.shape[2:])
        styles = [
            Style(read_scaled(name, self.style_size), share, mask)
            for name, share, mask in zip(self.style, self.shares, self._read_masks(size), strict=True)
        ]
        return (content, styles), size, len(content)

    def _read_masks(self, size: list[int]) -> list[Tensor | None]:
        if self.masks is None:
            return [None] * len(self.style)
        masks = [read_filling(name, size, channels=1) for name in self.masks]
        for name, mask in zip(self.masks, masks, strict=True):
            given = scaled_size(*upright_size(picture_file(name)), max(size))
            if max(abs(a - b) for a, b in zip(given, size, strict=True)) > 1 + max(size) / 50:
                raise UserError(f"data.masks: {name} has not the content's shape, which is {size[1]}×{size[0]} here")
            if not mask.any():
                raise UserError(f"data.masks: {name} is black all over, so its style would be applied nowhere")
        return [*masks]


class Pictures(PixelData):
    """Pictures to start from or to fit, or an empty canvas.

    Args:
        picture: file or embedded name; several are processed in one batch, cropped to the first one's aspect ratio;
            default: a canvas of middle grey.
        size: length of the longer side of the result; without a picture, of both sides.
        canvas: height and width of the result instead; pictures are cropped to it.
        steps: training steps per epoch, which is one scale.

    Shape:
        images: in [0, 1], (B, 3, H, W); names: list of B, ``canvas`` for an empty one
    """

    batch: ClassVar[str] = "pictures"
    about: ClassVar[str] = "your own pictures, embedded ones (astronaut, chelsea, china, …), or an empty canvas"
    example: ClassVar[dict[str, Any]] = {"picture": ["chelsea", "rocket", "china"], "size": 32, "steps": 3}

    def __init__(
        self,
        picture: list[str] | str | None = None,
        size: int = 384,
        canvas: list[int] | None = None,
        steps: int = 10,
    ) -> None:
        super().__init__(steps, size)
        self.picture = None if picture is None else listed(picture)
        self.canvas = checked_canvas(canvas)

    def read(self) -> tuple[Any, list[int], int]:
        """Pictures and their names."""
        if self.picture is None:
            images = torch.full((1, 3, *(self.canvas or [self.size, self.size])), 0.5)
        elif self.canvas is not None:
            images = torch.stack([read_filling(name, self.canvas) for name in self.picture])
        else:
            images = read_alike(self.picture, self.size)
        return (images, self.picture or ["canvas"]), list(images.shape[2:]), len(images)


def shares_of(weights: list[float] | None, count: int) -> list[float]:
    """Weights of the styles, normalised to sum to 1; equal weights if none are given.

    Raises:
        UserError: their number is wrong, one is below 0, or none is above 0.
    """
    given = [1.0] * count if weights is None else weights
    if len(given) != count:
        raise UserError(f"data.style_weights has {len(given)} values for {count} styles")
    if min(given) < 0 or sum(given) <= 0:
        raise UserError(f"data.style_weights must be at least 0, and one above, not {given}")
    return [value / sum(given) for value in given]
