"""The maps that are shown are those that the network computes for the image."""

import numpy as np
import pytest
import torch

from zoo.architectures.alexnet import AlexNet
from zoo.errors import UserError
from zoo.facts import Facts
from zoo.insight.activations import activations, map_pictures
from zoo.insight.subject import Subject
from zoo.tasks.normalize import Normalize


@pytest.fixture
def subject() -> Subject:
    torch.manual_seed(0)
    network = AlexNet(num_classes=4, image_size=[32, 32], width=0.0625).eval()
    facts = Facts(num_classes=4, in_channels=3, image_size=[32, 32], mean=[0.5] * 3, std=[0.2] * 3)
    return Subject(network, facts, Normalize(network, facts), "test")


def test_numbers_are_those_of_the_layers_run_by_hand(subject):
    report = activations(subject, layers=["layers.conv1", "layers.act1"])
    conv, act = report.numbers["layers"]
    images = (subject.image(None)[None] - 0.5) / 0.2
    maps = subject.network.layers.conv1(images)[0]  # before the ReLU writes over it
    assert conv["shape"] == list(maps.shape)
    assert conv["mean_by_map"] == pytest.approx(maps.mean((1, 2)).tolist(), rel=1e-4)
    assert act["zeros"] == pytest.approx((maps <= 0).float().mean().item())
    assert act["dead_maps"] == int((maps.amax((1, 2)) <= 0).sum())
    assert set(report.pictures) == {"activations", "activations-layers.conv1", "activations-layers.act1"}


def test_the_stages_are_the_default(subject):
    found = [one["layer"] for one in activations(subject).numbers["layers"]]
    assert found == [stage.layer for stage in subject.network.stages]


def test_zero_is_black_for_rectified_maps_and_middle_grey_for_signed_ones():
    maps = torch.zeros(2, 4, 4)
    maps[0, 0, 0] = 2
    drawn = [np.asarray(p)[..., 0] for p in map_pictures(maps, side=4)]
    assert drawn[0][0, 0] == 255
    assert drawn[0][1, 1] == drawn[1].max() == 0  # a map without values stays black: one scale for all
    maps[1, 0, 0] = -2
    drawn = [np.asarray(p)[..., 0] for p in map_pictures(maps, side=4)]
    assert (drawn[0][0, 0], drawn[1][0, 0], drawn[0][1, 1]) == (255, 0, 128)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ("layers.conf1", r"AlexNet has no layer layers.conf1.*layers.conv1"),
        ("classifier.fc6", r"layer classifier.fc6 gives no feature maps"),
    ],
)
def test_wrong_layers_end_in_a_line(subject, layer, says):
    with pytest.raises(UserError, match=says):
        activations(subject, layers=[layer])
