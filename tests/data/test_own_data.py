"""The examples of docs/howto/own-data.md train."""

import csv

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from zoo_toys.own_data import Fields, Leaves, Tones

from zoo.architectures.lenet import LeNet
from zoo.tasks.classification import Classification
from zoo.testing.checks import CHECKS
from zoo.testing.data import DataCase


def fields(folder):
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = generator.integers(0, 5000, (60, 5, 32, 32)) + 5000 * labels[:, None, None, None]
    np.savez(folder / "fields.npz", images=images.astype(np.uint16), labels=labels)
    return Fields(str(folder / "fields.npz"), batch_size=16, val_fraction=0.25)


def leaves(folder):
    with (folder / "leaves.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "name", "part"])
        for number in range(40):
            name = ("oak", "ash")[number % 2]
            Image.new("RGB", (50 + number, 60), (200, 90, 90) if name == "oak" else (90, 90, 200)).save(
                folder / f"{number}.jpg"
            )
            table.writerow([f"{number}.jpg", name, "test" if number >= 32 else "train"])
    return Leaves(str(folder), batch_size=8, image_size=32, val_fraction=0.25)


def tones(folder):
    return Tones()


@pytest.mark.parametrize("make", [fields, leaves, tones])
def test_the_examples_train(make, tmp_path):
    data, again = make(tmp_path), make(tmp_path)
    task = Classification(LeNet, torch.optim.Adam)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(accelerator="cpu", devices=1, max_epochs=4, num_sanity_val_steps=0, **quiet)
    trainer.fit(task, datamodule=data)
    assert trainer.callback_metrics["val/top1"] > 0.9
    assert data.plain_hparams() == again.plain_hparams()
    again.setup("fit")
    assert again.facts == data.facts
    assert task.facts["in_channels"] == data.facts["in_channels"]


class Checked(Fields):
    """With what the conformance kit wants of an entry: a small example in the set's own format."""

    @classmethod
    def write_example(cls, root):
        return {"file": str(fields(root).file), "val_fraction": 0.25}


def test_five_bands_of_sixteen_bits_pass_the_kit():
    case = DataCase(Checked, "classification")
    checks = [check for check in CHECKS if check.kind == "data" and check.is_for("classification")]
    assert len(checks) > 15
    for check in checks:
        check.run(case)
