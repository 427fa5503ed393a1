"""VGG. Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2015.

Nothing but 3×3 convolutions, ReLU and 2×2 pooling, in five groups, then three fully connected layers: configurations A,
B, D and E of table 1 are depths 11, 13, 16 and 19. Layers have the names that the literature on style and texture
gives them: ``layers.conv4_2`` is the second convolution of the fourth group, ``layers.relu4_2`` and ``layers.pool4``
follow.

Deviations and readings:
- The paper drew weights from N(0, 0.01) (a variance), let a trained network A lend its layers to the deeper ones, and
  later found that Glorot and Bengio's (2010) initialisation needs no such loan (section 3.1). The default is theirs,
  with the factor 2 that ReLU needs: ``init: compromise``. torchvision takes ReLU's fan-out for convolutions and a
  deviation of 0.01 for the rest.
- The last map is averaged to 7×7 cells whatever the image's size, as in torchvision; ``pooled_size`` chooses fewer for
  small images, where most of the weights would see copies of one cell.
- Average pooling is Gatys, Ecker and Bethge's (2015) for synthesis; batch norm is torchvision's. The paper has neither,
  nor A-LRN and C of table 1 a place here.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.architectures.base import Architecture, Stage, check_size, scaled
from zoo.errors import UserError
from zoo.initialisation import Init, initialise

# Table 1: convolutions in each group, by depth, and their channels.
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
CHANNELS = (64, 128, 256, 512, 512)
HIDDEN = 4096
SMALLEST = 2 ** len(CHANNELS)


class VGG(Architecture):
    """3×3 convolutions and pooling; 138,357,544 parameters at depth 16, 143,667,240 at 19, both at 1,000 classes.

    torchvision's weights load as they are, with batch norm or without; see ``rename_torchvision``.

    Args:
        num_classes: length of the output; 0 leaves the fully connected layers out, for a backbone.
        in_channels: channels of the images.
        depth: 11, 13, 16 or 19 layers with weights.
        width: factor on every hidden layer's channels.
        norm: batch norm behind every convolution; the paper has none.
        pooling: ``max``, or ``average`` for synthesis.
        pooled_size: cells along a side of the map that the fully connected layers see.
        dropout: of the first two fully connected layers' outputs; 0 for none.
        init: see ``zoo.initialisation.initialise``; Glorot and Bengio's for ReLU where nothing is said.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes), or the last map (B, C', H // 32, W // 32) without
        classes

    Raises:
        UserError: a number is out of range, or an image is smaller than 32×32.
    """

    example: ClassVar[dict[str, Any]] = {"num_classes": 4, "depth": 11, "width": 0.0625, "norm": "batch"}

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        depth: Literal[11, 13, 16, 19] = 16,
        width: float = 1.0,
        norm: Literal["batch", "none"] = "none",
        pooling: Literal["max", "average"] = "max",
        pooled_size: int = 7,
        dropout: float = 0.5,
        init: Init = "compromise",
    ) -> None:
        super().__init__()
        _check(num_classes, in_channels, depth, width, pooled_size, dropout)
        self.depth, self.pooled_size = depth, pooled_size
        self.layers = nn.Sequential()
        self._stages: list[Stage] = []
        channels = self._build_layers(in_channels, width, norm == "batch", pooling)
        cells, hidden = pooled_size**2, scaled(HIDDEN, width)
        self.classifier = _head(channels * cells, hidden, num_classes, dropout) if num_classes else None
        initialise(self, init, "relu", normalised=norm == "batch")
        self.register_load_state_dict_pre_hook(rename_torchvision)

    def _build_layers(self, channels: int, width: float, normed: bool, pooling: str) -> int:
        for group, (count, filters) in enumerate(zip(CONVOLUTIONS[self.depth], CHANNELS, strict=True), start=1):
            for i in range(1, count + 1):
                place, outputs = f"{group}_{i}", scaled(filters, width)
                self.layers.add_module(f"conv{place}", nn.Conv2d(channels, outputs, 3, padding=1))
                if normed:
                    self.layers.add_module(f"norm{place}", nn.BatchNorm2d(outputs))
                self.layers.add_module(f"relu{place}", nn.ReLU(inplace=True))
                channels = outputs
            self._stages.append(Stage(f"layers.relu{place}", channels, 2 ** (group - 1)))
            self.layers.add_module(f"pool{group}", nn.MaxPool2d(2) if pooling == "max" else nn.AvgPool2d(2))
        self._stages.append(Stage(f"layers.pool{group}", channels, 2**group))
        return channels

    @property
    def stages(self) -> list[Stage]:
        """The last layer in front of each pooling, and the last pooling."""
        return self._stages

    def forward(self, images: Tensor) -> Tensor:
        """Logits, or the last map where there are no classes."""
        check_size("VGG", images, SMALLEST)
        maps = self.layers(images)
        if self.classifier is None:
            return maps
        return self.classifier(F.adaptive_avg_pool2d(maps, self.pooled_size).flatten(1))


def _head(features: int, hidden: int, num_classes: int, dropout: float) -> nn.Sequential:
    head = nn.Sequential()
    for name, inputs in (("6", features), ("7", hidden)):
        head.add_module(f"fc{name}", nn.Linear(inputs, hidden))
        head.add_module(f"relu{name}", nn.ReLU(inplace=True))
        head.add_module(f"drop{name}", nn.Dropout(dropout))
    head.add_module("fc8", nn.Linear(hidden, num_classes))
    return head


def rename_torchvision(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename torchvision's tensors in place, whose layers have numbers: ``features.0.weight``, ``classifier.6.bias``.

    A hook in front of ``load_state_dict``, so that this is all that it takes::

        VGG().load_state_dict(torchvision.models.VGG16_Weights.DEFAULT.get_state_dict())
    """
    for theirs, own in (("features", "layers"), ("classifier", "classifier")):
        names = [name for name, _ in getattr(module, own).named_children()] if getattr(module, own) else []
        for i, name in enumerate(names):
            for tensor in [t for t in state if t.startswith(f"{prefix}{theirs}.{i}.")]:
                state[f"{prefix}{own}.{name}.{tensor.rpartition('.')[2]}"] = state.pop(tensor)


def _check(num_classes: int, in_channels: int, depth: int, width: float, pooled_size: int, dropout: float) -> None:
    if depth not in CONVOLUTIONS:
        raise UserError(f"VGG has a depth of 11, 13, 16 or 19, not {depth}")
    if num_classes < 0 or in_channels < 1 or pooled_size < 1:
        raise UserError("VGG: num_classes must be at least 0, in_channels and pooled_size at least 1")
    if not width > 0:
        raise UserError(f"VGG: width must be above 0, not {width}")
    if not 0 <= dropout < 1:
        raise UserError(f"VGG: dropout must be at least 0 and below 1, not {dropout}")
