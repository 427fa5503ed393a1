from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.optim import LBFGS, Adam

from zoo.architectures.base import Architecture, Stage
from zoo.architectures.efficientnet_lite import EfficientNetLite0
from zoo.architectures.frozen import blur, freeze
from zoo.data.art.pictures import ContentAndStyle, Textures
from zoo.errors import UserError
from zoo.facts import Facts
from zoo.functional.style import gram
from zoo.tasks.art.perceptual import MARGIN, layer_shares, resized
from zoo.tasks.art.pixels import lbfgs
from zoo.tasks.art.style_transfer import StyleTransfer
from zoo.tasks.art.texture import TextureSynthesis
from zoo.training.restore import load


class Small(Architecture):
    """Two convolutions, the second one strided."""

    mean, std = (0.5,), (0.25,)

    def __init__(self, in_channels: int = 3, num_classes: int = 0, activation: str = "tanh") -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 8, 3, stride=2, padding=1)

    @property
    def stages(self):
        return [Stage("first", 6, 1), Stage("second", 8, 2)]

    def forward(self, images):
        return self.second(torch.tanh(self.first(images)))


def trainer(folder, **options):
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return Trainer(accelerator="cpu", default_root_dir=folder, **{**quiet, **options})


def fitted(task, data, folder, **options):
    torch.manual_seed(0)
    trainer(folder, **options).fit(task, datamodule=data)
    return task


def texture(**options):
    return TextureSynthesis(Small, **{"scales": [0.5, 1.0], **options})


def textures(**options):
    return Textures(**{"texture": "ihc", "size": 32, "steps": 4, **options})


def pictures(**options):
    return ContentAndStyle(**{"content": "chelsea", "style": "ihc", "size": 32, "steps": 4, **options})


def built(task, data):
    torch.manual_seed(0)
    data.setup()
    task.hparams["facts"] = dict(data.facts)
    task.configure_model()
    return task


def edges(maps):
    return F.pad(maps, [1] * 4, mode="replicate")


def test_epochs_are_scales_and_the_optimiser_is_lbfgs(tmp_path):
    task = fitted(texture(), textures(), tmp_path)
    assert task.trainer.current_epoch == 2
    assert task.trainer.global_step == 8
    assert [tuple(image.shape) for image in task.images] == [(1, 3, 16, 16), (1, 3, 32, 32)]
    group = task.trainer.optimizers[1].param_groups[0]
    assert (group["history_size"], group["line_search_fn"], group["max_iter"]) == (10, "strong_wolfe", 10)
    assert not task.trainer.optimizers[0].state  # a finished scale keeps no history
    assert int(task.reached) == 1


def test_epochs_must_go_with_the_scales(tmp_path):
    with pytest.raises(UserError, match=r"model.scales has 2: trainer.max_epochs can't be 3"):
        fitted(texture(), textures(), tmp_path, max_epochs=3)
    task = fitted(texture(), textures(), tmp_path, max_epochs=1)
    assert int(task.reached) == 0
    assert task.result().shape == (1, 3, 32, 32)
    assert torch.equal(task.result(), resized(task.images[0].clamp(0, 1), [32, 32]).clamp(0, 1))
    for scales in ([], [1.0, 0.5], [0.5], [0.0, 1.0]):
        with pytest.raises(UserError, match="grow to 1"):
            texture(scales=scales)


def test_a_scale_begins_with_the_last_ones_picture(tmp_path):
    adam = partial(Adam, lr=1e-12)
    task = fitted(texture(optimizer=adam), textures(), tmp_path)
    begun = task.start(next(iter(textures().train_dataloader())), [16, 16])
    assert torch.allclose(task.images[0], begun, atol=1e-6)
    assert torch.allclose(task.images[1], resized(begun, [32, 32]).clamp(0, 1), atol=1e-6)


def test_a_step_of_adam_is_one_of_the_papers_gradient(tmp_path):
    """The first step against plain torch: network, normalisation, margin, Gram matrices and distance."""
    task = fitted(
        texture(optimizer=partial(torch.optim.SGD, lr=1.0), scales=[1.0], patch_weight=0.0, blur_strides=False),
        textures(steps=1, size=48),
        tmp_path,
    )
    (source,), _ = next(iter(textures(size=48).train_dataloader()))
    network = task.perceptual.double()

    def grams(x):
        x = (F.pad(x, [MARGIN] * 4, mode="reflect") - 0.5) / 0.25
        first = F.conv2d(edges(x), network.first.weight, network.first.bias)
        second = F.conv2d(edges(first.tanh()), network.second.weight, network.second.bias, stride=2)
        cut = [first[..., 32:-32, 32:-32], second[..., 16:-16, 16:-16]]
        return [torch.einsum("bihw,bjhw->bij", m, m) / m[0, 0].numel() for m in cut]

    x = task.start(([source], ["ihc"]), [48, 48]).double().requires_grad_()
    wanted = grams(source[None].double())
    loss = sum(((g - w) ** 2).sum() / (w**2).sum() for g, w in zip(grams(x), wanted, strict=True)) / 2
    (gradient,) = torch.autograd.grad(loss, x)
    assert gradient.abs().max() > 1e-4
    assert torch.allclose(task.images[0].double(), x - gradient, atol=1e-6)


def test_only_pixels_learn_and_the_network_only_looks(tmp_path):
    task = built(texture(), textures())
    before = {k: v.clone() for k, v in task.perceptual.state_dict().items()}
    task.train()
    assert not task.perceptual.training
    fitted(task, textures(), tmp_path)
    assert all(torch.equal(v, before[k]) for k, v in task.perceptual.state_dict().items())
    assert {n for n, p in task.named_parameters() if p.requires_grad} == {"images.0", "images.1"}


def test_the_checkpoint_stands_alone(tmp_path):
    from zoo.registry import entries  # the zoo's own network: a checkpoint names registered classes

    assert entries()
    from zoo.architectures.efficientnet_lite import EfficientNetLite0

    network = partial(EfficientNetLite0, weights=None)
    task = fitted(TextureSynthesis(network, layers={"network.bn1": 1.0}, scales=[1.0]), textures(steps=1), tmp_path)
    task.trainer.save_checkpoint(tmp_path / "end.ckpt")
    again = load(tmp_path / "end.ckpt")
    assert torch.equal(again.result(), task.result())
    data = textures()
    data.setup()
    batch = next(iter(data.test_dataloader()))
    found, expected = again.measured(batch), task.eval().measured(batch)
    assert found.keys() == expected.keys() >= {"gram", "gram_start", "gram_ratio", "histogram", "spectrum"}
    assert all(torch.allclose(found[k], expected[k]) for k in found)
    assert again.hparams["perceptual_weights"] is None


# Networks that look


def test_a_blurred_stride_sees_no_checkerboard():
    board = ((torch.arange(16)[:, None] + torch.arange(16)) % 2).float().expand(1, 3, -1, -1)
    assert torch.allclose(blur(board)[..., 2:-2, 2:-2], torch.tensor(0.5))
    assert torch.allclose(blur(torch.full((1, 2, 5, 5), 0.3)), torch.tensor(0.3))
    network = freeze(Small(), blur_strides=True)
    x = torch.rand(1, 3, 16, 16)
    middle = torch.tanh(network.first(x))
    expected = F.conv2d(edges(blur(middle)), network.second.weight, network.second.bias, stride=2)
    assert torch.allclose(network(x), expected)
    plain = freeze(Small(), blur_strides=False)
    assert not plain.second._forward_pre_hooks
    assert not any(p.requires_grad for p in plain.parameters())


def kept_by(run):
    """What ``run`` returns, and how many values are kept for its backward pass."""
    seen = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.setdefault(t.data_ptr(), t), lambda t: t):
        result = run()
    return result, sum(t.numel() for t in seen.values() if not isinstance(t, nn.Parameter))


@pytest.mark.parametrize("size", [64, 49])
def test_large_pictures_keep_their_blocks_inputs_only(size, monkeypatch):
    """The same maps and gradient in float64, from blocks that run twice, for less than half of what is kept."""
    layers = ["network.bn1", "network.blocks.1.1", "network.blocks.2.1.conv_dw", "network.blocks.4.2"]
    network = partial(EfficientNetLite0, weights=None)
    task = built(TextureSynthesis(network, layers=dict.fromkeys(layers, 1.0)), textures(size=size)).double()
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    found, kept = [], []
    for large in (10**9, 1):
        monkeypatch.setattr("zoo.tasks.art.perceptual.LARGE", large)
        maps, values = kept_by(lambda: task.maps(image, layers))
        kept.append(values)
        loss = sum(m.square().sum() for m in maps.values())
        found.append([*maps.values(), *torch.autograd.grad(loss, image)])
    for plain, lean in zip(*found, strict=True):
        torch.testing.assert_close(lean, plain, rtol=1e-9, atol=1e-12)
    assert kept[1] < kept[0] / 2
    assert not any("forward" in module.__dict__ for module in task.perceptual.modules())


def test_weights_come_from_any_checkpoint_with_such_a_network(tmp_path):
    trained, file = Small(), str(tmp_path / "classifier.ckpt")
    tensors = {f"architecture.{k}": v for k, v in trained.state_dict().items()}
    said = {"facts": {"mean": [0.1], "std": [0.3], "num_classes": 4}}
    torch.save({"state_dict": {**tensors, "other.weight": torch.ones(1)}, "hyper_parameters": said}, file)
    task = built(texture(perceptual_weights=file), textures())
    assert all(torch.equal(v, trained.state_dict()[k]) for k, v in task.perceptual.state_dict().items())
    assert (task.facts["mean"], task.perceptual.mean) == ([0.1], (0.5,))  # the network's own stays
    grey = {f"architecture.{k}": v for k, v in Small(in_channels=1).state_dict().items()}
    torch.save({"state_dict": grey, "hyper_parameters": {"facts": {"in_channels": 1, "image_size": [28, 28]}}}, file)
    with pytest.raises(
        UserError, match=r"holds no Small .*; it was .* in_channels 1, image_size \[28, 28\] \(model.grey"
    ):
        built(texture(perceptual_weights=file), textures())


def test_a_network_of_grey_pictures_sees_these_in_grey():
    data = textures()
    task = built(texture(grey=True), data)
    assert task.perceptual.first.in_channels == 1
    x = torch.rand(1, 3, 40, 40)
    found = task.maps(x, ["first"])["first"]
    assert torch.allclose(
        found, task.maps(x.mean(1, keepdim=True).expand(-1, 3, -1, -1), ["first"])["first"], atol=1e-5
    )
    assert not torch.allclose(found, task.maps(x[:, :1].expand(-1, 3, -1, -1), ["first"])["first"], atol=1e-2)


def test_layers_have_shares():
    network = Small()
    assert layer_shares(network, None, lambda: ["first", "second"]) == {"first": 0.5, "second": 0.5}
    assert layer_shares(network, {"first": 3.0, "second": 1.0}, list) == {"first": 0.75, "second": 0.25}
    assert layer_shares(network, {"first": 3.0, "second": 0.0}, list) == {"first": 1.0}
    with pytest.raises(UserError, match="Small has no layer fisrt; did you mean first"):
        layer_shares(network, {"fisrt": 1.0}, list)
    for wrong in ({"first": -1.0}, {"first": 0.0}, {}):
        with pytest.raises(UserError, match="weight"):
            layer_shares(network, wrong, list)


# Texture


def test_a_texture_comes_nearer(tmp_path):
    data = textures(texture=["ihc", "hubble"], canvas=[40, 48], steps=6)
    task = fitted(texture(), data, tmp_path)
    found = task.measured(next(iter(data.test_dataloader())))
    assert task.result().shape == (2, 3, 40, 48)
    assert (found["gram_ratio"] > 10).all()  # 14.8 to 16 on the machines that were seen
    assert torch.allclose(found["gram_ratio"], found["gram_start"] / found["gram"])
    assert found["spectrum"][0] < found["spectrum_start"][0]  # ihc; hubble is nearly noise at this size


def test_textures_in_a_batch_have_their_own_targets():
    data = textures(texture=["ihc", "hubble"])
    task = built(texture(), data)
    batch = next(iter(data.test_dataloader()))
    exact = [resized(image[None], [32, 32]) for image in batch[0]]
    task_grams = task.targets(batch, 1.0)["grams"]
    alone = task.targets((batch[0][1:], batch[1][1:]), 1.0)["grams"]
    assert all(torch.allclose(both[1:], one) for both, one in zip(task_grams, alone, strict=True))
    assert task.losses(exact[0], task.targets(([exact[0][0]], ["a"]), 1.0))["gram"].item() < 1e-10


# Style


def test_style_comes_nearer_and_content_stays(tmp_path):
    data = pictures(steps=6)
    task = fitted(StyleTransfer(Small, scales=[0.5, 1.0]), data, tmp_path)
    found = task.measured(next(iter(data.test_dataloader())))
    assert found["style"] < found["style_start"] / 4
    assert found["content_start"] < 1e-6
    free = fitted(StyleTransfer(Small, scales=[0.5, 1.0], content_weight=0.0, start="noise"), data, tmp_path)
    assert found["content"] < free.measured(next(iter(data.test_dataloader())))["content"] / 2


def test_the_losses_of_a_style_and_their_gradient_are_the_papers():
    """Gatys et al. 2016, equations 1 to 7, each distance a share of the target's, by plain torch in float64."""
    data = pictures(size=48)
    task = built(StyleTransfer(Small, content_weight=0.7, tv_weight=0.2, patch_weight=0.0, blur_strides=False), data)
    content, (style,) = next(iter(data.test_dataloader()))
    task, content, image = task.double(), content.double(), style.image[None].double()

    def maps(x):
        down, right = (min(MARGIN, n - 1) for n in x.shape[2:])
        x = (F.pad(x, [right, right, down, down], mode="reflect") - 0.5) / 0.25
        first = F.conv2d(edges(x), task.perceptual.first.weight, task.perceptual.first.bias)
        second = F.conv2d(edges(first.tanh()), task.perceptual.second.weight, task.perceptual.second.bias, stride=2)
        half = down // 2, right // 2
        return first[..., down:-down, right:-right], second[..., half[0] : -half[0], half[1] : -half[1]]

    def grams(x):
        return [torch.einsum("bihw,bjhw->bij", m, m) / m[0, 0].numel() for m in maps(x)]

    def rough(x):
        return x.diff(dim=2).square().mean() + x.diff(dim=3).square().mean()

    x = torch.rand(content.shape, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    kept = maps(content)[1]
    expected = {
        "style": sum(((g - a) ** 2).sum() / (a**2).sum() for g, a in zip(grams(x), grams(image), strict=True)) / 2,
        "content": 0.7 * ((maps(x)[1] - kept) ** 2).sum() / ((kept - kept.mean((2, 3), keepdim=True)) ** 2).sum(),
        "tv": 0.2 * rough(x) / rough(content),
    }
    found = task.losses(x, task.targets((content, [style._replace(image=image[0])]), 1.0))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value[None], rtol=1e-9, atol=0)
        ours, theirs = (torch.autograd.grad(v.sum(), x, retain_graph=True)[0] for v in (found[name], value))
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-14)


def test_where_to_start():
    data = pictures(content=["chelsea", "china"])
    content, styles = batch = next(iter(built_data(data)))
    starts = {
        how: built(StyleTransfer(Small, start=how), data).start(batch, [16, 20])
        for how in ("content", "style", "noise")
    }
    assert all(start.shape == (2, 3, 16, 20) for start in starts.values())
    assert torch.equal(starts["content"], resized(content, [16, 20]).clamp(0, 1))
    assert torch.equal(starts["style"][1], resized(styles[0].image[None], [16, 20]).clamp(0, 1)[0])
    assert not torch.equal(starts["noise"][0], starts["noise"][1])


def built_data(data):
    data.setup()
    return data.test_dataloader()


def test_styles_are_mixed_by_weight_and_kept_to_their_masks(tmp_path):
    for name, box in (("left", (0, 0, 16, 32)), ("right", (16, 0, 32, 32))):
        mask = Image.new("L", (32, 32))
        mask.paste(255, box)
        mask.save(tmp_path / f"{name}.png")
        Image.new("RGB", (32, 32), {"left": "red", "right": "blue"}[name]).save(tmp_path / f"{name}-style.png")
    both = [str(tmp_path / f"{name}-style.png") for name in ("left", "right")]
    masks = [str(tmp_path / f"{name}.png") for name in ("left", "right")]
    data = pictures(content="astronaut", style=both, style_weights=[3, 1], masks=masks)
    task = built(StyleTransfer(Small, style_layers={"first": 1.0}, scales=[1.0]), data)
    content, _ = batch = next(iter(data.test_dataloader()))
    target = task.targets(batch, 1.0)["styles"]
    f = task.maps(content, ["first"])["first"]
    halves = [
        ((gram(f[..., half]) - t["grams"]["first"]) ** 2).sum() / (t["grams"]["first"] ** 2).sum()
        for half, t in zip((slice(0, 16), slice(16, 32)), target, strict=True)
    ]
    expected = 0.75 * halves[0] + 0.25 * halves[1]
    assert torch.allclose(task.style(task.all_maps(content), target), expected[None], rtol=1e-4)
    result = fitted(
        StyleTransfer(Small, scales=[0.5, 1.0], content_weight=0.0, patch_weight=1.0), data, tmp_path
    ).result()
    assert result[0, 0, :, :12].mean() > 0.6 > 0.4 > result[0, 0, :, 20:].mean()


def test_colours_can_be_kept(tmp_path):
    data = pictures()
    task = fitted(StyleTransfer(Small, scales=[1.0], preserve_colors=True), data, tmp_path)
    batch = next(iter(data.test_dataloader()))
    made, bare = task.result(batch), task.result()
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    inside = ((made > 0) & (made < 1)).all(1)
    assert inside.float().mean() > 0.5
    assert torch.allclose((made * luma).sum(1)[inside], (bare * luma).sum(1)[inside], atol=1e-5)
    difference = (made[:, 0] - made[:, 1]) - (batch[0][:, 0] - batch[0][:, 1])
    assert difference[inside].abs().max() < 1e-4


def test_results_are_plain(tmp_path):
    data = pictures(content=["chelsea", "china"])
    task = fitted(StyleTransfer(Small, scales=[1.0]), data, tmp_path)
    (results,) = task.trainer.predict(task, datamodule=data)
    assert [row["name"] for row in task.as_json(results)] == ["0", "1"]
    assert {"style", "style_start", "content", "histogram", "spectrum"} <= task.as_json(results)[0].keys()
    assert [picture.size for picture in task.draw(None, results)] == [task.finished()[0].size] * 2
    assert [picture.size for picture in task.pictures()["image"]] == [(32, 21)] * 2


def test_lbfgs_never_stops_by_itself():
    x = nn.Parameter(torch.full((3,), 1e-5))
    optimizer = lbfgs([x])
    assert isinstance(optimizer, LBFGS)
    calls = []

    def closure():
        optimizer.zero_grad()
        loss = (x**4).sum() * 1e-3
        loss.backward()
        calls.append(float(loss))
        return loss

    optimizer.step(closure)
    assert len(calls) > 5


def test_a_picture_of_one_cell_is_no_nan(tmp_path):
    data = ContentAndStyle(content="china", style="flower", size=32, steps=1)
    task = built(StyleTransfer(Small), data)
    content, _ = next(iter(data.test_dataloader()))
    assert all(min(maps.shape) > 0 for maps in task.maps(resized(content, [3, 4]), ["first", "second"]).values())


def test_a_loss_that_is_no_number_ends_in_one_line(tmp_path):
    with pytest.raises(UserError, match="no finite number any more, in epoch 0"):
        fitted(texture(optimizer=partial(torch.optim.SGD, lr=1e30)), textures(), tmp_path)


def test_it_needs_to_know_how_many_and_how_large():
    task = texture(facts=Facts(in_channels=3, image_size=[32, 32]))
    with pytest.raises(UserError, match="needs num_images"):
        task.configure_model()
