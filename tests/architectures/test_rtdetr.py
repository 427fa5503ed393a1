"""RT-DETR: its parts against written-out forms, its size against the paper's, and what its queries may see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo.architectures.base import parameter_count
from zoo.architectures.deformable import DeformableAttention, deformable_attention
from zoo.architectures.hybrid_encoder import position_encoding
from zoo.architectures.query_decoder import anchor_logits
from zoo.architectures.resnet import ResNet
from zoo.architectures.rtdetr import RTDETR
from zoo.errors import UserError
from zoo.export import export
from zoo.facts import Facts
from zoo.functional.denoising_queries import denoising_queries
from zoo.functional.matching import Objects
from zoo.tasks.detection import Detection

SMALL = partial(ResNet, depth=18, width=0.125)
TINY = partial(ResNet, depth=8, width=0.5)  # maps at 1, 1/2 and 1/4


def network(**options: Any) -> RTDETR:
    torch.manual_seed(0)
    made = RTDETR(**{**RTDETR.example, "backbone": SMALL, "input_size": (64, 96), **options})
    for name, p in made.named_parameters():  # layers that start at zero would hide the others
        if name.startswith("decoder") and p.dim() > 1:
            nn.init.normal_(p, 0, 0.2)
    return made


def target(*boxes: Sequence[float], label: int = 1) -> dict[str, Tensor]:
    return {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": torch.full((len(boxes),), label)}


def images(*sizes: tuple[int, int]) -> list[Tensor]:
    random = torch.Generator().manual_seed(1)
    return [torch.randn(3, *size, generator=random) for size in sizes]


def test_parameters_of_the_paper() -> None:
    """42 million (table 2) with both branches of each RepVGG block merged, as the authors deploy it."""
    with torch.device("meta"):
        made = RTDETR(partial(ResNet, depth=50))
    merged = sum(parameter_count(m.conv1) + 256 * 2 + 256 for m in made.modules() if type(m).__name__ == "RepVGGBlock")
    assert parameter_count(made) == 42_925_388
    assert (parameter_count(made) - merged) / 1e6 == pytest.approx(42, abs=0.5)


# Deformable attention


def bilinear(value: Tensor, x: float, y: float) -> Tensor:
    """A map (C, H, W) at a place in [0, 1], pixel by pixel; zeros outside."""
    column, row = x * value.shape[2] - 0.5, y * value.shape[1] - 0.5
    left, top = math.floor(column), math.floor(row)
    found = torch.zeros_like(value[:, 0, 0])
    for i, j in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= i < value.shape[1] and 0 <= j < value.shape[2]:
            found = found + value[:, i, j] * (1 - abs(row - i)) * (1 - abs(column - j))
    return found


def test_deformable_attention_written_out() -> None:
    random = torch.Generator().manual_seed(0)
    batch, queries, heads, points, channels, sizes = 2, 3, 2, 2, 4, ((5, 7), (3, 2))
    values = [torch.randn(batch, heads, channels, *size, generator=random, dtype=torch.float64) for size in sizes]
    shape = batch, queries, heads, len(sizes), points
    places = 1.4 * torch.rand(*shape, 2, generator=random, dtype=torch.float64) - 0.2  # some outside
    weights = torch.rand(shape, generator=random, dtype=torch.float64)
    found = deformable_attention(values, places, weights)
    for b, q, h in ((b, q, h) for b in range(batch) for q in range(queries) for h in range(heads)):
        wanted = sum(
            weights[b, q, h, level, p] * bilinear(values[level][b, h], *places[b, q, h, level, p].tolist())
            for level in range(len(sizes))
            for p in range(points)
        )
        torch.testing.assert_close(found[b, q, h * channels : (h + 1) * channels], wanted)


def test_deformable_attention_starts_as_a_mean_over_a_star() -> None:
    """Eight directions, point k at k/points of half the box: the value there, by a map that is the place itself."""
    layer = DeformableAttention(16, heads=8, levels=1, points=2).double()
    ramp = (torch.arange(64, dtype=torch.float64) + 0.5) / 64
    maps = torch.zeros(1, 16, 64, 64, dtype=torch.float64)
    maps[0, ::2], maps[0, 1::2] = ramp, ramp[:, None]  # x in even channels, y in odd ones
    for part in (layer.value, layer.output):
        nn.init.eye_(part.weight)
    box = torch.tensor([[[0.5, 0.4, 0.2, 0.4]]], dtype=torch.float64)
    found = layer(torch.randn(1, 1, 16, dtype=torch.float64), box, [maps]).view(8, 2)
    ways = torch.tensor([[1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0], [-1, -1], [0, -1], [1, -1]], dtype=torch.float64)
    torch.testing.assert_close(found, box[0, 0, :2] + 0.75 * ways * box[0, 0, 2:] / 2, atol=1e-6, rtol=0)


# Encoder and queries


def test_position_encoding() -> None:
    found = position_encoding(3, 5, 16, torch.zeros((), dtype=torch.float64))
    for row, column, k in ((2, 4, 1), (1, 3, 3)):
        angles = [place / 10000 ** (k / 4) for place in (column, row)]
        wanted = [f(angle) for angle in angles for f in (math.sin, math.cos)]
        assert found[row * 5 + column, k::4].tolist() == pytest.approx(wanted, abs=1e-6)


def test_anchors_are_their_pixels_centres() -> None:
    logits, inside = anchor_logits([(80, 80), (2, 4)], torch.zeros(1))
    assert logits.sigmoid()[-1].tolist() == pytest.approx([0.875, 0.75, 0.1, 0.1])
    assert inside[:6400].view(80, 80)[1:-1, 1:-1].all()
    assert int(inside.sum()) == 78 * 78 + 8


def test_queries_are_the_pixels_of_the_highest_scores() -> None:
    decoder = network().decoder.eval()
    maps = [torch.randn(2, 16, 8 // n, 12 // n, generator=torch.Generator().manual_seed(n)) for n in (1, 2, 4)]
    with torch.no_grad():
        queries, logits, _ = decoder.choose(maps)
        pixels = decoder.memory(torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1))
    best = decoder.choice_classes(pixels).amax(-1).sort(descending=True)
    torch.testing.assert_close(logits.amax(-1), best.values[:, :6])
    torch.testing.assert_close(queries[1], pixels[1, best.indices[1, :6]])


def test_queries_do_not_see_denoising_queries() -> None:
    """Nor does one group see another."""
    made = network().train()
    made.eval()
    for layer in made.decoder.children():
        layer.train()
    made.decoder.training = True  # all layers' outputs
    true = Objects(torch.tensor([1, 2]), torch.tensor([[0.4, 0.5, 0.2, 0.3], [0.6, 0.5, 0.1, 0.1]]), [2])
    maps = [torch.randn(1, 16, 8 // n, 12 // n) for n in (1, 2, 4)]
    made.decoder.projections.eval()
    noisy = denoising_queries(true, made.num_classes, 6)
    boxes = noisy.boxes.clone()
    boxes[:, 1] = torch.tensor([0.9, 0.1, 0.05, 0.6])  # of the first of three groups
    with torch.no_grad():
        before, after, without = (made.decoder(maps, n) for n in (noisy, noisy._replace(boxes=boxes), None))
    assert before.logits.shape == (2, 1, 6, 4)
    assert before.noisy_logits.shape == (2, 1, 12, 4)
    for name in ("logits", "boxes"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name), atol=0, rtol=0)
        torch.testing.assert_close(getattr(without, name), getattr(before, name))
    changed = (after.noisy_logits - before.noisy_logits).abs().amax((0, 1, 3)) > 1e-6
    assert changed.tolist() == [True] * 4 + [False] * 8


# The whole network


def test_images_without_objects_and_boxes_without_area_train() -> None:
    made, given = network(), images((64, 96), (40, 30))
    nothing, flat = target(), target((3.0, 3.0, 3.0, 9.0))
    for targets in ([target((3.0, 4.0, 20.0, 30.0), (0.0, 0.0, 9.0, 9.0)), nothing], [nothing, flat]):
        made.zero_grad()
        losses = made(given, targets)
        names = {"loss_varifocal", "loss_l1", "loss_giou", "loss_encoder", "loss_denoising"}
        assert losses.keys() == names
        torch.stack([*losses.values()]).sum().backward()
        grads = {name: p.grad for name, p in made.named_parameters()}
        assert not [name for name, grad in grads.items() if grad is None or not grad.isfinite().all()]
    assert float(losses["loss_l1"]) == 0
    with pytest.raises(UserError, match="targets"):
        made(given)


def test_losses_fall() -> None:
    made = network(backbone=TINY, input_size=(16, 16), decoder_layers=1)
    given, boxes = torch.zeros(4, 3, 16, 16), torch.tensor([[2, 2, 8, 9], [7, 3, 13, 15], [1, 8, 9, 14], [9, 1, 15, 6]])
    for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        given[i, i % 2, y1:y2, x1:x2] = 3
    targets = [target(box.tolist(), label=i % 2) for i, box in enumerate(boxes)]
    optimizer, history = torch.optim.AdamW(made.parameters(), 0.01), []
    for _ in range(20):
        optimizer.zero_grad()
        losses = made([*given], targets)
        torch.stack([*losses.values()]).sum().backward()
        optimizer.step()
        history.append({name: loss.item() for name, loss in losses.items()})
    for name in ("loss_l1", "loss_giou", "loss_encoder", "loss_denoising"):
        assert history[-1][name] < 0.9 * history[0][name], name


def test_detections_are_in_each_image_s_own_pixels() -> None:
    made, (large, small) = network().eval(), images((128, 192), (40, 200))
    with torch.no_grad():
        both, (alone,) = made([large, small]), made([small])
        halved = nn.functional.interpolate(large[None], (64, 96), mode="bilinear", antialias=True)[0]
        (of_halved,) = made([halved])
    for name in ("boxes", "scores", "labels"):
        torch.testing.assert_close(both[1][name], alone[name])
    torch.testing.assert_close(both[0]["boxes"], 2 * of_halved["boxes"])
    assert alone["boxes"].shape == (6, 4)
    assert (alone["scores"].diff() <= 0).all()
    assert (alone["boxes"] <= torch.tensor([200, 40, 200, 40])).all()


def test_detections_are_the_highest_scores_over_queries_and_classes() -> None:
    made, given = network().eval(), torch.stack(images((64, 96)))
    with torch.no_grad():
        boxes, scores, labels = made.detect(given)
        decoded = made.decoder(made.maps(given))
    every = sorted(
        ((float(s), k, q) for q, row in enumerate(decoded.logits[-1, 0].sigmoid()) for k, s in enumerate(row)),
        reverse=True,
    )
    for (score, label, query), box, s, k in zip(every, boxes[0], scores[0], labels[0], strict=False):
        cx, cy, w, h = decoded.boxes[-1, 0, query].tolist()
        wanted = [min(1, max(0, edge)) for edge in (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)]
        assert (int(k), float(s), box.tolist()) == (label, pytest.approx(score), pytest.approx(wanted, abs=1e-6))


def test_training_sizes_are_drawn_from_torch_s_generator() -> None:
    made = network(train_sizes=(64, 96, 128))
    torch.manual_seed(0)
    drawn = [made._train_size()[0] for _ in range(30)]
    torch.manual_seed(0)
    assert [made._train_size()[0] for _ in range(30)] == drawn
    assert set(drawn) == {64, 96, 128}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": (64, 100)}, "must be multiples of 32, not 64×100"),
        ({"input_size": (32, 32), "num_queries": 22}, "num_queries is 22, but 32×32 has 21 places"),
        ({"levels": 6}, "needs 6 stages"),
        ({"width": 18}, "multiple of 4"),
        ({"num_classes": 0}, "num_classes"),
    ],
)
def test_arguments_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        network(**options)


@pytest.mark.parametrize("size", [[16, 24], [20, 30]])
def test_exported_with_a_fixed_number_of_detections(size: list[int], tmp_path: Path) -> None:
    """Of a task, any number of images, boxes in the pixels of the images that the file takes."""
    make = partial(RTDETR, **{**RTDETR.example, "backbone": TINY, "input_size": (16, 24), "decoder_layers": 1})
    task = Detection(make, facts=Facts(num_classes=3, in_channels=3, image_size=size))
    task.configure_model()
    exported = task.eval().exported()
    given = exported.inputs(3, torch.Generator().manual_seed(5))["images"]
    with torch.no_grad():
        boxes, scores, labels = exported.network(given)
        every = task(list(given))
    assert [tuple(t.shape) for t in (boxes, scores, labels)] == [(3, 6, 4), (3, 6), (3, 6)]
    torch.testing.assert_close(boxes, torch.stack([one["boxes"] for one in every]))
    torch.testing.assert_close(scores, torch.stack([one["scores"] for one in every]))
    if size != [16, 24]:  # resized inside
        export(task, tmp_path / "task.pt2", "torch_export")  # which compares the file with the network


def test_mixed_precision_keeps_boxes_exact() -> None:
    made, given = network(backbone=TINY, input_size=(16, 16)), images((16, 16))
    with torch.autocast("cpu", torch.bfloat16):
        losses = made(given, [target((2.0, 3.0, 9.0, 12.0))])
        with torch.no_grad():
            (found,) = made.eval()(given)
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    assert found["boxes"].dtype == torch.float32
