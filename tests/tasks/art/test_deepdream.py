import json
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from running import different, folder_of, said, state, zoo
from torch import nn
from torch.nn import functional as F
from torch.optim import LBFGS, SGD

from zoo.architectures.base import Architecture, Stage
from zoo.data.art.pictures import Pictures
from zoo.data.loading import derive_seed
from zoo.errors import UserError
from zoo.facts import Facts
from zoo.tasks.art.deepdream import COLORS, DeepDream, natural
from zoo.tasks.art.perceptual import MARGIN, resized

NAMES = ["tabby, tabby cat", "tiger cat", "lynx"]


class Small(Architecture):
    """Two convolutions, the second one strided, and classes by their means."""

    mean, std = (0.5,), (0.25,)

    def __init__(self, num_classes: int = 0, in_channels: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, num_classes) if num_classes else nn.Identity()

    @property
    def stages(self):
        return [Stage("first", 6, 1), Stage("second", 8, 2)]

    def forward(self, images):
        return self.head(torch.tanh(self.second(torch.tanh(self.first(images)))).mean((2, 3)))


class Fixed(Small):
    """Takes pictures of 32 pixels only."""

    def forward(self, images):
        return super().forward(images.view(-1, 3, 32, 32))


def fitted(task, data, folder):
    torch.manual_seed(0)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    Trainer(accelerator="cpu", default_root_dir=folder, **quiet).fit(task, datamodule=data)
    return task


def dream(network=Small, **options):
    return DeepDream(network, **{"scales": [1.0], "jitter": 4, **options})


def classes(which, **options):
    return dream(classes=which, facts=Facts(num_classes=3, class_names=NAMES), **options)


def pictures(**options):
    return Pictures(**{"picture": "china", "size": 48, "steps": 1, **options})


def source(**options):
    data = pictures(**options)
    data.setup()
    return next(iter(data.test_dataloader()))


def jitter(step, most=4):
    """The roll of a step of a run with seed 0."""
    generator = torch.Generator().manual_seed(derive_seed(0, 3, step))
    return torch.randint(-most, most + 1, (2,), generator=generator).tolist()


def edges(maps):
    return F.pad(maps, [1] * 4, mode="replicate")


def height(network, x):
    """Three quarters of the first and a quarter of the second layer's mean square, by plain torch in float64."""
    down, right = (min(MARGIN, n - 1) for n in x.shape[2:])
    x = (F.pad(x, [right, right, down, down], mode="reflect") - 0.5) / 0.25
    first = F.conv2d(edges(x), network.first.weight, network.first.bias)
    second = F.conv2d(edges(first.tanh()), network.second.weight, network.second.bias, stride=2)
    inner = first[..., down:-down, right:-right], second[..., down // 2 : -(down // 2), right // 2 : -(right // 2)]
    return sum(share * (m**2).mean((1, 2, 3)) for share, m in zip((0.75, 0.25), inner, strict=True))


def test_a_step_is_one_of_the_papers(tmp_path):
    """Rolled, mean squares of the layers, back-rolled gradient over its mean absolute value; by plain torch."""
    plain = {"smoothness": 0.0, "greyness": 0.0, "optimizer": partial(SGD, lr=0.01)}
    task = fitted(dream(layers={"first": 3.0, "second": 1.0}, **plain), pictures(canvas=[64, 80]), tmp_path)
    assert not task.perceptual.second._forward_pre_hooks  # no blur
    x = source(canvas=[64, 80])[0].double().requires_grad_()
    down, right = jitter(0)
    assert (down, right) != (0, 0)
    loss = height(task.perceptual.double(), torch.roll(x, (down, right), (2, 3))).sum()
    (gradient,) = torch.autograd.grad(loss, x)
    expected = (x + 0.01 * gradient / gradient.abs().mean()).clamp(0, 1)
    assert (expected - x).abs().max() > 0.02
    assert torch.allclose(task.images[0].double(), expected, atol=1e-6)


def test_an_octave_is_the_source_and_what_was_added(tmp_path):
    """Two octaves, the gradient shaped: by plain torch, with a Fourier transform by its definition."""
    data = pictures(canvas=[64, 96], steps=2)
    task = fitted(dream(layers={"first": 0.75, "second": 0.25}, scales=[0.75, 1.0]), data, tmp_path)
    network, image, step = task.perceptual.double(), source(canvas=[64, 96])[0].double(), 0
    added = torch.zeros(1, 3, *task.sizes[0])
    for size in task.sizes:
        base = resized(image, size).clamp(0, 1)
        x = (base + resized(added.double(), size)).clamp(0, 1)
        for _ in range(2):
            x.requires_grad_()
            (g,) = torch.autograd.grad(height(network, torch.roll(x, jitter(step), (2, 3))).sum(), x)
            g = shaped(g, 0.7)
            x = (x.detach() + 0.012 * g / g.abs().mean()).clamp(0, 1)
            step += 1
        added = x - base
    assert torch.allclose(task.result().double(), x, atol=1e-4)


def shaped(g, power):
    """Each frequency divided by its power, colours by their covariance; one axis at a time, by matrices of waves."""
    height, width = g.shape[2:]
    waves = [torch.exp(-2j * torch.pi * torch.outer(torch.arange(n), torch.arange(n)) / n) for n in (height, width)]
    down, right = (w.to(torch.complex128) for w in waves)
    y, x = (torch.minimum(torch.arange(n), n - torch.arange(n)).double() / n for n in (height, width))
    frequency = (y[:, None] ** 2 + x**2).sqrt().clamp(min=1 / max(height, width))
    spectrum = (down @ g.to(torch.complex128) @ right) / frequency**power
    g = (down.conj() @ spectrum @ right.conj()).real / (height * width)
    return (torch.tensor(COLORS, dtype=torch.float64) @ g.flatten(2)).view_as(g)


def test_a_class_is_raised_and_the_gradient_is_its_outputs(tmp_path):
    plain = {"smoothness": 0.0, "greyness": 0.0, "optimizer": partial(SGD, lr=0.01)}
    task = fitted(classes(["tiger cat", 2], **plain), pictures(), tmp_path)
    assert task.targeted == [1, 2]
    network, x = task.perceptual.double(), source()[0].double().requires_grad_()
    seen = (torch.roll(x, jitter(0), (2, 3)) - 0.5) / 0.25
    first = F.conv2d(edges(seen), network.first.weight, network.first.bias).tanh()
    second = F.conv2d(edges(first), network.second.weight, network.second.bias, stride=2).tanh()
    output = F.linear(second.mean((2, 3)), network.head.weight, network.head.bias)[:, 1:].mean()
    (gradient,) = torch.autograd.grad(output, x)
    expected = (x + 0.01 * gradient / gradient.abs().mean()).clamp(0, 1)
    assert torch.allclose(task.images[0].double(), expected, atol=1e-5)
    found = fitted(classes("Tabby"), pictures(steps=8), tmp_path).measured(source())
    assert found["output"] > found["output_start"] + 0.01
    assert found["probability"] > found["probability_start"]
    assert 0 < found["histogram"] < 0.2


def test_activation_rises_and_pictures_do_not_know_of_each_other(tmp_path):
    both = pictures(picture=["china", "chelsea"], steps=6)
    torch.manual_seed(1)
    network = Small()
    made = []
    for data in (both, pictures(steps=6)):
        task = dream()
        data.setup()
        task.hparams["facts"] = dict(data.facts)
        task.configure_model()
        task.perceptual.load_state_dict(network.state_dict())
        made.append(fitted(task, data, tmp_path))
    assert made[0].shares == {"first": 1.0}  # the last but one of the stages
    assert torch.allclose(made[0].result()[:1], made[1].result(), atol=1e-5)
    found = made[0].measured(source(picture=["china", "chelsea"]))
    assert (found["activation"] > 1.05 * found["activation_start"]).all()
    assert torch.allclose(found["activation_ratio"], found["activation"] / found["activation_start"])


def test_noise_to_begin_with_looks_like_a_photographs():
    task, batch = dream(noise=0.1), source(picture=None, size=96)
    grain = task.source(batch) - 0.5
    assert grain.std().item() == pytest.approx(0.1, rel=0.01)
    assert torch.equal(task.source(batch), task.source(batch))
    covariance = torch.cov(grain[0].flatten(1)) / grain.var()
    assert torch.allclose(covariance, torch.tensor(COLORS), atol=0.06)
    power = torch.fft.fft2(grain[0].mean(0)).abs().square()
    assert (power[:, 4].mean() / power[:, 16].mean()).item() > 4
    with pytest.raises(UserError, match=r"empty canvas has nothing to dream of: give data.picture, or model.noise"):
        dream().source(batch)
    assert torch.equal(dream().source(source()), source()[0])


def test_a_gradient_may_keep_its_colours_and_spectrum():
    g = torch.randn(2, 3, 16, 20)
    assert torch.equal(natural(g, 0.0, 0.0), g)
    assert torch.allclose(natural(natural(g, 0.0, 0.5), 0.0, 0.5), natural(g, 0.0, 1.0), atol=1e-5)
    assert natural(g.bfloat16(), 0.7, 1.0).dtype == torch.bfloat16
    found = dream().conditioned(g * torch.tensor([1.0, 100.0]).view(2, 1, 1, 1))
    assert torch.allclose(found.abs().mean((1, 2, 3)), torch.ones(2))
    assert torch.equal(dream().conditioned(torch.zeros_like(g)), torch.zeros_like(g))


def test_classes_come_with_the_checkpoint_of_a_classifier(tmp_path):
    trained, file = Small(num_classes=3), str(tmp_path / "classifier.ckpt")
    tensors = {f"architecture.{k}": v for k, v in trained.state_dict().items()}
    said = {"facts": {"mean": [0.1], "std": [0.3], "num_classes": 3, "class_names": NAMES}}
    torch.save({"state_dict": tensors, "hyper_parameters": said}, file)
    task = fitted(dream(classes="lynx", perceptual_weights=file), pictures(), tmp_path)
    assert torch.equal(task.perceptual.head.weight, trained.head.weight)
    assert task.targeted == [2]
    assert task.facts["class_names"] == NAMES


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: dream(layers={"first": 1.0}, classes="lynx"), r"layers or model.classes, not both"),
        (lambda: dream(classes=[]), r"names no class"),
        (lambda: dream(noise=-0.1), r"at least 0, not -0.1"),
        (lambda: dream(optimizer=LBFGS), r"LBFGS needs the gradient's length"),
        (lambda: dream(classes="lynx"), r"weights know no classes"),
        (lambda: classes("linx"), r"no class linx; did you mean lynx"),
        (lambda: classes(3), r"no class 3: there are the classes 0 to 2"),
        (lambda: classes(1, network=Fixed), r"Fixed can't take images of 48×48 pixels"),
        (lambda: dream(layers={"fisrt": 1.0}), r"no layer fisrt; did you mean first"),
    ],
)
def test_wrong_arguments_end_in_one_line(make, says, tmp_path):
    with pytest.raises(UserError, match=says) as told:
        fitted(make(), pictures(canvas=[48, 48]), tmp_path)
    assert "\n" not in str(told.value)


# What a person types

QUIET = ["--trainer.logger", "false", "--trainer.accelerator", "cpu"]
FAST = ["--data.size", "48", "--data.steps", "2", "--model.scales", "[0.5, 1.0]", *QUIET]
LAYERS = ["--model.layers", "{network.blocks.0.0: 1.0}"]


def test_a_dream_of_ones_own_picture_and_of_a_class(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.radial_gradient("L").resize((80, 60)).save("my.jpg")
    assert zoo("fit", "--config", "deepdream", *LAYERS, *FAST, "--data.picture", "my.jpg") == 0
    folder = folder_of("deepdream")
    with Image.open(folder / "result.png") as picture:
        assert picture.size == (48, 36)
    figures = json.loads((folder / "results.json").read_text())
    assert figures["test/activation_ratio"] > 1
    assert {"test/activation", "test/activation_start", "test/histogram", "test/spectrum"} <= figures.keys()
    words = ["--model.layers", "null", "--data.picture", "null", "--model.noise", "0.1"]
    assert zoo("fit", "--config", "deepdream", *FAST, *words, "--model.classes", "volcano", "--out", "class") == 0
    figures = json.loads((Path("class") / "results.json").read_text())
    assert figures["test/output"] > figures["test/output_start"] + 1
    capsys.readouterr()
    assert zoo("predict", "--ckpt_path", "class", "--out", "again", *QUIET[2:]) == 0
    with Image.open("class/result.png") as ours, Image.open(next(Path("again/pictures").glob("*.png"))) as other:
        assert ours.tobytes() == other.tobytes()
    mistake = said(capsys, "fit", "--config", "deepdream", *FAST, *words, "--model.classes", "vulcano")
    assert "there is no class vulcano; did you mean volcano" in mistake


def test_a_resumed_dream_ends_with_the_same_picture(workspace: Path) -> None:
    words = ["--config", "deepdream", *LAYERS, *FAST, "--model.noise", "0.05", "--no-test"]
    words += ["--model.optimizer", "Adam", "--model.optimizer.lr", "0.01"]
    for out, more in (
        ("whole", ["--checkpoint_every_n_steps", "1"]),
        ("rest", ["--ckpt_path", "whole/checkpoints/step=3.ckpt"]),
    ):
        assert zoo("fit", *words, *more, "--out", out) == 0
    assert (Path("whole") / "result.png").read_bytes() == (Path("rest") / "result.png").read_bytes()
    whole, rest = (state(Path(out) / "checkpoints" / "last.ckpt") for out in ("whole", "rest"))
    assert not different(whole, rest)
