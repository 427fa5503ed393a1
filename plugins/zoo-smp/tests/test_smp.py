"""What is special about this plugin; what every entry must do is asked by the zoo's own kit, in one line."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from safetensors.torch import save_file
from segmentation_models_pytorch.encoders import encoders, get_encoder
from torch import Tensor, nn
from torch.nn import functional as F
from zoo_smp import networks
from zoo_smp.adapter import SmpSegmenter, remove_unused
from zoo_smp.encoders import statistics

from zoo import registry
from zoo.architectures.base import parameter_count, skip_pretrained
from zoo.architectures.weights import load_tensors
from zoo.errors import UserError
from zoo.testing import conformance

test_everything = conformance("zoo-smp")

CLASSES = 4


def library_and_own(cls: type[SmpSegmenter], encoder: str, **options: Any) -> tuple[nn.Module, SmpSegmenter]:
    """The library's network with random weights and running statistics, and ours with its tensors, in evaluation."""
    torch.manual_seed(0)
    theirs = cls.library(encoder_name=encoder, encoder_weights=None, classes=CLASSES, **options).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    own = cls(encoder_name=encoder, options=options, num_classes=CLASSES).eval()
    report = load_tensors(own, theirs.state_dict())
    assert not report.left
    return theirs, own


@pytest.mark.parametrize(
    ("cls", "encoder"),
    [
        (networks.SmpUnet, "mit_b0"),
        (networks.SmpUnetPlusPlus, "tu-test_resnet"),
        (networks.SmpMAnet, "tu-test_efficientnet"),
        (networks.SmpLinknet, "resnet18"),
        (networks.SmpFPN, "tu-mobilenetv3_small_050"),
        (networks.SmpPSPNet, "resnet18"),
        (networks.SmpDeepLabV3, "tu-test_resnet"),
        (networks.SmpDeepLabV3Plus, "tu-test_resnet"),
        (networks.SmpPAN, "tu-test_resnet"),
        (networks.SmpUPerNet, "tu-test_resnet"),
        (networks.SmpSegFormer, "mit_b0"),
        (networks.SmpDPT, "tu-test_vit"),
    ],
)
@torch.no_grad()
def test_the_librarys_network_with_the_same_weights_agrees(cls: type[SmpSegmenter], encoder: str) -> None:
    options: dict[str, Any] = dict(cls.example.get("options", {}))
    if cls is networks.SmpDPT:
        options["img_size"] = 128
    theirs, own = library_and_own(cls, encoder, **options)
    images = torch.randn(1, 3, 128, 128)
    torch.testing.assert_close(own(images), theirs(images), rtol=0, atol=0)


@pytest.mark.parametrize("cls", [networks.SmpPSPNet, networks.SmpLinknet])
@torch.no_grad()
def test_other_sizes_are_padded_and_cropped(cls: type[SmpSegmenter]) -> None:
    theirs, own = library_and_own(cls, "tu-test_resnet")
    images = torch.randn(2, 3, 33, 50)
    found = own(images)
    assert found.shape == (2, CLASSES, 33, 50)
    multiple = theirs.encoder.output_stride
    height, width = -(-33 // multiple) * multiple, -(-50 // multiple) * multiple
    larger = torch.zeros(2, 3, height, width)
    larger[:, :, :33, :50] = images
    torch.testing.assert_close(found, theirs(larger)[:, :, :33, :50])
    with pytest.raises(RuntimeError, match="Wrong input shape"):  # the library's, which would refuse them
        theirs(images)


@torch.no_grad()
def test_coarse_logits_of_padded_images_are_resized() -> None:
    theirs, own = library_and_own(networks.SmpFPN, "tu-test_resnet", upsampling=1)
    images = torch.randn(1, 3, 64, 40)
    assert own(images[..., :32]).shape == (1, CLASSES, 16, 8)
    wanted = F.interpolate(theirs(F.pad(images, (0, 24))), scale_factor=4, mode="bilinear")[..., :40]
    torch.testing.assert_close(own(images), wanted)


def test_pan_pads_small_images() -> None:
    network = networks.SmpPAN(**networks.SmpPAN.example, num_classes=CLASSES).eval()
    assert network(torch.zeros(1, 3, 20, 130)).shape == (1, CLASSES, 20, 130)


def test_dpt_takes_other_sizes_than_it_was_built_for() -> None:
    network = networks.SmpDPT(**networks.SmpDPT.example, num_classes=CLASSES, image_size=[40, 70]).eval()
    assert network.network.encoder.model.pos_embed.shape[1] == 1 + 4 * 6  # of 64 by 96 pixels in patches of 16
    assert network(torch.zeros(1, 3, 40, 70)).shape == (1, CLASSES, 40, 70)
    assert network(torch.zeros(1, 3, 100, 33)).shape == (1, CLASSES, 100, 33)


def test_stages_that_no_output_depends_on_are_removed() -> None:
    options = {"psp_out_channels": 32}
    theirs, own = library_and_own(networks.SmpPSPNet, "resnet18", **options)
    kept = {name for name in theirs.state_dict() if not re.match(r"encoder\.layer[34]\.", name)}
    assert {name.removeprefix("network.") for name in own.state_dict()} == kept
    assert parameter_count(own) == parameter_count(theirs) - 10_493_440  # ResNet-18's two last stages


def test_removal_leaves_what_is_used_in_training_mode_and_its_gradients_empty() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused, self.norm = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, images: Tensor) -> Tensor:
            self.unused(images)
            return self.norm(self.used(images))

    network = Partly()
    remove_unused(network, torch.randn(2, 3, 4, 4))
    assert isinstance(network.unused, nn.Identity)
    assert isinstance(network.used, nn.Conv2d)
    assert network.training
    assert not network.norm.running_mean.any()
    assert all(p.grad is None for p in network.parameters())


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The hub's cache with weights of ResNet-18, as a download leaves them; and no internet."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", _no_internet)
    settings = encoders["resnet18"]["pretrained_settings"]["imagenet"]
    folder = tmp_path / f"models--{settings['repo_id'].replace('/', '--')}" / "snapshots" / settings["revision"]
    folder.mkdir(parents=True)
    torch.manual_seed(5)
    weights = get_encoder("resnet18").state_dict()
    # The library drops the classifier while it loads, and fails without one.
    classifier = {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    save_file({name: tensor.contiguous() for name, tensor in {**weights, **classifier}.items()}, folder / OWN_WEIGHTS)
    (folder / "config.json").write_text("{}")
    return weights


OWN_WEIGHTS = "model.safetensors"


def _no_internet(*args: Any, **kwargs: Any) -> None:
    raise OSError("no route to host")


@pytest.mark.parametrize("channels", [1, 3])
def test_pretrained_weights_are_loaded_with_their_statistics(cached: dict[str, Tensor], channels: int) -> None:
    network = networks.SmpFPN("resnet18", "imagenet", in_channels=channels)
    loaded = network.network.encoder
    torch.testing.assert_close(loaded.layer4[1].conv2.weight, cached["layer4.1.conv2.weight"])
    colours = cached["conv1.weight"] if channels == 3 else cached["conv1.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(loaded.conv1.weight, colours)
    assert network.mean == ((0.485, 0.456, 0.406) if channels == 3 else pytest.approx((0.449,)))
    assert network.std == ((0.229, 0.224, 0.225) if channels == 3 else pytest.approx((0.226,)))


def test_a_checkpoints_network_needs_no_weights_but_their_statistics(cached: dict[str, Tensor]) -> None:
    with skip_pretrained():
        network = networks.SmpFPN("resnet18", "ssl")  # which are not in the cache
    assert network.mean == (0.485, 0.456, 0.406)
    assert networks.SmpFPN("resnet18").mean is None


@pytest.mark.parametrize(("encoder", "weights"), [("resnet18", "ssl"), ("tu-resnet18.a1_in1k", "imagenet")])
def test_weights_that_cannot_be_downloaded(cached: dict[str, Tensor], encoder: str, weights: str) -> None:
    with pytest.raises(UserError, match=rf"{weights} weights of {encoder} could not be .* \(no route to host\)") as one:
        networks.SmpFPN(encoder, weights)
    assert "\n" not in str(one.value)


@pytest.mark.parametrize(
    ("encoder", "weights", "peer"),
    [
        ("resnet50", "swsl", "resnet50.fb_swsl_ig1b_ft_in1k"),
        ("dpn92", "imagenet+5k", "dpn92.mx_in1k"),
        ("xception", "imagenet", "legacy_xception.tf_in1k"),
        ("inceptionv4", "imagenet", "inception_v4.tf_in1k"),
        ("inceptionresnetv2", "imagenet+background", "inception_resnet_v2.tf_in1k"),
        ("efficientnet-b3", "advprop", "tf_efficientnet_b3.ap_in1k"),
        ("efficientnet-b3", "imagenet", "tf_efficientnet_b3.aa_in1k"),
        ("timm-efficientnet-b0", "noisy-student", "tf_efficientnet_b0.ns_jft_in1k"),
        ("timm-tf_efficientnet_lite4", "imagenet", "tf_efficientnet_lite4.in1k"),
        ("tu-tf_efficientnet_lite0", "imagenet", "tf_efficientnet_lite0.in1k"),
    ],
)
def test_statistics_are_those_of_timms_weights_of_the_same_origin(encoder: str, weights: str, peer: str) -> None:
    cfg = timm.get_pretrained_cfg(peer)
    assert statistics(encoder, weights) == (cfg.mean, cfg.std)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encoder_name": "resnet19"}, "has no encoder resnet19; did you mean resnet18"),
        ({"encoder_name": "tu-resnet18x"}, "timm has no network resnet18x; did you mean"),
        ({"encoder_name": "tu-resnet18.a9_in1k"}, "timm has no weights resnet18.a9_in1k; did you mean"),
        ({"encoder_name": "resnet18", "encoder_weights": "a1"}, "there are: imagenet, ssl, swsl"),
        ({"encoder_name": "tu-resnet18.a1_in1k", "encoder_weights": "a1_in1k"}, "give imagenet, not a1_in1k"),
        ({"encoder_name": "tu-resnet18d_x"}, "timm has no network"),
        ({"encoder_name": "mit_b0"}, r"SmpUnetPlusPlus can't be built over mit_b0 with .*: UnetPlusPlus is not"),
        (
            {"encoder_name": "resnet18", "options": {"decoder_chanels": [1]}},
            "chanels; did you mean decoder_channels",
        ),
        ({"encoder_name": "tu-test_resnet", "options": {"width": 3}}, "can't be built over tu-test_resnet .*'width'"),
        ({"options": {"activation": "softmax"}}, "options can't have activation"),
        ({"options": {"checkpoint_path": "x"}}, "options can't have checkpoint_path"),
        ({"num_classes": 0}, "num_classes and in_channels must be at least 1"),
    ],
)
def test_mistakes_end_in_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as one:
        networks.SmpUnetPlusPlus(**arguments)
    assert "\n" not in str(one.value)


@pytest.mark.parametrize(("encoder", "reason"), [("tu-test_resnet", "dynamic_img_size"), ("resnet18", "Only Timm")])
def test_dpt_over_a_network_without_patches_is_refused(encoder: str, reason: str) -> None:
    with pytest.raises(UserError, match=rf"SmpDPT can't be built over {encoder} .*{reason}"):
        networks.SmpDPT(encoder, image_size=[32, 32])


def test_every_network_of_the_library_is_registered() -> None:
    """So that one that a later version adds is noticed."""
    names = {entry.name for entry in registry.entries() if entry.package == "zoo-smp"}
    registered = {vars(networks)[name].library for name in names}
    assert registered == set(smp.MODEL_ARCHITECTURES_MAPPING.values()) - {None}


def main(*argv: str) -> int:
    from zoo.__main__ import main as run

    return run(list(argv))


@pytest.mark.slow
def test_the_recipe_trains_and_its_network_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    few: Sequence[str] = ("--data.train_size=32", "--data.val_size=4", "--data.test_size=4", "--trainer.max_epochs=1")
    assert registry.find_recipe("smp_segmentation") == registry.find_recipe("zoo-smp:smp_segmentation")
    assert main("fit", "--config", "smp_segmentation", "--trainer.logger=false", *few) == 0
    (checkpoint,) = Path("runs/smp_segmentation").glob("*/checkpoints/last.ckpt")
    assert main("export", "--ckpt_path", str(checkpoint), "--out", "network.onnx") == 0

    import zoo

    images = torch.rand(1, 3, 128, 128)
    session = onnxruntime.InferenceSession("network.onnx")
    (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        wanted = zoo.load(checkpoint).eval()(images)
    torch.testing.assert_close(torch.from_numpy(logits), wanted, rtol=1e-3, atol=1e-3)
