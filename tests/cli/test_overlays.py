"""Every overlay in recipes/trainer is laid on a toy recipe and run."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml
from running import folder_of, said, write_recipe, zoo

from zoo import registry

FOLDER = Path(__file__).parents[2] / "recipes" / "trainer"
TOY = ({"class_path": "ToyClassification"}, {"class_path": "ToyTensors"})


def fit(*overlays: str, **trainer: object) -> Path:
    write_recipe(Path("toy.yaml"), *TOY, **trainer)
    words = [word for overlay in overlays for word in ("--config", f"trainer/{overlay}")]
    assert zoo("fit", "--config", "toy.yaml", *words) == 0
    return folder_of("toy")


def resolved(folder: Path) -> dict:
    return yaml.safe_load((folder / "recipe.yaml").read_text())["trainer"]


def test_every_overlay_is_tested_here_and_changes_neither_model_nor_data():
    here = Path(__file__).read_text()
    for path in FOLDER.glob("*.yaml"):
        assert f'"{path.stem}"' in here or f'"trainer/{path.stem}"' in here, path
        assert set(yaml.safe_load(path.read_text())) == {"trainer"}, path
        assert path.read_text().startswith("# "), path
        assert registry.find_recipe(f"trainer/{path.stem}").resolve() == path.resolve()


class TestOverlays:
    def test_csv_takes_the_place_of_wandb(self):
        folder = fit("csv", logger=None)
        rows = list(csv.DictReader((folder / "csv" / "metrics.csv").open()))
        assert [row for row in rows if row["val/loss"]]
        assert not (folder / "wandb").exists()

    def test_tensorboard_takes_the_place_of_wandb(self):
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        folder = fit("tensorboard", logger=None)
        events = EventAccumulator(str(folder / "tensorboard"))
        events.Reload()
        assert "val/loss" in events.Tags()["scalars"]
        assert not (folder / "wandb").exists()

    def test_bf16_computes_in_bfloat16_and_keeps_float32_weights(self, monkeypatch):
        from zoo_toys.networks import ToyNet

        seen = set()
        forward = ToyNet.forward
        monkeypatch.setattr(ToyNet, "forward", lambda net, x: seen.add((out := forward(net, x)).dtype) or out)
        folder = fit("bf16")
        assert torch.bfloat16 in seen
        state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        assert state["architecture.conv.weight"].dtype == torch.float32

    def test_ema_averages_beside_the_recipes_own_callbacks(self):
        own = {"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"}
        write_recipe(Path("toy.yaml"), *TOY, callbacks=[own], logger=True)
        assert zoo("fit", "--config", "toy.yaml", "--config", "trainer/csv", "--config", "trainer/ema") == 0
        folder = folder_of("toy")
        classes = [c["class_path"].rpartition(".")[2] for c in resolved(folder)["callbacks"]]
        assert classes == ["LearningRateMonitor", "EMAWeightAveraging"]
        checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        name = "architecture.head.weight"
        assert not torch.equal(checkpoint["state_dict"][name], checkpoint["current_model_state"][name])

    def test_kept_features_trains_a_captioner_on_its_frozen_backbone_s_maps(self, capsys, tmp_path, monkeypatch):
        monkeypatch.setenv("ZOO_DATA", str(tmp_path))
        backbone = {"class_path": "ResNet", "init_args": {"depth": 20, "width": 0.25}}
        network = {"class_path": "ShowAndTell", "init_args": {"backbone": backbone, "width": 8}}
        frozen = {"parameter_groups": [{"pattern": "^backbone", "frozen": True}]}
        model = {"class_path": "Captioning", "init_args": {"architecture": network, **frozen}}
        sizes = {"image_size": 32, "scale": [0.3, 0.5], "train_size": 8, "val_size": 2, "test_size": 2, "batch_size": 4}
        write_recipe(Path("toy.yaml"), model, {"class_path": "SceneCaptions", "init_args": sizes})
        assert zoo("fit", "--config", "toy.yaml", "--config", "trainer/kept_features") == 0
        assert "feature maps kept in" in capsys.readouterr().err
        assert list((tmp_path / "features").glob("SceneCaptions-*.npy"))
        assert [c["class_path"].rpartition(".")[2] for c in resolved(folder_of("toy"))["callbacks"]] == ["KeptFeatures"]
        write_recipe(Path("toy.yaml"), *TOY)
        wrong = said(capsys, "fit", "--config", "toy.yaml", "--config", "trainer/kept_features")
        assert "KeptFeatures is for captioners over a backbone, not for ToyNet" in wrong

    @pytest.mark.parametrize(("overlay", "name"), [("compile", "Compile"), ("channels_last", "ChannelsLast")])
    def test_acceleration_is_added_to_the_recipes_own_callbacks(self, monkeypatch, overlay, name):
        started = []
        monkeypatch.setattr(
            f"zoo.training.acceleration.{name}.change", lambda self, network, device: started.append(network)
        )
        monkeypatch.setattr(f"zoo.training.acceleration.{name}.restore", lambda self, network: None)
        own = {"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"}
        write_recipe(Path("toy.yaml"), *TOY, callbacks=[own], logger=True)
        assert zoo("fit", "--config", "toy.yaml", "--config", "trainer/csv", "--config", f"trainer/{overlay}") == 0
        classes = [c["class_path"].rpartition(".")[2] for c in resolved(folder_of("toy"))["callbacks"]]
        assert classes == ["LearningRateMonitor", name]
        assert [type(network).__name__ for network in started] == ["ToyNet", "ToyNet"]  # to train, and to test

    def test_sync_batchnorm_changes_nothing_on_one_process(self):
        alone, other = (
            torch.load(fit(*overlays) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
            for overlays in ((), ("sync_batchnorm",))
        )
        assert alone.keys() == other.keys()
        assert all(torch.equal(alone[name], other[name]) for name in alone)

    def test_sync_batchnorm_on_several_cpu_processes_ends_in_one_line(self, capsys):
        write_recipe(Path("toy.yaml"), *TOY)
        words = ("--config", "toy.yaml", "--config", "trainer/ddp", "--config", "trainer/sync_batchnorm")
        assert "PyTorch synchronises batch norm on GPUs only" in said(capsys, "fit", *words)

    def test_debug_takes_three_steps_of_training_and_two_of_evaluation(self):
        folder = fit("debug")
        assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
        assert json.loads((folder / "results.json").read_text())["test/loss"] > 0

    def test_overlays_lie_on_top_of_each_other_and_flags_on_top_of_them(self):
        write_recipe(Path("toy.yaml"), *TOY)
        words = ["--config", "toy.yaml", "--config", "trainer/debug", "--config", "trainer/bf16"]
        assert zoo("fit", *words, "--trainer.limit_train_batches", "1") == 0
        trainer = resolved(folder_of("toy"))
        assert (trainer["precision"], trainer["limit_train_batches"], trainer["limit_val_batches"]) == (
            "bf16-mixed",
            1,
            2,
        )


@pytest.mark.slow
def test_ddp_runs_two_processes_that_end_alike(tmp_path, zoo_process):
    toys = str(Path(__file__).parent.parent / "toys")
    recipe = write_recipe(tmp_path / "toy.yaml", *TOY, max_epochs=1)
    found = zoo_process("fit", "--config", str(recipe), "--config", "trainer/ddp", PYTHONPATH=toys)
    assert found.returncode == 0, found.stderr
    assert "2 ×" in found.stdout
    assert len(list(Path("runs/toy").iterdir())) == 1
    assert found.stdout.count("test/loss ") == 1
