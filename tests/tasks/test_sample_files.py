"""What zoo predict writes of samples: ways between seeds, animations of the sampling, and the bar over its steps."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from known_denoiser import FACTS, Known
from PIL import Image, ImageSequence
from running import quiet_trainer
from torch import Tensor

from zoo.data.requests import Samples
from zoo.errors import UserError
from zoo.tasks.edm import EDM
from zoo.tasks.flow_matching import FlowMatching
from zoo.tasks.sample_files import FRAMES, Frames
from zoo.training.predicting import PredictionFiles
from zoo.training.sampler_bar import SamplerBar


def built(**options: Any) -> FlowMatching:
    task = FlowMatching(partial(Known, kind="flow"), conditional=True, facts=FACTS, **{"steps": 3, **options})
    task.configure_model()
    return task


def predicted(folder: Path, task: FlowMatching, **asked: Any) -> list[dict[str, Any]]:
    quiet_trainer(callbacks=[PredictionFiles(folder)]).predict(
        task, datamodule=Samples(**asked), return_predictions=False
    )
    return json.loads((folder / "predictions.json").read_text())


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L")).astype(int)


def test_a_row_leads_from_one_seed_to_another(tmp_path: Path) -> None:
    task = built()
    rows = predicted(tmp_path, task, count=2, classes=[2, 0], seed=4, to_seed=5, columns=4, batch_size=3)
    assert [row["class"] for row in rows] == ["c"] * 4 + ["a"] * 4
    assert [row["weight"] for row in rows] == pytest.approx([0, 1 / 3, 2 / 3, 1] * 2)
    for number, label in ((0, 2), (1, 0)):
        for place, seed in ((0, 4), (3, 5)):
            alone = task.sample(torch.tensor([number]), torch.tensor([label]), seed)[0, 0]
            found = pixels(tmp_path / rows[4 * number + place]["picture"])
            assert np.abs(found - (255 * alone).round().numpy()).max() <= 1
    assert Image.open(tmp_path / "samples.png").size == (4 * 6 + 2, 2 * 6 + 2)
    row = [pixels(tmp_path / rows[place]["picture"]) for place in range(4)]
    gone = [np.abs(one - row[0]).sum() for one in row]
    assert gone[0] < gone[1] < gone[2] < gone[3]


def test_an_animation_ends_with_the_samples(tmp_path: Path) -> None:
    rows = predicted(tmp_path, built(), count=5, animation=True, batch_size=2)
    with Image.open(tmp_path / "samples.gif") as made:
        frames = [np.asarray(frame.convert("L")).astype(int) for frame in ImageSequence.Iterator(made)]
    assert len(frames) == 3
    last = pixels(tmp_path / "samples.png")
    assert np.abs(frames[-1] - last).max() <= 1
    assert np.abs(frames[0] - last).max() > 20
    strip = pixels(tmp_path / "steps" / "sample-00003.png")
    assert strip.shape == (4, 12)
    assert np.array_equal(strip[:, 8:], pixels(tmp_path / rows[3]["picture"]))


def test_a_long_way_has_few_frames_and_its_end() -> None:
    def shown(index: int, x: Tensor) -> Tensor:
        return x

    frames = Frames(1000, shown)
    for index in range(1000):
        frames(index, torch.full((2, 1, 1, 1), index / 999), None)
    found = frames.of_sample(1).flatten()
    assert len(found) == FRAMES
    assert found[-1] == 255
    assert int(found[1:].int().diff().max()) <= 255 / FRAMES + 1


def test_much_noise_is_shown_with_less_contrast() -> None:
    task = EDM(partial(Known, kind="edm"), conditional=True, facts=FACTS, steps=6)
    task.configure_model()
    first = task.shown_step(0, task.sampling_times(6)[1] * torch.randn(100, 1, 4, 4))
    assert float(((first == 0) | (first == 1)).float().mean()) < 0.5
    last = torch.tensor([[-0.5, 0.5]])
    torch.testing.assert_close(task.shown_step(5, last), (last + 1) / 2)


def test_steps_are_counted_on_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    class Bar(SamplerBar):
        seen: list[tuple[int, int]] = []

        def stepped(self, done: int, steps: int) -> None:
            super().stepped(done, steps)
            self.seen.append((done, steps))
            assert self.progress is not None
            shown = {task.description: task for task in self.progress.tasks}
            (bar,) = (task for name, task in shown.items() if "Sampling" in name)
            assert (bar.completed, bar.total, bar.visible) == (done, steps, done < steps)

    bar = Bar()
    trainer = quiet_trainer(callbacks=[bar], enable_progress_bar=True)
    trainer.predict(built(), datamodule=Samples(count=4, batch_size=2), return_predictions=False)
    assert bar.seen == [(1, 3), (2, 3), (3, 3)] * 2


def test_samples_made_at_once_have_no_steps_to_show() -> None:
    with pytest.raises(UserError, match=r"data\.animation: FlowMatching makes samples at once"):
        built(steps=1).predict_step((torch.tensor([[0, 0, -1, 0, 0, 1, 1]]), ["a"]), 0)
