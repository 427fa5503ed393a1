from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from zoo.architectures.adain import AdaIN
from zoo.architectures.efficientnet_lite import EfficientNetLite0
from zoo.architectures.vgg import VGG
from zoo.errors import UserError

SMALL = partial(VGG, depth=11, width=0.125, norm="batch")


def network(**options):
    torch.manual_seed(0)
    made = AdaIN(**{"encoder": SMALL, "width": 2, **options}).double()
    for module in made.modules():  # statistics that are not those of a new network
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return made


def pictures(*size, count=2, seed=0):
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 7, generator=random).double()
    return (nn.functional.interpolate(coarse, size, mode="bilinear") + 0.1 * torch.rand(size).double()).clamp(0, 1)


def statistics(maps):
    values = maps.numpy().reshape(*maps.shape[:2], -1)
    return values.mean(2), values.std(2)


def test_mixed_maps_have_the_styles_statistics():
    made = network()
    content, style = made.encode(pictures(48, 64)), made.encode(pictures(80, 48, seed=1))
    mixed = made.mix(content, [style])
    assert [level.reduction for level in made.levels] == [16, 8, 4, 2, 1]
    for name, maps in mixed.items():
        (mean, std), (style_mean, style_std), (_, before) = map(statistics, (maps, style[name], content[name]))
        np.testing.assert_allclose(mean, style_mean, atol=1e-9)
        # A map without variation can't be given any: 1e-5 is added to both variances.
        np.testing.assert_allclose(std, np.sqrt((style_std**2 + 1e-5) * before**2 / (before**2 + 1e-5)), atol=1e-9)
        assert np.abs(before - style_std).max() > 1e-2
        # Nothing but a straight line for each channel: the content's own pattern.
        apart = [values - values.mean((2, 3), keepdim=True) for values in (maps, content[name])]
        cosine = nn.functional.cosine_similarity(*(values.flatten(2) for values in apart), dim=2)
        assert torch.allclose(cosine[torch.from_numpy(before > 1e-3)], torch.ones(()).double())


def test_strength_and_several_styles_mix_maps():
    """Section 6.5: between the content's maps and the renormalised ones, and between those of several styles."""
    made = network()
    content, first, second = (pictures(*size, seed=i) for i, size in enumerate([(32, 48), (64, 32), (48, 80)]))
    seen, one, two = (made.encode(images) for images in (content, first, second))
    name = made.levels[0].layer
    full, other = made.mix(seen, [one])[name], made.mix(seen, [two])[name]
    assert torch.allclose(made.mix(seen, [one], 0.3)[name], 0.3 * full + 0.7 * seen[name])
    assert torch.allclose(made.mix(seen, [one, two], 1.0, [0.25, 0.75])[name], 0.25 * full + 0.75 * other)
    assert torch.allclose(made.mix(seen, [one, two])[name], (full + other) / 2)
    with torch.no_grad():
        plain = made.decode(seen, (32, 48))
        assert torch.allclose(made(content, first, 0.0), plain)
        assert torch.allclose(made(content, content), plain, atol=1e-6)  # its own style
        assert torch.allclose(made(content, [first, second], 1.0, [1.0, 0.0]), made(content, first))
        assert not torch.allclose(made(content, first), plain, atol=1e-3)


def test_any_size_and_one_style_for_all():
    made = network()
    content, style = pictures(45, 71, count=3), pictures(64, 40, count=1, seed=1)
    with torch.no_grad():
        found = made(content, style)
        assert found.shape == (3, 3, 45, 71)
        assert torch.allclose(found[1:2], made(content[1:2], style))
        whole = made(nn.functional.pad(content, (0, 9, 0, 3), mode="reflect"), style)  # to cells of 16 pixels
    assert torch.allclose(found, whole[..., :45, :71])


def test_only_the_decoder_learns_and_the_encoder_stays_as_it_is():
    made = network().train()
    before = {name: t.clone() for name, t in made.encoder.state_dict().items()}
    assert not any(module.training for module in made.encoder.modules())
    made(pictures(32, 32), pictures(32, 32, seed=1)).square().sum().backward()
    learning = {name for name, p in made.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert learning == {name for name, p in made.named_parameters() if name.startswith("decoder.")}
    assert all(torch.equal(t, before[name]) for name, t in made.encoder.state_dict().items())


def test_the_encoder_sees_normalised_pictures_in_full_precision():
    made = AdaIN(partial(EfficientNetLite0, weights=None), ["network.blocks.1.0.bn1"], width=2, blur_strides=False)
    images = pictures(32, 32).float()
    direct = made.encoder.features((images - 0.5) / 0.5, ["network.blocks.1.0.bn1", "network.bn1"])
    with torch.autocast("cpu", torch.bfloat16):
        found = made.encode(images, ["network.bn1"])
        decoded = made.decode(found, (32, 32))
    assert all(torch.equal(found[name], maps) for name, maps in direct.items())
    assert decoded.dtype == torch.float32
    assert made.levels[0] == ("network.blocks.1.0.bn1", 96, 2)


def test_nothing_is_normalised_in_the_decoder():
    """A map times a constant is what comes through: of a picture that is a channel's sign, say; no norm layer."""
    made = network()
    kinds = {type(module).__name__ for module in made.decoder.modules()} - {"Decoder", "ModuleDict", "Sequential"}
    assert kinds == {"MirroredConv", "ReLU"}
    maps = [
        torch.rand(1, level.channels, 32 // level.reduction, 32 // level.reduction).double() for level in made.levels
    ]
    for module in made.decoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.bias)
    assert torch.allclose(made.decoder([3 * m for m in maps]), 3 * made.decoder(maps))


def test_mistakes_end_in_one_line():
    for options, said in (
        ({"width": 0}, "width must be at least 1"),
        ({"layers": ["layers.relu9_1"]}, "VGG has no layer layers.relu9_1"),
        ({"layers": []}, "at least one"),
        ({"layers": ["layers.relu2_1", "layers.conv2_1"]}, "a different resolution"),
    ):
        with pytest.raises(UserError, match=said):
            network(**options)
    made = network()
    with pytest.raises(UserError, match="2 styles have 1 weights"):
        made(pictures(32, 32), [pictures(32, 32)] * 2, 1.0, [1.0])
    with pytest.raises(UserError, match="at least 16×16 pixels, not 10×32"):
        made(pictures(10, 32), pictures(32, 32))
