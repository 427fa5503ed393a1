"""Feature maps of a frozen backbone, computed once and kept in a file: an epoch then takes the decoder's time alone."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.data import Dataset

from zoo.architectures.backbone_captioner import BackboneCaptioner
from zoo.data.base import data_root
from zoo.data.caption_data import CaptionData
from zoo.data.download import readable_size
from zoo.data.loading import Loader
from zoo.data.pixels import as_floats
from zoo.errors import UserError
from zoo.tasks.captioning import Captioning


class KeptFeatures(Callback):
    """Trains a captioner on the feature maps of its frozen backbone, which are computed once and kept in a file.

    The file lies in the folder ``features`` of the environment variable ``ZOO_DATA``'s folder, else of ``data``. Its
    name has the checksum of the backbone's weights, of the normalisation, and of the pictures and captions: another
    run with the same ones reads the file and starts at once, and whatever else changes makes another file. Nothing is
    deleted.

    A step is the same as on the pictures, up to rounding. Validation and test read the pictures. Training must see the
    same picture in every epoch: without augmentation, and without fresh scenes.

    Args:
        half: keep 16 bits a number instead of 32.
    """

    def __init__(self, half: bool = False) -> None:
        super().__init__()
        self.half = half

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the feature maps, or find them.

        Raises:
            UserError: the task, its network or its data can't be trained so.
        """
        data = trainer.datamodule  # type: ignore[attr-defined]
        network = _checked(pl_module, data)
        assert isinstance(pl_module, Captioning)
        path = data_root(None) / "features" / f"{type(data).__name__}-{self._checksum(pl_module, network, data)}.npy"
        if trainer.is_global_zero:
            known = path.is_file() and path.with_suffix(".json").is_file()
            if not known:
                self._compute(path, pl_module, network, data)
            size = readable_size(path.stat().st_size)
            print(f"feature maps {'read from' if known else 'kept in'} {path} ({size})", file=sys.stderr, flush=True)
        trainer.strategy.barrier("kept features")
        data.kept.samples = KeptMaps(path)
        pl_module.trains_on_maps = True

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the pictures back."""
        if isinstance(pl_module, Captioning):
            pl_module.trains_on_maps = False
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, CaptionData):
            data.kept.samples = None

    def _checksum(self, task: Captioning, network: BackboneCaptioner, data: CaptionData) -> str:
        digest = hashlib.sha256(f"{data.identity()} {network.stage} {self.half}".encode())
        normalisation = {f"normalize {name}": tensor for name, tensor in task.normalize.named_buffers()}
        for name, tensor in {**network.backbone.state_dict(), **normalisation}.items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def _compute(self, path: Path, task: Captioning, network: BackboneCaptioner, data: CaptionData) -> None:
        """Write the maps and the details beside them, and only then rename both to their final names."""
        samples = data.annotated("train")
        loader = Loader(samples, data.eval_batch_size, num_workers=data.num_workers, collate=list)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        details: list[Any] = []
        maps: Any = None
        modes = [(module, module.training) for module in network.modules()]
        network.eval()
        for batch in loader:
            found = self._maps(task, network, data, torch.stack([image for image, _ in batch]))
            if maps is None:
                dtype = np.float16 if self.half else np.float32
                shape = (len(samples), *found.shape[1:])
                maps = np.lib.format.open_memmap(partial, mode="w+", dtype=dtype, shape=shape)
            maps[len(details) : len(details) + len(batch)] = found.numpy()
            details += [one for _, one in batch]
        for module, training in modes:
            module.training = training
        maps.flush()
        path.with_suffix(".json").write_text(json.dumps(details), encoding="utf-8")
        partial.replace(path)

    @torch.no_grad()
    def _maps(self, task: Captioning, network: BackboneCaptioner, data: CaptionData, images: Tensor) -> Tensor:
        floats = as_floats(images.to(task.device), images.shape[-2:], data.dtype)
        with task.trainer.precision_plugin.forward_context():
            return network.maps(task.normalize(floats)).float().cpu()


def _checked(task: LightningModule, data: Any) -> BackboneCaptioner:
    """The network, if it and the data can be trained so."""
    network = getattr(task, "architecture", None)
    if not isinstance(task, Captioning) or not isinstance(network, BackboneCaptioner):
        raise UserError(f"KeptFeatures is for captioners over a backbone, not for {type(network or task).__name__}")
    if trained := next((name for name, p in network.backbone.named_parameters() if p.requires_grad), None):
        raise UserError(
            f"KeptFeatures needs a frozen backbone, but backbone.{trained} is trained: freeze it by "
            "--model.parameter_groups '[{pattern: ^backbone, frozen: true}]'"
        )
    if not isinstance(data, CaptionData) or not data.repeats_images:
        raise UserError(
            "KeptFeatures needs the same training images in every epoch: leave out data.augment and data.fresh"
        )
    return network


class KeptMaps(Dataset[tuple[Tensor, dict[str, Any]]]):
    """Feature maps with the details of their pictures, read from a file without holding it in memory.

    Args:
        path: the file; the details lie beside it.
    """

    def __init__(self, path: Path) -> None:
        self.maps = np.load(path, mmap_mode="r")
        self.details = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        return torch.from_numpy(np.array(self.maps[index], np.float32)), self.details[index]
