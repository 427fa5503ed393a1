"""Every installed recipe runs: a few steps of fit and its test, on small files in its data set's own format."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from running import folder_of, zoo

from zoo import registry
from zoo.testing.checks import accepted

PICTURES = ("pictures", "style_transfer", "texture")  # forms of a batch whose data are files of the package
RECIPES = [r for r in registry.recipes() if r.package == "lightning-zoo" and not r.name.startswith("trainer/")]
FEW = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1"]
FEW += ["--trainer.limit_test_batches", "1", "--trainer.logger", "false", "--trainer.accelerator", "cpu"]
# Networks of many million parameters, which take long to train and to write: those run are narrow. Name, and millions.
WIDE = {"vgg16": 138.4, "alexnet": 61.0, "resnet18": 11.7, "resnet50": 25.6, "resnet152": 60.2}
GROWING = {"imagenet/densenet121": 8.0, "cifar10/densenet_bc190_40": 25.6, "cifar10/densenet_bc250_24": 15.3}
OWN = {**{f"imagenet/{name}": size for name, size in WIDE.items()}, **GROWING}
NARROW = {f"imagenet/{name}": ["--model.architecture.width", "0.25"] for name in WIDE}
NARROW |= {name: ["--model.architecture.growth_rate", "8"] for name in GROWING}
# Weights that would be downloaded, and images of up to 800 pixels.
NARROW["coco/rtdetr_r50"] = [
    *("--model.architecture.backbone.weights", "null", "--model.architecture.backbone.name", "resnet18"),
    *("--model.architecture.input_size", "[64, 64]"),
    *("--model.architecture.train_sizes", "[64, 96]", "--model.architecture.num_queries", "20"),
    *("--model.architecture.width", "32", "--model.architecture.decoder_layers", "1"),
]
for name in ("faster_rcnn", "fcos", "mask_rcnn", "retinanet"):
    SMALLER = {
        "backbone.weights": "null",
        "backbone.name": "resnet18",
        "min_size": "64",
        "max_size": "64",
        "pyramid_channels": "32",
    }
    NARROW[f"coco/{name}"] = [w for k, v in SMALLER.items() for w in (f"--model.architecture.{k}", v)]
    NARROW[f"coco/{name}"] += ["--model.parameter_groups", "null"]  # random weights need their batch statistics
# Backbones whose weights would be downloaded, and large pictures.
SEGMENTERS = ("voc/fcn_resnet50", "voc/deeplabv3_resnet50", "voc/lraspp_mobilenet_v3")
OFFLINE = {"--model.architecture.backbone.weights": "null", "--data.image_size": "64", "--data.num_workers": "0"}
NARROW |= {name: [word for pair in OFFLINE.items() for word in pair] for name in SEGMENTERS}

# The same of captioners, and splits of a file that the small pictures have not.
CAPTIONERS = ("coco/show_attend_and_tell", "coco/self_critical", "flickr8k/show_attend_and_tell")
SHORT = [word for pair in OFFLINE.items() for word in pair] + ["--model.architecture.width", "16"]
NARROW |= dict.fromkeys(CAPTIONERS, SHORT)
for name in CAPTIONERS[:2]:
    NARROW[name] = [*SHORT, "--data.karpathy", "false"]

# Samples by many calls of the network, and a judge's training.
JUDGED = ["--model.test_samples", "20", "--model.judge_epochs", "1"]
SAMPLED = ["--model.steps", "2", *JUDGED]
ADVERSARIAL = ("dcgan", "wgan_gp", "r3gan")
NARROW |= dict.fromkeys(ADVERSARIAL, JUDGED)
SLIM = [
    f"--model.{network}.{k}={v}" for network in ("generator", "discriminator") for k, v in (("widths", "[16, 16]"),)
]
NARROW["cifar10/r3gan"] = [*SLIM, "--model.generator.blocks", "1", "--trainer.precision", "32"]
NARROW |= dict.fromkeys(("diffusion", "edm", "flow_matching"), SAMPLED)
NARROW["vae"] = JUDGED

# In the data of every recipe that has these arguments; no worker process, which other tests start.
SMALL = {"batch_size": 2, "eval_batch_size": 2, "train_size": 8, "val_size": 2, "test_size": 2, "num_workers": 0}
PIXELS = {"image_size": 64, "resize": 72}


def small_data(recipe: dict[str, Any], root: Path) -> list[str]:
    """Flags that let the recipe read small files instead of its data set, in small batches; or small pictures."""
    (entry,) = registry.find(recipe["data"]["class_path"].rpartition(".")[2], "data")
    cls: Any = entry.load()
    if cls.batch in PICTURES:
        return ["--data.size", "64", "--data.steps", "2"]
    given = recipe["data"].get("init_args", {})
    large = isinstance(size := given.get("image_size"), int) and size > PIXELS["image_size"]
    smaller = SMALL | (PIXELS if large else {})
    words = [word for k, v in smaller.items() if k in accepted(cls) for word in (f"--data.{k}", str(v))]
    return [*words, *example_files(cls, root)]


def example_files(cls: Any, root: Path) -> list[str]:
    """Flags that name them."""
    written = cls.write_example(root)
    kept = {k: v for k, v in written.items() if k in ("root", "check")}
    if kept:
        kept["val_fraction"] = 0.4  # of a handful of images a class
    return [word for k, v in kept.items() for word in (f"--data.{k}", str(v))]


@pytest.mark.parametrize("name", [r.name for r in RECIPES])
def test_recipe_runs(name: str, workspace: Path) -> None:
    recipe = yaml.safe_load(registry.find_recipe(name).read_text())
    flags = [*FEW, *NARROW.get(name, ()), *small_data(recipe, workspace / "files")]
    assert zoo("fit", "--config", name, *flags) == 0
    assert (folder_of(name) / "results.json").is_file()


@pytest.mark.parametrize("name", OWN)
def test_a_recipe_that_runs_narrow_has_the_published_network(name: str) -> None:
    network = yaml.safe_load(registry.find_recipe(name).read_text())["model"]["init_args"]["architecture"]
    network = network if isinstance(network, dict) else {"class_path": network}
    (entry,) = registry.find(network["class_path"], "architectures")
    classes = 1000 if name.startswith("imagenet") else 10
    with torch.device("meta"):
        built = entry.load()(num_classes=classes, **network.get("init_args", {}))
    assert sum(p.numel() for p in built.parameters()) / 1e6 == pytest.approx(OWN[name], abs=0.05)


@pytest.mark.parametrize("name", [r.name for r in RECIPES])
def test_recipe_names_what_it_is_to_reach(name: str) -> None:
    head = [line for line in registry.find_recipe(name).read_text().splitlines() if line.startswith("#")]
    assert any("target" in line.lower() or "no published" in line.lower() for line in head), head
