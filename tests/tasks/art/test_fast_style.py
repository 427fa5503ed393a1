"""Fast style transfer: its losses against plain formulas, and what a person types."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from PIL import Image
from running import folder_of, said, zoo
from torch import Tensor
from torch.nn import functional as F

from zoo.architectures.transform_net import TransformNet
from zoo.architectures.vgg import VGG
from zoo.errors import UserError
from zoo.tasks.art.fast_style import FastStyleTransfer
from zoo.training.restore import load

LAYERS = ["layers.relu1_2", "layers.relu2_2"]
TINY = partial(TransformNet, width=0.125, blocks=1)


def task(**changes: object) -> FastStyleTransfer:
    torch.manual_seed(0)
    known = {
        "architecture": TINY,
        "perceptual": partial(VGG, width=0.0625),
        "style_layers": {LAYERS[0]: 3.0, LAYERS[1]: 1.0},
        "content_layers": {LAYERS[1]: 1.0},
        "blur_strides": False,
        "facts": {"in_channels": 3},
    }
    made = FastStyleTransfer(**{**known, **changes})  # type: ignore[arg-type]
    made.configure_model()
    return made.double()


def test_exported_describes_the_transform_networks_normalisation() -> None:
    made = task(facts={"in_channels": 3, "image_size": [32, 32]})
    exported = made.exported()
    assert exported.normalize is made.adjust  # not the perceptual network's
    assert exported.outputs == ("output",)


def test_losses_are_the_formulas() -> None:
    made = task(content_weight=0.7, patch_weight=0.4, tv_weight=0.2)
    style, contents = torch.rand(1, 3, 40, 36).double(), torch.rand(2, 3, 32, 32).double()
    made.take_style([(style, 1.0)])
    found = made.losses((contents, contents))
    images = made.architecture((contents - 0.5) / 0.25)

    def maps(x: Tensor) -> dict[str, Tensor]:
        return made.perceptual.features((x - made.normalize.mean) / made.normalize.std, LAYERS)

    def gram(x: Tensor) -> Tensor:
        return torch.einsum("bihw,bjhw->bij", x, x) / x[0, 0].numel()

    def neighbours(x: Tensor) -> Tensor:
        columns = F.unfold(x - 0.5, 3)
        columns = torch.cat([columns, torch.full_like(columns[:, :1], 0.2)], 1)
        return columns @ columns.transpose(1, 2) / columns.shape[2]

    wanted = made.maps(style, LAYERS)
    seen, kept = maps(images), maps(contents)
    expected = {"style": torch.zeros(2).double()}
    for name, share in zip(LAYERS, (0.75, 0.25), strict=True):
        target = gram(wanted[name])
        expected["style"] += share * ((gram(seen[name]) - target) ** 2).sum((1, 2)) / (target**2).sum()
    last = kept[LAYERS[1]]
    variation = ((last - last.mean((2, 3), keepdim=True)) ** 2).sum((1, 2, 3))
    expected["content"] = 0.7 * ((seen[LAYERS[1]] - last) ** 2).sum((1, 2, 3)) / variation
    target = neighbours(style)[0]
    inverse = torch.linalg.inv(target + 1e-3 * torch.eye(28).double())
    apart = neighbours(images) - target  # the trace form of the distance in white coordinates
    expected["patches"] = 0.4 * torch.einsum("bij,jk,bkl,li->b", apart, inverse, apart, inverse) / 28

    def variation_of(x: Tensor) -> Tensor:
        down, right = x.diff(dim=2) ** 2, x.diff(dim=3) ** 2
        return down.mean((1, 2, 3)) + right.mean((1, 2, 3))

    expected["tv"] = 0.2 * variation_of(images) / variation_of(contents)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-9), name


def test_several_styles_are_the_mean_of_their_gram_matrices_and_nothing_of_the_style_is_learnt() -> None:
    made, images = task(), [torch.rand(1, 3, 30 + 4 * i, 40).double() for i in range(2)]
    kept = []
    for chosen in ([(images[0], 1.0)], [(images[1], 1.0)], [(images[0], 0.25), (images[1], 0.75)]):
        made.take_style(chosen)
        kept.append([made.gram_0.clone(), made.gram_1.clone(), made.gram_patches.clone()])
    for first, second, mixed in zip(*kept, strict=True):
        assert torch.allclose(mixed, 0.25 * first + 0.75 * second)
    assert {name.partition(".")[0] for name, p in made.named_parameters() if p.requires_grad} == {"architecture"}


def test_strength_is_the_share_of_the_result() -> None:
    contents = torch.rand(1, 3, 20, 24).double()
    none, half, full = (task(strength=s).stylize(contents) for s in (0.0, 0.5, 1.0))
    assert torch.equal(none, contents)
    assert torch.allclose(half, (contents + full) / 2)
    assert float((full - contents).abs().mean()) > 0.01


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"strength": 1.5}, "model.strength must be from 0 to 1"),
        ({"tv_weight": -1.0}, "tv_weight must be at least 0"),
        ({"architecture": partial(VGG, width=0.0625)}, "needs an architecture of the role transform, not VGG"),
    ],
)
def test_mistakes_end_in_one_line(changes: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        task(**changes)


QUICK = ["--config", "fast_style", "--trainer.logger", "false", "--trainer.accelerator", "cpu"]
QUICK += ["--trainer.max_epochs", "1", "--trainer.precision", "32-true", "--data.image_size", "32"]
QUICK += ["--data.resize", "40", "--data.crops", "4", "--data.batch_size", "2", "--model.architecture.width", "0.125"]
QUICK += ["--model.style_layers", "{network.bn1: 1.0, network.blocks.0.0: 1.0}"]
QUICK += ["--model.content_layers", "{network.blocks.0.0: 1.0}"]


@pytest.fixture
def trained(workspace: Path) -> Path:
    assert zoo("fit", *QUICK) == 0
    return folder_of("fast_style")


def test_from_training_to_a_folder_of_pictures(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = json.loads((trained / "results.json").read_text())
    names = {f"test/{name}{end}" for name in ("style", "content", "histogram", "spectrum") for end in ("", "_start")}
    assert names == set(figures)
    assert figures["test/content_start"] == pytest.approx(0, abs=1e-6)
    assert len(list((trained / "pictures").glob("test-stylised.png"))) == 1

    photos = Path("photos")
    photos.mkdir()
    Image.radial_gradient("L").resize((50, 41)).save(photos / "a.png")
    Image.radial_gradient("L").resize((33, 64)).save(photos / "b.jpg")
    frames = [Image.new("RGB", (24, 20), color) for color in ("red", "blue")]
    frames[0].save(photos / "c.gif", save_all=True, append_images=frames[1:])
    (photos / "d.png").write_bytes(b"no picture")
    run = ["predict", "--ckpt_path", str(trained), "--trainer.accelerator", "cpu", "--data.files", "photos"]
    assert zoo(*run, "--out", "full") == 1  # one can't be read
    output = capsys.readouterr()
    assert "unreadable   1: photos/d.png" in output.out
    made = sorted(Path("full/pictures").glob("*.png"))
    assert [path.name for path in made] == ["00-00000-a.png", "00-00001-b.png", "00-00002-c.png", "00-00003-c.png"]
    sizes = [Image.open(path).size for path in made]
    assert sizes == [(50, 41), (33, 64), (24, 20), (24, 20)]
    rows = json.loads(Path("full/predictions.json").read_text())
    assert [row["name"] for row in rows][2:] == ["photos/c.gif frame 0", "photos/c.gif frame 1"]

    assert zoo(*run, "--model.strength", "0", "--out", "none") == 1
    with Image.open("none/pictures/00-00000-a.png") as ours, Image.open(photos / "a.png") as given:
        assert ours.tobytes() == given.convert("RGB").tobytes()


def test_a_new_style_starts_from_another_ones_network(trained: Path) -> None:
    again = ["--data.style", "brick", "--model.weights", str(trained), "--no-test", "--out", "brick"]
    assert zoo("fit", *QUICK, *again, "--model.optimizer.lr", "0", "--model.scheduler", "null") == 0
    first, second = load(trained), load(Path("brick"))
    assert isinstance(first, FastStyleTransfer)
    assert isinstance(second, FastStyleTransfer)
    pairs = zip(first.architecture.parameters(), second.architecture.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.allclose(first.gram_patches, second.gram_patches)
    assert yaml.safe_load((Path("brick") / "recipe.yaml").read_text())["data"]["init_args"]["style"] == "brick"


def test_a_style_that_is_not_there_ends_in_one_line(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "fit", *QUICK, "--data.style", "painting.jpg")
    assert "data.style: no picture matches painting.jpg" in text


def test_random_weights_that_look_are_told_unless_they_come_from_another_style(tmp_path, capsys) -> None:
    made = task().float()
    line = "zoo: VGG looks with random weights; trained ones: model.perceptual.weights, model.perceptual_weights"
    assert line in capsys.readouterr().err
    trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path)
    trainer.strategy.connect(made)
    trainer.save_checkpoint(tmp_path / "made.ckpt")
    for name in ("weights", "perceptual_weights"):
        task(**{name: str(tmp_path / "made.ckpt")})
        assert "random" not in capsys.readouterr().err
