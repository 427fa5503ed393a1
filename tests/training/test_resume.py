"""A run that was stopped at any step and resumed by its checkpoint alone ends with identical bits.

The main job and the adversarial one are resumed at every step, the other cases at those around an epoch's end, and at
every one by ``pytest -m exhaustive``.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
from running import different, folder_of, said, state, write_recipe, zoo

SGD = {"class_path": "SGD", "init_args": {"lr": 0.05, "momentum": 0.9}}
CLASSIFY = {"class_path": "ToyClassification", "init_args": {"architecture": "ToyNet", "optimizer": SGD}}


def classify(scheduler: dict[str, Any]) -> dict[str, Any]:
    return {"class_path": "ToyClassification", "init_args": {**CLASSIFY["init_args"], "scheduler": scheduler}}


EMA = {"class_path": "EMAWeightAveraging", "init_args": {"decay": 0.5}}
ONE_CYCLE = classify({"class_path": "OneCycleLR", "init_args": {"max_lr": 0.1}})
PLATEAU = classify(
    {"class_path": "torch.optim.lr_scheduler.ReduceLROnPlateau", "init_args": {"patience": 0, "threshold": 0.5}}
)
GAN = {"class_path": "ToyGAN", "init_args": {"generator": "ToyGenerator"}}
SMALL = {"class_path": "ResNet", "init_args": {"depth": 20, "width": 0.25}}
MASKS = {
    "class_path": "InstanceSegmentation",
    "init_args": {
        "architecture": {
            "class_path": "MaskRCNN",
            "init_args": {
                "backbone": SMALL,
                "levels": [2, 4],
                "extra_level": False,
                "pyramid_channels": 8,
                "anchor_sizes": [12, 24],
                "min_size": None,
                "box_head_width": 16,
                "box_samples": 8,
                "anchor_samples": 16,
                "proposals_train": 16,
                "proposals_test": 4,
            },
        },
        "optimizer": SGD,
    },
}
MIXED = {
    "class_path": "Scenes",
    "init_args": {
        "image_size": 48,
        "train_size": 6,
        "val_size": 2,
        "batch_size": 2,
        "fresh": True,
        "augment": [{"class_path": "CopyPaste"}, {"class_path": "LargeScaleJitter"}],
        "strong_augment": [{"class_path": "Mosaic"}, {"class_path": "DetectionMixUp"}],
        "strong_epochs": 1,
    },
}
TELL = {
    "class_path": "Captioning",
    "init_args": {
        "architecture": {"class_path": "ShowAndTell", "init_args": {"backbone": SMALL, "width": 12}},
        "optimizer": SGD,
    },
}
SAID = {
    "class_path": "SceneCaptions",
    "init_args": {
        "image_size": 32,
        "scale": [0.3, 0.5],
        "train_size": 8,
        "val_size": 2,
        "batch_size": 2,
        "fresh": True,
    },
}
FLOW = {
    "class_path": "FlowMatching",
    "init_args": {
        "denoiser": {
            "class_path": "DenoisingUNet",
            "init_args": {"width": 8, "multipliers": [1], "attention": [], "blocks": 1},
        },
        "conditional": True,
        "steps": 1,
    },
}
ADVERSARIAL = {
    "class_path": "GAN",
    "init_args": {
        "generator": {"class_path": "DCGANGenerator", "init_args": {"latent": 4, "widths": [8, 4]}},
        "discriminator": {"class_path": "DCGANDiscriminator", "init_args": {"widths": [4, 8], "norm": "spectral"}},
        "loss": "relativistic",
        "r1": 1.0,
        "discriminator_steps": 2,
        "augment": ["colour", "translation", "cutout"],
        "conditional": True,
    },
}
AVERAGED = {"callbacks": [{"class_path": "MovingAverage"}]}
FEW = {"limit_train_batches": 3, "limit_val_batches": 1}
CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "in memory": (CLASSIFY, "ToyTensors", {}),
    "workers": (
        CLASSIFY,
        {"class_path": "ToySamples", "init_args": {"num_workers": 2}},
        {"max_epochs": 1, "max_steps": 5},
    ),
    "a part each epoch, by workers that live on": (
        CLASSIFY,
        {"class_path": "ToyParts", "init_args": {"num_workers": 2}},
        {"max_epochs": 3, "limit_val_batches": 1},
    ),
    "no workers": (CLASSIFY, "ToySamples", {}),
    "no validation": (CLASSIFY, {"class_path": "ToyTensors", "init_args": {"validation": False}}, {}),
    "accumulation": (CLASSIFY, "ToyTensors", {"accumulate_grad_batches": 4}),
    "validation counted over epochs": (
        PLATEAU,
        "ToyTensors",
        {"check_val_every_n_epoch": None, "val_check_interval": 4},
    ),
    "one-cycle": (ONE_CYCLE, "ToyTensors", {}),
    "plateau": (PLATEAU, "ToyTensors", {"max_epochs": 3}),
    "weight averaging": (ONE_CYCLE, "ToyTensors", {"callbacks": [EMA]}),
    "ends in mid-epoch": (CLASSIFY, "ToyTensors", {"max_epochs": -1, "max_steps": 9}),
    "half precision": (CLASSIFY, "ToyTensors", {"precision": "bf16-mixed"}),
    "lists": ("ToyDetection", "ToyBoxes", {}),
    "two optimisers": (GAN, "ToyTensors", {}),
    "boxes and masks that are pasted and mixed": (MASKS, MIXED, {}),
    "captions": (TELL, SAID, {}),
    "flow and its average": (FLOW, "Digits", {**FEW, "callbacks": [{"class_path": "MovingAverage"}]}),
    "adversarial, gathered and averaged": (
        ADVERSARIAL,
        "Digits",
        {**AVERAGED, "limit_train_batches": 5, "limit_val_batches": 1, "accumulate_grad_batches": 2},
    ),
    "image as parameter": ("ToyImage", "ToyPicture", {"max_epochs": 3}),
}


# Whose networks take turns, so that a state of the run is one of several kinds.
TURNS = ("adversarial, gathered and averaged",)


def some(steps: list[Path], epochs: int) -> list[Path]:
    """The first step, the last of the first epoch, the first of the second, and the last but one of the run."""
    epoch = (len(steps) + 1) // max(epochs, 2)
    return [steps[i] for i in sorted({0, epoch - 1, epoch, len(steps) - 1})]


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.exhaustive)], ids=["some", "every"])
@pytest.mark.parametrize("name", CASES)
def test_resumes_exactly(name: str, every: bool, tmp_path: Path, workspace: Path) -> None:
    model, data, trainer = CASES[name]
    model = model if isinstance(model, dict) else {"class_path": model}
    data = data if isinstance(data, dict) else {"class_path": data}
    recipe = write_recipe(tmp_path / "case.yaml", model, data, **trainer)
    assert zoo("fit", "--config", str(recipe), "--no_test", "--checkpoint_every_n_steps", "1") == 0
    whole = folder_of("case") / "checkpoints"
    wanted = state(whole / "last.ckpt")
    end = wanted["global_step"]
    numbers = {int(f.stem.partition("=")[2]): f for f in whole.glob("step=*.ckpt")}
    steps = [numbers[number] for number in sorted(numbers) if number < end]
    assert len(steps) >= 2
    for step in steps if every or name in TURNS else some(steps, trainer.get("max_epochs", 2)):
        alone = tmp_path / "elsewhere" / step.name
        alone.parent.mkdir(exist_ok=True)
        shutil.copy(step, alone)
        assert zoo("fit", "--ckpt_path", str(alone), "--no_test") == 0
        found = different(wanted, state(folder_of("case") / "checkpoints" / "last.ckpt"))
        assert not found, f"{name}: resumed at {step.stem}, these differ: {found[:5]}"


def test_a_schedule_over_the_whole_run_keeps_its_length(tmp_path: Path, workspace: Path, capsys) -> None:
    recipe = write_recipe(tmp_path / "case.yaml", ONE_CYCLE, {"class_path": "ToyTensors"}, max_epochs=1)
    assert zoo("fit", "--config", str(recipe), "--no_test") == 0
    last = str(folder_of("case") / "checkpoints" / "last.ckpt")
    capsys.readouterr()
    for flag in ("max_epochs", "accumulate_grad_batches"):
        line = said(capsys, "fit", "--ckpt_path", last, f"--trainer.{flag}", "2")
        assert f"trainer.{flag} can't change when a run is resumed with OneCycleLR" in line


@pytest.mark.parametrize(
    ("model", "extra", "name"),
    [
        (PLATEAU, {}, "ReduceLROnPlateau"),
        (
            CLASSIFY,
            {"callbacks": [{"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss"}}]},
            "EarlyStopping",
        ),
    ],
)
def test_what_waits_for_a_validation_that_never_comes_is_refused(
    model: Any, extra: Any, name: str, tmp_path: Path, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without = {"class_path": "ToyTensors", "init_args": {"validation": False}}
    line = said(capsys, "fit", "--config", str(write_recipe(tmp_path / "case.yaml", model, without, **extra)))
    assert f"{name} waits for val/loss" in line
    never = write_recipe(tmp_path / "never.yaml", model, {"class_path": "ToyTensors"}, limit_val_batches=0, **extra)
    assert f"{name} waits for val/loss" in said(capsys, "fit", "--config", str(never))
    rare = write_recipe(tmp_path / "rare.yaml", model, {"class_path": "ToyTensors"}, check_val_every_n_epoch=2, **extra)
    assert zoo("fit", "--config", str(rare), "--no_test") == 0


def test_the_main_job_resumes_exactly_from_every_step(tmp_path: Path, workspace: Path) -> None:
    few = ["--trainer.limit_train_batches", "3", "--trainer.max_epochs", "2", "--trainer.limit_val_batches", "1"]
    small = ["--model.architecture.width", "0.05", "--trainer.logger", "false", "--trainer.accelerator", "cpu"]
    assert zoo("fit", "--config", "alexnet", *few, *small, "--no_test", "--checkpoint_every_n_steps", "1") == 0
    whole = folder_of("alexnet") / "checkpoints"
    for step in range(1, 6):
        alone = shutil.copy(whole / f"step={step}.ckpt", tmp_path / "alone.ckpt")
        assert zoo("fit", "--ckpt_path", str(alone), "--no_test") == 0
        found = different(state(whole / "last.ckpt"), state(folder_of("alexnet") / "checkpoints" / "last.ckpt"))
        assert not found, f"resumed at step {step}, these differ: {found[:5]}"


def test_the_seed_matters(tmp_path: Path, workspace: Path) -> None:
    """Guards the comparison itself: another seed gives other weights."""
    recipe = write_recipe(tmp_path / "case.yaml", CLASSIFY, {"class_path": "ToyTensors"})
    ends = []
    for seed in ("1", "1", "2"):
        assert zoo("fit", "--config", str(recipe), "--no_test", "--seed_everything", seed) == 0
        ends.append(state(folder_of("case") / "checkpoints" / "last.ckpt"))
    assert not different(ends[0], ends[1])
    assert different(ends[0], ends[2])
