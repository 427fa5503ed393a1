"""Any style at once: the losses against plain torch, what learns, and what a person types."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from running import folder_of, said, zoo
from torch.nn import functional as F

from zoo.architectures.adain import AdaIN
from zoo.architectures.efficientnet_lite import EfficientNetLite0
from zoo.architectures.transform_net import TransformNet
from zoo.architectures.vgg import VGG
from zoo.data.art.pictures import Style
from zoo.data.art.style_folders import StyleFolders
from zoo.errors import UserError
from zoo.export import write
from zoo.facts import Facts
from zoo.tasks.art.adaptive_style import AdaptiveStyleTransfer
from zoo.training.restore import load

ENCODER = partial(VGG, depth=11, width=0.125, norm="batch")
LAYERS = ["layers.relu2_1", "layers.relu3_2"]
QUICK = ["--config", "adain", "--trainer.max_epochs", "1", "--data.image_size", "32", "--data.resize", "40"]
QUICK += ["--data.crops", "4", "--data.batch_size", "2", "--trainer.logger", "false", "--trainer.accelerator", "cpu"]


def task(encoder=ENCODER, layers=LAYERS, **options):
    torch.manual_seed(0)
    network = partial(AdaIN, encoder=encoder, layers=layers, width=4)
    made = AdaptiveStyleTransfer(network, facts=Facts(in_channels=3, image_size=[32, 32]), **options)
    made.configure_model()
    return made


def batch(seed=0):
    random = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(3, 3, 32, 32, generator=random).double() for _ in range(2))


def test_losses_are_the_papers():
    """Equations 11 to 13 in plain torch, as shares of the target's own, and the two additions."""
    made = task(style_layers={LAYERS[0]: 3.0, LAYERS[1]: 1.0}, style_weight=7.0, patch_weight=2.0).double()
    with torch.no_grad():
        made.architecture.decoder.last.bias.fill_(1.1)  # so that pixels are out of range
    contents, styles = batch()
    found = made.losses((contents, styles))
    network = made.architecture

    def see(x):
        maps = network.encoder.features(x, LAYERS)
        return [maps[name] for name in LAYERS]

    def moments(f):
        return f.mean((2, 3)), (f.var((2, 3), correction=0) + 1e-5).sqrt()

    def renormalised(f, s):
        (m, d), (sm, sd) = moments(f), moments(s)
        return (f - m[..., None, None]) / d[..., None, None] * sd[..., None, None] + sm[..., None, None]

    wanted = see(styles)
    target = [renormalised(f, s) for f, s in zip(see(contents), wanted, strict=True)]
    images = network.decoder(target[::-1])
    style = torch.zeros(3).double()
    for f, s, share in zip(see(images), wanted, (0.75, 0.25), strict=True):
        (m, d), (sm, sd) = moments(f), moments(s)
        squares = ((m - sm) ** 2 + (d - sd) ** 2).sum(1)
        style += share * squares / (sm**2 + sd**2).sum(1)
    deep, goal = see(images)[1], target[1]
    spread = ((goal - goal.mean((2, 3), keepdim=True)) ** 2).sum((1, 2, 3))
    content = ((deep - goal) ** 2).sum((1, 2, 3)) / spread
    assert torch.allclose(found["style"], 7 * style)
    assert torch.allclose(found["content"], content)
    assert torch.allclose(found["range"], 30 * ((images - images.clamp(0, 1)) ** 2).mean((1, 2, 3)))
    near = torch.tensor([_neighbours_apart(*pair) for pair in zip(images, styles, strict=True)])
    assert torch.allclose(found["patches"], 2 * near)
    assert all(values.shape == (3,) and values.min() >= 0 for values in found.values())


def _neighbours_apart(image, style):
    """Distance in the style's white coordinates, by an inverse: the norm does not depend on the root."""

    def moments(x):
        windows = np.lib.stride_tricks.sliding_window_view(x.detach().numpy() - 0.5, (3, 3), axis=(1, 2))
        columns = windows.transpose(0, 3, 4, 1, 2).reshape(27, -1)
        columns = np.concatenate([columns, np.full_like(columns[:1], 0.2)])
        return columns @ columns.T / columns.shape[1]

    mine, theirs = moments(image), moments(style)
    apart = (mine - theirs) @ np.linalg.inv(theirs + 1e-3 * np.eye(28))
    return np.trace(apart @ apart) / 28


def test_random_weights_that_look_are_told(tmp_path, capsys):
    made = task()
    line = "zoo: VGG looks with random weights; trained ones: model.architecture.encoder.weights, model.encoder_weights"
    assert line in capsys.readouterr().err
    trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path)
    trainer.strategy.connect(made)
    trainer.save_checkpoint(tmp_path / "made.ckpt")
    load(tmp_path / "made.ckpt")
    task(encoder=partial(EfficientNetLite0), layers=["network.blocks.1.0.bn1"])
    assert "random" not in capsys.readouterr().err


def test_the_gradient_is_the_decoders_alone():
    made = task()
    made.train()
    before = {name: t.clone() for name, t in made.architecture.encoder.state_dict().items()}
    torch.stack([v.mean() for v in made.losses(tuple(x.float() for x in batch())).values()]).sum().backward()
    reached = {name for name, p in made.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {n for n, _ in made.named_parameters() if n.startswith("architecture.decoder.")}
    assert all(torch.equal(t, before[name]) for name, t in made.architecture.encoder.state_dict().items())
    optimizer = made.optimizers_for(made.architecture)["optimizer"]
    assert len(optimizer.param_groups[0]["params"]) == len(reached)


def test_a_fit_lowers_the_distance_to_styles_and_resumes_exactly(tmp_path):
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)

    def fit(**options):
        data = StyleFolders(image_size=32, resize=48, crops=60, batch_size=6, test_fraction=0.3)
        torch.manual_seed(0)
        made = AdaptiveStyleTransfer(partial(AdaIN, encoder=ENCODER, layers=LAYERS, width=4))
        trainer = Trainer(accelerator="cpu", default_root_dir=tmp_path, max_epochs=4, **quiet)
        trainer.fit(made, datamodule=data, **options)
        return made, trainer, data

    made, trainer, data = fit()
    encoder = {k: v.clone() for k, v in made.architecture.encoder.state_dict().items()}
    (figures,) = trainer.test(made, datamodule=data, verbose=False)
    assert figures["test/style"] < 0.7 * figures["test/style_start"]
    assert {"test/content", "test/histogram", "test/spectrum_start"} <= figures.keys()
    assert all(torch.equal(v, encoder[k]) for k, v in made.architecture.encoder.state_dict().items())
    (picture,) = made.pictures()["stylised"]
    assert picture.width > 2 * 192
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    again = load(tmp_path / "end.ckpt")
    contents, styles = (x.float() for x in batch())
    with torch.no_grad():
        assert torch.equal(again(contents, styles), made.eval()(contents, styles))


def test_start_figures_are_those_of_the_untouched_content():
    made = task().double().eval()
    contents, styles = batch()
    figures = made.figures(contents, (contents, styles))
    same = made.figures(styles, (contents, styles))
    assert same["style"].max() < 1e-12 < figures["style"].min()
    assert torch.all(same["histogram"] == 0)
    target = made.architecture.mix(made.look(contents), [made.look(styles)])[LAYERS[1]]
    seen = made.look(contents)[LAYERS[1]]
    spread = target.var((2, 3), correction=0).sum(1) * target[0, 0].numel()
    assert torch.allclose(figures["content"], (seen - target).square().sum((1, 2, 3)) / spread)


def test_prediction_mixes_styles_by_strength_and_weights():
    contents, styles = (x[:1].float() for x in batch())
    other = torch.rand(3, 50, 40)
    made = task(strength=0.4).eval()
    given = [Style(styles[0], 0.25, None), Style(other, 0.75, None)]
    with torch.no_grad():
        (found,) = made.predict_step((contents, ["a.png"], given), 0)
        net = made.architecture
        maps = net.mix(net.encode(contents), [net.encode(styles), net.encode(other[None])], 0.4, [0.25, 0.75])
        assert torch.allclose(found.image, net.decode(maps, (32, 32)).clamp(0, 1)[0])
    assert found.name == "a.png"


def test_the_encoder_may_come_from_a_classifier_of_the_zoo(tmp_path):
    torch.manual_seed(5)
    trained, file = ENCODER(num_classes=4), tmp_path / "classifier.ckpt"
    tensors = {f"architecture.{k}": v for k, v in trained.state_dict().items()}
    facts = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    torch.save({"state_dict": tensors, "hyper_parameters": {"facts": facts}}, file)
    made = task(encoder_weights=str(file))
    own = made.architecture.encoder.state_dict()
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in own.items())
    assert made.architecture.encoder_mean.flatten().tolist() == pytest.approx(facts["mean"])
    assert made.architecture.encoder_std.flatten().tolist() == pytest.approx(facts["std"])
    assert made.hparams["encoder_weights"] is None


def test_mistakes_end_in_one_line():
    for options, words in (
        ({"strength": 1.5}, "strength must be from 0 to 1"),
        ({"style_weight": -1.0}, "at least 0, not -1.0"),
        ({"style_layers": {"layers.relu9_9": 1.0}}, "no layer layers.relu9_9"),
    ):
        with pytest.raises(UserError, match=words):
            task(**options)
    with pytest.raises(UserError, match="needs an architecture of the role stylizer, not TransformNet"):
        AdaptiveStyleTransfer(TransformNet, facts=Facts(in_channels=3)).configure_model()


def test_is_exported_with_contents_and_styles(tmp_path: Path) -> None:
    made = task().eval()
    written = write(made, tmp_path / "net.pt2", "torch_export")
    assert [(port.name, port.shape) for port in written.inputs] == [
        ("contents", ["batch", 3, 32, 32]),
        ("styles", ["batch", 3, 32, 32]),
    ]
    contents, styles = (images.float() for images in batch())
    found = torch.export.load(tmp_path / "net.pt2").module()(contents, styles)
    torch.testing.assert_close(found, made(contents, styles), rtol=1e-4, atol=1e-5)


def test_train_once_then_any_style_from_the_command_line(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert zoo("fit", *QUICK) == 0
    run = folder_of("adain")
    figures = json.loads((run / "results.json").read_text())
    assert {"test/style", "test/style_start", "test/content"} <= figures.keys()
    assert (run / "pictures" / "test-stylised.png").is_file()
    Path("photos").mkdir()
    Image.new("RGB", (75, 50), "orange").save("photos/wide.jpg")
    Image.radial_gradient("L").resize((40, 66)).save("photos/tall.png")
    words = ["--ckpt_path", str(run), "--data.files", "photos/", "--trainer.accelerator", "cpu"]
    shown = {}
    for strength in ("0", "1"):
        out = f"strength{strength}"
        assert zoo("predict", *words, "--data.style", "ihc", "--model.strength", strength, "--out", out) == 0
        made = sorted((Path(out) / "pictures").glob("*.png"))
        assert [path.stem.rpartition("-")[2] for path in made] == ["tall", "wide"]
        with Image.open(made[0]) as tall, Image.open(made[1]) as wide:
            assert (tall.size, wide.size) == ((40, 66), (75, 50))
            shown[strength] = np.asarray(tall)
    assert np.abs(shown["0"].astype(int) - shown["1"]).max() > 0
    mixed = ["--data.style", "[ihc, brick]", "--data.style_weights", "[0.7, 0.3]", "--out", "mixed"]
    assert zoo("predict", *words, *mixed) == 0
    capsys.readouterr()
    assert "which style?" in said(capsys, "predict", *words, "--out", "none")


def test_a_reflected_pad_leaves_no_trace_of_the_size():
    """The style of a picture does not depend on a few rows more or less."""
    made = task().eval()
    random = torch.Generator().manual_seed(0)
    image = F.interpolate(torch.rand(1, 3, 8, 8, generator=random), (64, 64), mode="bilinear")
    with torch.no_grad():
        whole, cut = made(image, image), made(image[..., :61, :57], image)
    assert (whole[..., :40, :40] - cut[..., :40, :40]).abs().max() < 0.02
