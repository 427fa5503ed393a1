"""Exported captioners give the captions that the task gives, by the printed lines alone."""

from __future__ import annotations

import contextlib
import io
import json
from functools import partial
from pathlib import Path
from typing import Any, cast

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from zoo import Facts
from zoo.architectures.base import Architecture, Stage
from zoo.architectures.caption_transformer import CaptionTransformer
from zoo.architectures.show_and_tell import ShowAndTell
from zoo.architectures.show_attend_and_tell import ShowAttendAndTell
from zoo.cli.export import _report
from zoo.errors import UserError
from zoo.export import export, write
from zoo.functional.decoding import greedy
from zoo.tasks.captioning import Captioning

SPECIAL = ["<pad>", "<start>", "<end>", "<unknown>"]
VOCABULARY = [*SPECIAL, "a", "red", "green", "circle", "square", "below", "above", "left", "of", "the"]
FACTS = Facts(
    vocabulary=VOCABULARY, pad_id=0, start_id=1, end_id=2, unknown_id=3, in_channels=3, image_size=[32, 48],
    mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.25],
)  # fmt: skip


class Tiny(Architecture):
    """One convolution, since tracing takes its time."""

    stages = [Stage("layer", 8, 8)]

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.layer = nn.Conv2d(in_channels, 8, 8, 8)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images)


NETWORKS: dict[str, Any] = {
    "transformer": partial(
        CaptionTransformer, cast(Any, Tiny), width=16, layers=1, heads=2, mlp_width=24, max_length=12
    ),
    "tell": partial(ShowAndTell, cast(Any, Tiny), width=12),
    "attend": partial(ShowAttendAndTell, cast(Any, Tiny), width=12, word_width=10),
}


def made(name: str) -> Captioning:
    torch.manual_seed(0)
    task = Captioning(NETWORKS[name], max_length=10, facts=FACTS)
    task.configure_model()
    with torch.no_grad():
        for parameter in task.architecture.parameters():
            parameter.mul_(3).add_(0.1 * torch.randn_like(parameter))
    return task.eval()


def images(count: int) -> Tensor:
    return (
        torch.rand(count, 3, 32, 48, generator=torch.Generator().manual_seed(1))
        ** torch.arange(1, count + 1)[:, None, None, None]
    )


@torch.no_grad()
def captions(task: Captioning, pictures: Tensor) -> list[str]:
    found = greedy(task.architecture, task.encode(pictures), task.ids, task._limits)
    return [task.tokenizer.decode(own[0].tolist()) for own in found.tokens]


def run_advice(lines: str, pictures: Tensor) -> list[str]:
    """What the printed lines print."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(lines, {"images": pictures.numpy()})
    return printed.getvalue().splitlines()


@pytest.mark.parametrize("name", ["transformer", "tell"])
def test_onnxruntime_gives_the_same_captions(name: str, tmp_path: Path) -> None:
    task, path = made(name), tmp_path / "caption.er.onnx"
    written = write(task, path)
    names = ["caption.er.encoder.onnx", "caption.er.step.onnx", "caption.er.tokenizer.json"]
    assert sorted(one.name for one in tmp_path.iterdir()) == names
    report = "\n".join(_report("onnx", written))
    lines = "\n".join(line[2:] for line in report.split("use it\n")[1].splitlines())
    for count in (5, 1):
        expected = captions(task, images(count))
        assert run_advice(lines, images(count)) == expected
    assert len({*captions(task, images(5))}) > 1  # the pictures differ
    assert "import zoo" not in lines
    step = onnxruntime.InferenceSession(str(tmp_path / names[1]))
    shapes = {port.name: port.shape for port in step.get_inputs()}
    assert shapes["tokens"] == ["batch"]
    if name == "transformer":
        assert shapes["keys_0"] == ["batch", 2, "past", 8]
        assert written.others[0].inputs[1].shape == ["batch", 2, "past", 8]
    outputs = {port.name for port in step.get_outputs()}
    assert ("attention" in outputs) == (name != "tell")
    described = json.loads(step.get_modelmeta().custom_metadata_map["outputs"])
    assert {one["name"] for one in described} == outputs


def test_programs_of_torch_export_give_the_same_captions(tmp_path: Path) -> None:
    task, path = made("attend"), tmp_path / "captioner.pt2"
    written = write(task, path, "torch_export")
    assert run_advice(written.usage, images(3)) == captions(task, images(3))


def test_nothing_is_overwritten_or_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, path = made("tell"), tmp_path / "captioner.pt2"
    (tmp_path / "captioner.step.pt2").touch()
    with pytest.raises(UserError, match=r"captioner\.step\.pt2 is there already"):
        export(task, path, "torch_export")
    assert [one.name for one in tmp_path.iterdir()] == ["captioner.step.pt2"]
    (tmp_path / "captioner.step.pt2").unlink()
    monkeypatch.setattr("zoo.export._difference", lambda plan, *rest: 1 / (plan.exported.name == "encoder"))
    with pytest.raises(ZeroDivisionError):
        export(task, path, "torch_export")
    assert not [*tmp_path.iterdir()]
