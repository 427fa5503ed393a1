"""A picture fitted by a network, drawn at other sizes, and random patterns from the command line."""

import json
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from running import different, folder_of, said, state, zoo
from torch.nn import functional as F
from torch.optim import SGD

from zoo.architectures.cppn import CPPN
from zoo.data.art.pictures import Pictures, read_scaled
from zoo.errors import UserError
from zoo.functional.patterns import grid
from zoo.functional.style import histogram_distance, spectrum_distance
from zoo.tasks.art.image_fitting import ImageFitting

SINES = partial(CPPN, depth=2, units=48, activations=["sine"], frequency=10.0, scale=1.4, radius=False)
SMALL = ["--model.architecture.units", "48", "--model.pixels", "300", "--data.size", "24", "--data.steps", "4"]
QUIET = ["--trainer.logger", "false", "--trainer.accelerator", "cpu"]
FIT = ["--config", "cppn", *SMALL, "--trainer.max_epochs", "2", *QUIET]
RANDOM = ["predict", "--model", "ImageFitting", "--model.architecture", "CPPN", "--data", "Pictures", *QUIET[2:]]

ALEXNET = ["--model.architecture", "AlexNet", "--data.canvas", "[20, 24]"]


def fitted(task: ImageFitting, data: Pictures, folder: Path, epochs: int = 1) -> ImageFitting:
    torch.manual_seed(0)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(accelerator="cpu", default_root_dir=folder, max_epochs=epochs, **quiet)
    trainer.fit(task, datamodule=data)
    return task


def test_a_step_in_plain_torch(tmp_path: Path) -> None:
    rate = 0.1
    task = fitted(ImageFitting(SINES, partial(SGD, lr=rate)), Pictures("coffee", size=24, steps=1), tmp_path)
    torch.manual_seed(0)
    network = SINES()
    target = read_scaled("coffee", 24).permute(1, 2, 0)
    loss = ((network(grid(target.shape[:2])) - target) ** 2).mean()
    assert float(task.trainer.callback_metrics["train/loss"]) == pytest.approx(loss.item(), rel=1e-5)
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    for ours, before, gradient in zip(task.parameters(), network.parameters(), gradients, strict=True):
        assert torch.allclose(ours, before - rate * gradient, atol=1e-6)


def test_pictures_of_a_batch_are_fitted_as_if_each_were_alone(tmp_path: Path) -> None:
    make = partial(ImageFitting, SINES, partial(SGD, lr=0.1))
    both = fitted(make(), Pictures(["coffee", "rocket"], canvas=[20, 24], steps=2), tmp_path)
    alone = fitted(make(), Pictures("coffee", canvas=[20, 24], steps=2), tmp_path)
    for ours, theirs in zip(both.architecture[0].parameters(), alone.architecture[0].parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
    assert both.drawn([10, 12]).shape == (2, 3, 10, 12)


def test_a_tiny_picture_is_fitted_and_measured(tmp_path: Path) -> None:
    task = ImageFitting(SINES, partial(torch.optim.Adam, lr=5e-3), pixels=256)
    data = Pictures("flower", size=24, steps=200)
    fitted(task, data, tmp_path)
    found = task.trainer.test(task, datamodule=data, verbose=False)[0]
    image, made = read_scaled("flower", 24)[None], task.drawn([16, 24])
    error = F.mse_loss(made, image).item()
    assert found["test/mse"] == pytest.approx(error, rel=1e-4)
    assert found["test/psnr"] == pytest.approx(-10 * math.log10(error), rel=1e-4)
    assert found["test/histogram"] == pytest.approx(histogram_distance(made, image).item(), rel=1e-4)
    assert found["test/spectrum"] == pytest.approx(spectrum_distance(made, image).item(), rel=1e-4)
    assert error < 0.03 * image.var().item()


def test_mistakes_end_in_one_line(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, says in (
        (["--data.picture", "null"], "there is no picture to fit: give data.picture a file"),
        (["--model.pixels", "0"], "model.pixels must be at least 1, not 0"),
        (["--model.architecture.activations", "[sinus]"], "model.architecture"),
    ):
        assert says in said(capsys, "fit", *FIT, *flags)
    assert "needs an architecture of the role pattern, not AlexNet" in said(capsys, *RANDOM, *ALEXNET)
    with pytest.raises(UserError, match=r"was made for num_images 1, the data has 2"):
        fitted(ImageFitting(SINES, facts={"num_images": 1}), Pictures(["coffee", "rocket"], size=24), workspace)


def test_the_fit_is_drawn_at_any_size(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert zoo("fit", *FIT) == 0
    folder = folder_of("cppn")
    assert f"result      {folder / 'result.png'}\n" in capsys.readouterr().out
    figures = json.loads((folder / "results.json").read_text())
    assert {"test/mse", "test/psnr", "test/histogram", "test/spectrum"} <= figures.keys()
    drawn = {}
    for words, size in (([], (24, 24)), (["--data.size", "72"], (72, 72)), (["--data.canvas", "[40, 56]"], (56, 40))):
        assert zoo("predict", "--ckpt_path", str(folder), *words, *QUIET[2:]) == 0
        again = folder_of("predict-cppn")
        assert json.loads((again / "predictions.json").read_text())[0]["name"] == "astronaut"
        (file,) = (again / "pictures").iterdir()
        with Image.open(file) as picture:
            assert picture.size == size
            drawn[size] = torch.tensor(list(picture.convert("RGB").getdata())).view(size[1], size[0], 3)
    with Image.open(folder / "result.png") as picture:
        first = torch.tensor(list(picture.convert("RGB").getdata())).view(24, 24, 3)
    assert torch.equal(drawn[24, 24], first)
    assert (drawn[72, 72][1::3, 1::3] - first).abs().max() <= 1


def test_a_resumed_fit_ends_with_the_same_bits(workspace: Path) -> None:
    for out, more in (
        ("whole", ["--checkpoint_every_n_steps", "1"]),
        ("rest", ["--ckpt_path", "whole/checkpoints/step=3.ckpt"]),
    ):
        assert zoo("fit", *FIT, *more, "--no-test", "--out", out) == 0
    whole, rest = (state(Path(out) / "checkpoints" / "last.ckpt") for out in ("whole", "rest"))
    assert not different(whole, rest)


def test_a_random_pattern_is_a_function_of_the_seed(workspace: Path) -> None:
    pictures = {}
    for name, seed, canvas in (("a", 7, 30), ("b", 7, 30), ("c", 8, 30), ("large", 7, 90)):
        words = ["--data.canvas", f"[{canvas}, {canvas}]", "--seed_everything", str(seed), "--out", name]
        assert zoo(*RANDOM, *words) == 0
        with Image.open(Path(name) / "pictures" / "00-00000-canvas.png") as picture:
            pictures[name] = torch.tensor(list(picture.getdata())).view(canvas, canvas, 3)
    assert torch.equal(pictures["a"], pictures["b"])
    assert (pictures["a"] - pictures["c"]).abs().float().mean() > 20
    assert (pictures["large"][1::3, 1::3] - pictures["a"]).abs().max() <= 1
    assert zoo("predict", "--config", "cppn", "--data.picture", "null", "--data.canvas", "[16, 24]", *QUIET[2:]) == 0
    with Image.open(folder_of("predict-cppn") / "pictures" / "00-00000-canvas.png") as picture:
        assert picture.size == (24, 16)
