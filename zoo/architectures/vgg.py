"""VGG. Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2015.

Nothing but 3×3 convolutions, ReLU and 2×2 pooling, in five groups, then three fully connected layers: configurations A,
B, D and E of table 1 are depths 11, 13, 16 and 19. Layers have the names used in the literature on style transfer:
``layers.conv4_2`` is the second convolution of the fourth group, followed by ``layers.relu4_2`` and ``layers.pool4``.

Deviations and readings:
- The paper drew weights from N(0, 0.01) (a variance), initialised deeper networks with layers of a trained network
  A, and later found that Glorot and Bengio's (2010) initialisation makes this unnecessary (section 3.1). The default is
  theirs, with the factor 2 for ReLU: ``init: compromise``. torchvision uses He initialisation with fan-out for
  convolutions and a standard deviation of 0.01 for the rest.
- The last feature map is average-pooled to 7×7 for any image size, as in torchvision; ``pooled_size`` chooses a smaller
  one for small images, where most of the weights would see copies of one pixel.
- Average pooling is Gatys, Ecker and Bethge's (2015) for synthesis; batch norm is torchvision's. The paper has neither.
- Configurations A-LRN and C of table 1 are not implemented.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.architectures.base import Architecture, Stage, by_channel, check_size, scaled, should_load_pretrained
from zoo.architectures.initialisation import Init, initialise
from zoo.architectures.weights import load_tensors
from zoo.errors import UserError

# Table 1: convolutions in each group, by depth, and their channels.
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
CHANNELS = (64, 128, 256, 512, 512)
HIDDEN = 4096
SMALLEST = 2 ** len(CHANNELS)


class VGG(Architecture):
    """3×3 convolutions and pooling; 138,357,544 parameters at depth 16, 143,667,240 at 19, both at 1,000 classes.

    torchvision's weights can be loaded directly, with or without batch norm; see ``rename_torchvision``.

    A task's checkpoint holds all weights, so loading it downloads nothing.

    Args:
        num_classes: length of the output; 0 omits the fully connected layers, for a backbone.
        in_channels: channels of the images.
        depth: 11, 13, 16 or 19 layers with weights.
        width: factor on every hidden layer's channels.
        norm: batch norm after every convolution; the paper has none.
        pooling: ``max``, or ``average`` for synthesis.
        pooled_size: side of the feature map that the fully connected layers take.
        dropout: of the first two fully connected layers' outputs; 0 for none.
        init: see ``zoo.architectures.initialisation.initialise``; by default Glorot and Bengio's for ReLU.
        weights: name of torchvision's weights for this depth and norm, such as ``IMAGENET1K_V1`` or ``DEFAULT``,
            downloaded once from download.pytorch.org; None for random weights. If there are not ImageNet's 1,000
            classes, the last layer is initialised anew; filters are adapted to other than three channels as in timm.

    Shape:
        images (B, C, H, W), normalised -> logits (B, num_classes), or the last feature map (B, C', H // 32, W // 32)
        without classes

    Raises:
        UserError: a number is out of range, an image is smaller than 32×32, or there are no such weights, they can't be
            downloaded or are for another width.
    """

    licence: ClassVar[str | None] = "BSD-3-Clause"
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
        weights: str | None = None,
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
        if weights is not None:
            if (width, pooled_size) != (1, 7):
                raise UserError("VGG: torchvision's weights are for width 1 and pooled_size 7")
            self._start_from(_pretrained(depth, norm, weights), in_channels)

    def _start_from(self, weights: Any, in_channels: int) -> None:
        """torchvision's tensors, except the last layer's if the number of classes differs."""
        from timm.models import adapt_input_conv

        from zoo.architectures.torchvision import fetching

        if self.classifier is not None and not weights.meta["categories"]:
            raise UserError(f"VGG: {weights} has no classifier, so it is for num_classes 0 only")
        transforms = weights.transforms()
        self.mean, self.std = (by_channel(values, in_channels) for values in (transforms.mean, transforms.std))
        if not should_load_pretrained():
            return
        with fetching(weights):
            given = dict(weights.get_state_dict(progress=False, check_hash=True))
        rename_torchvision(self, given, "")
        given["layers.conv1_1.weight"] = adapt_input_conv(in_channels, given["layers.conv1_1.weight"])
        load_tensors(self, given)

    @classmethod
    def pretrained_classes(cls, arguments: Mapping[str, Any]) -> list[str]:
        """The classes of the pretrained weights."""
        depth, norm, weights = (arguments.get(k, d) for k, d in (("depth", 16), ("norm", "none"), ("weights", None)))
        return list(_pretrained(depth, norm, weights).meta["categories"] or ()) if weights else []

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
        """The last layer before each pooling, and the last pooling."""
        return self._stages

    def forward(self, images: Tensor) -> Tensor:
        """Logits, or the last feature map without classes."""
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


def _pretrained(depth: int, norm: str, weights: str) -> Any:
    from zoo.architectures.torchvision import find_weights  # slow to import: it imports timm, too

    return find_weights(f"vgg{depth}{'_bn' if norm == 'batch' else ''}", weights)


def rename_torchvision(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename torchvision's tensors in place; its layers are numbered: ``features.0.weight``, ``classifier.6.bias``.

    Registered as a ``load_state_dict`` pre-hook, so that this works::

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
