"""Base of image data sets for any task: the prediction of the user's own pictures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.data.base import Data
from zoo.data.files import matching_files
from zoo.data.pixels import as_floats
from zoo.data.predicting import PredictFiles, SkipUnreadable, View, collate_native, collate_pictures
from zoo.data.walk import LeftOut
from zoo.errors import UserError


class ImageData(Data):
    """Base of image data sets.

    The task's ``predict_view`` chooses what prediction takes from a picture: the ``center`` or the ``whole``, at
    the task's size, or the picture at its ``native`` size.

    Args:
        files: pictures to predict: a file, folder or glob pattern, or a list of these.
        batch_size: samples per training step, over all processes.
        eval_batch_size: the same for validation, test and prediction; default: ``batch_size``.
        num_workers: processes that read files.
        drop_last: leave out an incomplete last training batch.

    Attributes:
        in_channels: 1 grey, 3 colour, or more.

    Shape:
        prediction: images in [0, 1], (B, C, H, W), of the task's size and channels, or a list of (C, H, W) for a task
            that takes them at their native size; and a list of B ``Source``: names that record which part of a file an
            image is
    """

    predicts_files: ClassVar[bool] = True
    in_channels: int = 3

    may_change: ClassVar[tuple[str, ...]] = ("files",)

    def __init__(
        self,
        files: list[str] | str | None = None,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, drop_last)
        self.files = [files] if isinstance(files, str) else files
        self.unreadable: list[str] = []

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the images that the task gets."""
        dtype: Any = self.trainer.lightning_module.dtype if self.trainer else torch.get_default_dtype()
        return dtype

    # Prediction

    @property
    def view(self) -> View:
        """The task's ``predict_view``; without an ``image_size``, pictures keep their own."""
        module: Any = self.trainer.lightning_module if self.trainer else None
        sized = "image_size" in self._facts_to_predict
        return "native" if not sized else "center" if module is None else module.predict_view

    @property
    def _facts_to_predict(self) -> dict[str, Any]:
        """The data's facts, and those of the task, which precede."""
        module: Any = self.trainer.lightning_module if self.trainer else None
        return {**self.facts, **(module.facts or {} if module is not None else {})}

    def size_to_predict(self, size: Sequence[int]) -> list[int]:
        """Height and width that pictures are resized to for a task of this size."""
        return list(size)

    @property
    def resizing_to_predict(self) -> tuple[list[int] | None, int | None]:
        """What pictures are resized to for a task that takes them as they are: a size, or a longer side at most.

        Data that resize the pictures they train on do the same here; as it stands, nothing.
        """
        return None, None

    def predict_samples(self) -> PredictFiles | None:
        """The ``files`` in the task's view; None if there are none.

        Raises:
            UserError: no file matches, or the task has a number of channels that pictures can't have.
        """
        if not self.files:
            return None
        facts = self._facts_to_predict
        if facts["in_channels"] not in (1, 3):
            raise UserError(f"the task wants {facts['in_channels']} channels; picture files have 1 or 3")
        native = (
            self.resizing_to_predict if self.view == "native" else (self.size_to_predict(facts["image_size"]), None)
        )
        left_out = LeftOut()
        paths = matching_files(self.files, left_out=left_out)
        if str(left_out) and self.trainer is not None and self.trainer.is_global_zero:
            print(f"left out of data.files: {left_out}", file=sys.stderr, flush=True)
        size, longest = native
        return PredictFiles(paths, size, facts["in_channels"], self.view, self.files, longest)

    def predict_dataloader(self) -> Any:
        """The pictures of ``files`` that can be read; the others are printed to stderr and listed in ``unreadable``.

        Raises:
            UserError: there are no ``files``, or none matches.
        """
        if not self.files:
            raise UserError("there is nothing to predict: give pictures by --data.files 'photos/*.jpg'")
        self.unreadable = []
        loader: Any = self.loader("predict")
        loader.collate = collate_native if self.view == "native" else collate_pictures
        return SkipUnreadable(loader, self.unreadable)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Pictures to predict as floats in [0, 1] of the module's dtype."""
        images, sources = batch
        if isinstance(images, Tensor):
            return as_floats(images, images.shape[-2:], self.dtype), sources
        return [as_floats(image, image.shape[-2:], self.dtype) for image in images], sources
