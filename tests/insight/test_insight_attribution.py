"""Attributions obey their axioms, agree with hand-made gradients, and light the cat."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from zoo.architectures.alexnet import AlexNet
from zoo.architectures.efficientnet_lite import EfficientNetLite0
from zoo.errors import UserError
from zoo.facts import Facts
from zoo.insight.attribution import attribution, class_index, default_layer, grad_cam, integrated_gradients, usable
from zoo.insight.subject import Subject
from zoo.tasks.normalize import Normalize

NAMES = ["tabby, tabby cat", "tiger cat", "Egyptian cat", "7"]


class Toy(nn.Module):
    """Maps, an in-place ReLU, and a mean: Grad-CAM can be worked out by hand."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, 3)
        self.act = nn.ReLU(inplace=True)
        self.fc = nn.Linear(5, 4)

    def forward(self, images):
        return self.fc(self.act(self.conv(images)).mean((2, 3)))


def test_grad_cam_is_the_papers_formula_despite_work_in_place():
    network, images = Toy(), torch.rand(1, 3, 10, 10)
    with usable(network):
        found = grad_cam(network, images, 2, network.conv)
    maps = network.conv(images)
    weights = ((maps > 0).float() * network.fc.weight[2][:, None, None] / 64).mean((2, 3))  # equations 1 and 2
    expected = (weights[..., None, None] * maps).sum(1, keepdim=True).relu()
    expected = nn.functional.interpolate(expected, (10, 10), mode="bilinear")[0, 0]
    assert torch.allclose(found, (expected / expected.max()).detach(), atol=1e-5)
    assert network.act.inplace


def test_integrated_gradients_are_complete_and_exact_for_a_linear_network():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    images = torch.rand(1, 3, 2, 2)
    found = integrated_gradients(linear, images, 1)
    expected = linear[1].weight[1] * images.flatten()  # w · (x - 0)
    assert torch.allclose(found.attributions.flatten(), expected, atol=1e-5)
    deep = integrated_gradients(Toy(), torch.rand(1, 3, 10, 10), 1)
    assert deep.total == pytest.approx(deep.difference, rel=0.02, abs=1e-3)
    assert abs(deep.difference) > 1e-3


@pytest.fixture
def subject() -> Subject:
    torch.manual_seed(0)
    network = AlexNet(num_classes=4, image_size=[64, 64], width=0.0625, init="backward").eval()
    facts = Facts(num_classes=4, in_channels=3, image_size=[64, 64], class_names=NAMES)
    return Subject(network, facts, Normalize(network, facts), "test")


def test_report_names_the_class_and_the_last_layer_with_places(subject):
    report = attribution(subject, which="egyptian cat")
    assert (report.numbers["class"], report.numbers["index"]) == ("Egyptian cat", 2)
    assert report.numbers["grad_cam"]["layer"] == "layers.pool5"  # 3×3 at this size
    whole = report.numbers["integrated_gradients"]
    assert whole["sum"] == pytest.approx(whole["difference"], rel=0.05, abs=1e-3)
    logits = subject.network(subject.image(None)[None])
    assert report.numbers["confidence"] == pytest.approx(logits.softmax(1)[0, 2].item(), rel=1e-4)
    assert attribution(subject).numbers["index"] == logits.argmax().item()


@pytest.mark.parametrize(("which", "index"), [("2", 2), ("tabby cat", 0), ("Tiger Cat", 1), ("7", 3)])
def test_classes_have_numbers_and_names(which, index):
    assert class_index(which, NAMES) == index


@pytest.mark.parametrize(
    ("which", "says"),
    [
        ("4", r"the classes 0 to 3"),
        ("-1", r"0 to 3"),
        ("egiptian cat", r"no class .*egyptian cat"),
        ("zzz", r"there are "),
    ],
)
def test_wrong_classes_end_in_a_line(which, says):
    with pytest.raises(UserError, match=says):
        class_index(which, NAMES)


def test_what_is_no_classifier_or_gives_no_maps_is_told(subject):
    with pytest.raises(UserError, match=r"a feature map|can't use"):
        attribution(subject, layer="classifier.fc6")
    with pytest.raises(UserError, match=r"no layer layers.conv9"):
        attribution(subject, layer="layers.conv9")
    subject.facts["num_classes"] = 0
    with pytest.raises(UserError, match="without classes"):
        attribution(subject)
    subject.network.roles = ("segmenter",)
    with pytest.raises(UserError, match="not a classifier"):
        attribution(subject)


def test_the_cat_comes_with_a_package_and_may_be_seen_whole(subject):
    from skimage.data import chelsea

    photograph = torch.from_numpy(chelsea()).movedim(2, 0) / 255
    found = subject.image(None)
    expected = nn.functional.interpolate(photograph[None, :, :, 75:375], (64, 64), mode="bilinear", antialias=True)[0]
    assert (found - expected).abs().mean() < 0.01
    subject.network.classifier = None  # a network that takes any size
    assert subject.image(None, whole=True).shape == (3, 64, 96)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90°
    Image.new("RGB", (96, 64)).save("turned.jpg", exif=exif)
    assert subject.image("turned.jpg", whole=True).shape == (3, 96, 64)
    Path("broken.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"broken.jpg can't be read"):
        subject.image("broken.jpg", whole=True)
    subject.facts["in_channels"] = 1
    assert subject.image(None).shape == (1, 64, 64)


def test_the_cat_is_lit():
    """Two thirds of Grad-CAM's heat and its peak lie on the face; beside the cat, at the right, it is dark."""
    network = EfficientNetLite0().eval()
    names = network.pretrained_classes({})
    facts = Facts(num_classes=1000, in_channels=3, image_size=[224, 224], class_names=names)
    found = Subject(network, facts, Normalize(network, facts), "test")
    images = found.image(None, whole=True)[None]
    classifier = nn.Sequential(found.normalize, network)
    target = int(classifier(images).argmax())
    assert "cat" in found.class_names[target]
    with usable(network):
        heat = grad_cam(classifier, images, target, network.get_submodule(default_layer(network, images)))
    height, width = heat.shape
    face = torch.zeros_like(heat, dtype=torch.bool)
    face[height // 16 : height * 15 // 16, width // 8 : width * 13 // 16] = True
    beside = heat[:, width * 15 // 16 :]
    assert heat[face].sum() > 0.65 * heat.sum()
    assert bool(face.flatten()[heat.argmax()])
    assert beside.mean() < 0.4 * heat[face].mean()
