"""Pictures that are given to a generator: varied, filled in by a mask's file, or inverted to noise."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from known_denoiser import FACTS, Known
from PIL import Image
from torch import Tensor

from zoo.data.predicting import Source
from zoo.errors import UserError
from zoo.tasks.denoising import Denoising
from zoo.tasks.diffusion import Diffusion
from zoo.tasks.flow_matching import FlowMatching


def built(cls: Any = FlowMatching, **options: Any) -> Denoising:
    kind = "flow" if cls is FlowMatching else "diffusion"
    task = cls(partial(Known, kind=kind), facts=FACTS, **{"conditional": True, "steps": 20, **options})
    task.configure_model()
    return task


def images(count: int = 4) -> Tensor:
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def masked(path: Path, size: tuple[int, int] = (40, 40)) -> str:
    """The upper half is white."""
    picture = Image.new("L", size)
    picture.paste(255, (0, 0, size[0], size[1] // 2))
    picture.save(path)
    return str(path)


@pytest.mark.parametrize("options", [{}, {"mask": "mask.png"}, {"solver": "ddpm"}])
def test_what_becomes_of_a_picture_depends_on_no_batch(options: dict[str, Any], tmp_path: Path) -> None:
    if "mask" in options:
        options = {"mask": masked(tmp_path / options["mask"])}
    task, given = built(Diffusion, given_class="c", **options), images()
    together = task.predict_step((given, ["a", "b", "c", "d"]), 0)
    alone = task.predict_step((given[2:3], ["c"]), 0)
    torch.testing.assert_close(alone[0].image, together[2].image)
    assert float((together[0].image - together[1].image).abs().max()) > 0.01
    assert task.as_json(alone) == [{"name": "c", "class": "c"}]


def test_the_white_part_of_a_mask_is_filled_in(tmp_path: Path) -> None:
    given = torch.full((2, 1, 4, 4), 0.75)
    given[:, :, :2] = 0
    task = built(mask=masked(tmp_path / "mask.png"), given_class=2)
    found = task.predict_step((given, [Source("a.png", picture_size=(80, 80)), "b"]), 0)
    made = torch.stack([one.image for one in found])
    torch.testing.assert_close(made[:, :, 2:], given[:, :, 2:])
    assert float(made[:, :, :2].mean()) == pytest.approx(0.75, abs=0.05)


@pytest.mark.parametrize("cls", [FlowMatching, Diffusion])
def test_inversion_writes_noise_that_leads_back(cls: Any, tmp_path: Path) -> None:
    task = built(cls, invert=True, given_class="b", steps=100, solver="ddim" if cls is Diffusion else "heun")
    given = built(cls, given_class="b").sample(torch.arange(3), torch.ones(3).long())
    names = [Source(f"/pictures/{n}.png", f"x/{n}.png") for n in range(3)]
    results = task.predict_step((given, names), 0)
    torch.testing.assert_close(torch.stack([one.image for one in results]), given, atol=0.03, rtol=0)
    task.write_files(tmp_path, results)
    assert [row["noise"] for row in task.as_json(results)] == [f"noise/x/{n}.png.npy" for n in range(3)]
    noise = torch.from_numpy(np.stack([np.load(tmp_path / f"noise/x/{n}.png.npy") for n in range(3)]))
    assert noise.shape == (3, 1, 4, 4)
    assert 0.5 < float(noise.std()) < 1.5
    again = task.unscaled(task.generate(noise, torch.ones(3).long(), []))
    torch.testing.assert_close(again, given, atol=0.03, rtol=0)


def test_the_class_is_what_a_picture_becomes() -> None:
    means = [
        torch.stack([one.image for one in built(given_class=label, strength=1.0).edited(images(), "abcd")]).mean()
        for label in "abc"
    ]
    assert [float(mean) for mean in means] == pytest.approx([0.25, 0.5, 0.75], abs=0.06)


def test_mistakes_end_in_one_line(tmp_path: Path) -> None:
    mask = masked(tmp_path / "mask.png")
    with pytest.raises(UserError, match="exclude each other"):
        built(mask=mask, invert=True)
    with pytest.raises(UserError, match=r"needs a model\.solver that adds no noise"):
        built(Diffusion, solver="ddpm", invert=True)
    with pytest.raises(UserError, match=r"model\.given_class needs model\.conditional"):
        built(conditional=False, given_class="a")
    with pytest.raises(UserError, match=r"model\.given_class must be given"):
        built(drop_label=0.0).edited(images(), "abcd")
    with pytest.raises(UserError, match="no class cow"):
        built(given_class="cow").edited(images(), "abcd")
    with pytest.raises(UserError, match=r"nowhere\.png can't be read as a picture"):
        built(mask=str(tmp_path / "nowhere.png")).edited(images(), "abcd")
    with pytest.raises(UserError, match=r"mask.png is 40x40, but a.png 60x30: they must be of one shape"):
        built(mask=mask).edited(images(1), [Source("a.png", picture_size=(30, 60))])
    Image.new("L", (8, 8)).save(mask)
    with pytest.raises(UserError, match="has no white part"):
        built(mask=mask).edited(images(), "abcd")
