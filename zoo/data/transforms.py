"""Augmentations of whole batches with separate random draws for every image, on the images' device.

torchvision's transforms draw once per call, so that they have to be called for each picture. These take a
batch (or a single image), with or without labels, and leave labels unchanged. They draw from the device's default
generator, and have no Python loops over images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torchvision.transforms.v2 import Transform, functional

from zoo.data.pixels import mean_and_std as mean_and_std  # also imported from here by plugins
from zoo.data.pixels import pixel_covariance
from zoo.errors import UserError


class BatchTransform(Transform):
    """Base of transforms of whole batches, with hooks that the data module calls.

    torchvision's own transforms work too, one picture at a time (``zoo.data.augmentation``); for them no hooks are
    called.

    Attributes:
        must_be_first: whether it identifies images by their pixels, which an earlier transform would change.
    """

    must_be_first: ClassVar[bool] = False

    @property
    def needs_fit(self) -> bool:
        """Whether it needs training images before the first batch."""
        return False

    def fit(self, images: Tensor) -> None:
        """Compute statistics of training images, if ``needs_fit`` is true.

        Args:
            images: bytes, or floats in [0, 1], (N, C, H, W).
        """

    def start_epoch(self, epoch: int, seed: int) -> None:
        """Receive the current epoch, counted from 0, and the run's seed before each training batch."""


class EachTransform(BatchTransform):
    """Base of transforms with separate random draws for each image of a batch."""

    _transformed_types = (torch.Tensor,)


class GeometricTransform(EachTransform):
    """Base of transforms that only rearrange rows and columns of pixels: they take bytes as well as floats.

    ``move`` applies several of them at the cost of one.
    """

    padding = 0

    def pad(self, images: Tensor) -> Tensor:
        """Images padded as the transform needs."""
        return images

    def places(self, params: dict[str, Any], height: int, width: int) -> tuple[Tensor, Tensor]:
        """For each row and column of the result, its index in the padded image: (B, H') and (B, W')."""
        raise NotImplementedError

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """The transformed images."""
        padded = self.pad(inpt)
        return gather_places(padded, *self.places(params, *padded.shape[-2:]))


def gather_places(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels at the crossings of each image's own rows and columns.

    Shape:
        images (..., C, H, W), rows (B, H'), columns (B, W') -> (..., C, H', W')
    """
    flat = images.reshape(-1, images.shape[-3], images.shape[-2] * images.shape[-1])
    places = (rows * images.shape[-1])[:, :, None] + columns[:, None, :]
    moved = flat.gather(2, places.flatten(1)[:, None].expand(-1, flat.shape[1], -1))
    return moved.view(*images.shape[:-2], rows.shape[1], columns.shape[1])


def move(images: Tensor, moves: Sequence[GeometricTransform]) -> Tensor:
    """Apply several transforms in turn, but index pixels only once between two paddings.

    Shape:
        images (B, C, H, W) -> (B, C, H', W')
    """
    rows = columns = None
    for step in moves:
        if rows is not None and columns is not None and step.padding:
            images, rows, columns = gather_places(images, rows, columns), None, None
        size = images.shape[-2:] if rows is None or columns is None else (rows.shape[1], columns.shape[1])
        # All steps but the first use only the shape and device of their input.
        params = step.make_params([images[..., : size[0], : size[1]]])
        images = step.pad(images)
        new_rows, new_columns = step.places(params, *(n + 2 * step.padding for n in size))
        rows = new_rows if rows is None else rows.gather(1, new_rows)
        columns = new_columns if columns is None else columns.gather(1, new_columns)
    return images if rows is None or columns is None else gather_places(images, rows, columns)


class CropEach(GeometricTransform):
    """Random crops, drawn for each image, of one size; every position is equally likely.

    Args:
        image_size: height and width of the crops, or the side of a square.
        padding: pixels of padding on each side before the crop.
        padding_mode: values of the padding: ``constant`` (black), ``edge``, ``reflect`` or ``symmetric``.

    Shape:
        images (..., C, H, W) -> (..., C, *image_size); a single image or one batch dimension

    Raises:
        UserError: the padded image is smaller than the crop.
    """

    def __init__(
        self,
        image_size: int | Sequence[int],
        padding: int = 0,
        padding_mode: Literal["constant", "edge", "reflect", "symmetric"] = "constant",
    ) -> None:
        super().__init__()
        self.size = [image_size] * 2 if isinstance(image_size, int) else list(image_size)
        if len(self.size) != 2 or min(self.size) < 1 or padding < 0:
            raise UserError(f"CropEach: image_size {image_size} and padding {padding} make no crop")
        self.padding, self.padding_mode = padding, padding_mode

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The upper left corner of each crop, (B,)."""
        images = flat_inputs[0]
        count, (height, width) = images.shape[:-3].numel(), images.shape[-2:]
        free = [side + 2 * self.padding - crop for side, crop in zip((height, width), self.size, strict=True)]
        if min(free) < 0:
            raise UserError(
                f"CropEach: images of {height}x{width} with padding {self.padding} are smaller than "
                f"the crop of {self.size[0]}x{self.size[1]}; give the data a larger resize"
            )
        top, left = (torch.randint(n + 1, (count,), device=images.device) for n in free)
        return {"top": top, "left": left}

    def pad(self, images: Tensor) -> Tensor:
        """Images with ``padding`` around them."""
        return functional.pad(images, [self.padding] * 4, padding_mode=self.padding_mode) if self.padding else images

    def places(self, params: dict[str, Any], height: int, width: int) -> tuple[Tensor, Tensor]:
        """Rows from each crop's top, and columns from its left."""
        corners = params["top"][:, None], params["left"][:, None]
        rows, columns = (c + torch.arange(n, device=c.device) for c, n in zip(corners, self.size, strict=True))
        return rows, columns


class FlipEach(GeometricTransform):
    """Horizontal flips, drawn for each image with a probability.

    Args:
        p: the probability.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise UserError(f"FlipEach: p is a probability, not {p}")
        self.p = p

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Which images are flipped, (B,)."""
        images = flat_inputs[0]
        return {"flip": torch.rand(images.shape[:-3].numel(), device=images.device) < self.p}

    def places(self, params: dict[str, Any], height: int, width: int) -> tuple[Tensor, Tensor]:
        """All rows; columns in order or reversed."""
        return reflected_places(params["flip"], height, width)


def hash_pixels(values: Tensor, seed: int) -> Tensor:
    """Pseudo-random integers, hashed from the value and the seed; SplitMix64's steps (Steele et al. 2014)."""
    z = values + (seed + 1) % 2**31 * 0x9E3779B9
    for factor in (0x3F58476D1CE4E5B9, 0x14D049BB133111EB):  # of 63 bits, since torch's integers are signed
        z = (z ^ (z >> 30)) * factor
    return z ^ (z >> 31)


def reflected_places(flip: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """All rows (B, H); columns (B, W) in order, or reversed if ``flip`` (B,) is true."""
    columns = torch.arange(width, device=flip.device)
    rows = torch.arange(height, device=flip.device).expand(len(flip), -1)
    return rows, torch.where(flip[:, None], columns.flip(0), columns)


class FlipAlternately(GeometricTransform):
    """Horizontal flips of each image in every other epoch: half of the images, drawn at random, in the first.

    Jordan 2024 ("94% on CIFAR-10 in 3.29 Seconds on a Single GPU", section 3.6). Two epochs in a row then show both
    versions of each image, where independent draws repeat one in half of the cases. An image is identified by its
    pixels, so this must be the first transform; which images are flipped follows from pixels, seed and epoch alone.
    """

    must_be_first = True

    def __init__(self) -> None:
        super().__init__()
        self.epoch, self.seed = 0, 0

    def start_epoch(self, epoch: int, seed: int) -> None:
        """Store both; which images are flipped follows from them."""
        self.epoch, self.seed = epoch, seed

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Which images are flipped, (B,)."""
        images = flat_inputs[0]
        pixels = (images * 255).round() if images.is_floating_point() else images
        total = pixels.reshape(images.shape[:-3].numel(), -1).sum(1, dtype=torch.int64)
        return {"flip": (hash_pixels(total, self.seed) + self.epoch) % 2 == 1}

    def places(self, params: dict[str, Any], height: int, width: int) -> tuple[Tensor, Tensor]:
        """All rows; columns in order or reversed."""
        return reflected_places(params["flip"], height, width)


class PCAColor(EachTransform):
    """Shift the colour of each image along the principal components of the training set's pixels.

    Krizhevsky, Sutskever and Hinton 2012, section 4.1: to every pixel is added ``P (alpha * lambda)`` with the
    eigenvectors P and eigenvalues lambda of the covariance of pixel values, and alpha drawn once for each image and
    component. Deviations: pixels are in [0, 1] (the paper does not state their unit, and eigenvalues scale with its
    square), and the result is clamped to it.

    Args:
        std: standard deviation of alpha.
        eigenvalues: one per channel, of pixels in [0, 1]; default: both are computed from the training images.
        eigenvectors: the matrix P, one eigenvector per column.

    Shape:
        images: float in [0, 1], (..., C, H, W) -> the same
    """

    def __init__(
        self,
        std: float = 0.1,
        eigenvalues: list[float] | None = None,
        eigenvectors: list[list[float]] | None = None,
    ) -> None:
        super().__init__()
        if (eigenvalues is None) != (eigenvectors is None):
            raise UserError("PCAColor: give eigenvalues and eigenvectors together, or neither")
        self.std = std
        self.axes: Tensor | None = None
        if eigenvalues is not None and eigenvectors is not None:
            vectors = torch.tensor(eigenvectors)
            if vectors.shape != (len(eigenvalues),) * 2:
                raise UserError(f"PCAColor: {len(eigenvalues)} eigenvalues need as many eigenvectors of that length")
            self.axes = vectors * torch.tensor(eigenvalues)

    @property
    def needs_fit(self) -> bool:
        """Whether no components were given."""
        return self.axes is None

    def fit(self, images: Tensor) -> None:
        """Compute the components.

        Args:
            images: bytes, or floats in [0, 1], (N, C, H, W), of the training set.
        """
        eigenvalues, eigenvectors = torch.linalg.eigh(pixel_covariance(images))
        # A component's sign is the solver's choice; alpha is symmetric, but a resumed run must draw the same shift.
        signs = eigenvectors.sum(0).sign()
        self.axes = (eigenvectors * torch.where(signs == 0, 1, signs) * eigenvalues).float()

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """alpha, for each image and component."""
        images = flat_inputs[0]
        shape = (*images.shape[:-3], images.shape[-3])
        return {"alpha": torch.randn(shape, device=images.device, dtype=images.dtype) * self.std}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Images with shifted colours."""
        if self.axes is None:
            raise UserError("PCAColor has neither eigenvectors nor seen the training images: call fit first")
        if len(self.axes) != inpt.shape[-3]:
            raise UserError(f"PCAColor has {len(self.axes)} components, the images have {inpt.shape[-3]} channels")
        self.axes = self.axes.to(inpt.device)
        shift = params["alpha"] @ self.axes.T.to(inpt.dtype)
        return (inpt + shift[..., None, None]).clamp_(0, 1)
