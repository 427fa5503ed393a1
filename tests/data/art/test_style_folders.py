"""Folders of contents and styles: what is held out, what a crop is, and what can be stylised."""

import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.art import style_folders
from zoo.data.art.frames import Frames, frames
from zoo.data.art.style_folders import StyleFolders, random_crop
from zoo.data.loading import Loader
from zoo.errors import UserError

SMALL = {"image_size": 16, "resize": 20, "crops": 6, "batch_size": 3}


def photographs(folder: Path, count: int = 12) -> str:
    folder.mkdir()
    for i in range(count):
        Image.new("RGB", (30 + i, 24), (20 * i, 90, 10)).save(folder / f"{i:02d}.png")
    return str(folder)


def made(**changes: object) -> StyleFolders:
    data = StyleFolders(**{**SMALL, **changes})  # type: ignore[arg-type]
    data.setup("fit")
    data.setup("test")
    return data


def paths(data: StyleFolders, split: str, part: int = 0) -> set[str]:
    return set(data._parts[split][part].paths)


def test_what_is_held_out_is_disjoint_and_the_same_again(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "a")
    fractions = {"val_fraction": 0.2, "test_fraction": 0.25, "style_test_fraction": 0.5}
    first, second = (made(content=folder, style=folder, **fractions) for _ in range(2))
    sizes = {split: len(paths(first, split)) for split in ("train", "val", "test")}
    assert sizes == {"train": 7, "val": 2, "test": 3}
    assert len(set.union(*(paths(first, split) for split in sizes))) == 12
    assert all(paths(first, split) == paths(second, split) for split in sizes)
    assert len(paths(first, "train", 1) | paths(first, "test", 1)) == 12 == 2 * len(paths(first, "train", 1))
    assert len(first.samples("test")) == 3  # type: ignore[arg-type]
    assert made(content=folder, style="ihc", test_fraction=0.0).samples("test") is None


def test_a_crop_is_a_mirrored_or_upright_part_of_a_random_size() -> None:
    x, y = torch.arange(60).expand(40, -1), torch.arange(40)[:, None].expand(-1, 60)
    picture = torch.stack([x, y, x + y]).to(torch.uint8)
    sides, mirrored, lefts = set(), set(), set()
    for seed in range(60):
        torch.manual_seed(seed)
        red, green, _ = random_crop(picture, 16).float()
        step = red[8, 9] - red[8, 8]
        mirrored.add(bool(step < 0))
        sides.add(round(float((green[-1, 0] - green[0, 0]) / 15 * 16)))
        lefts.add(int(red.min()))
        assert torch.equal(red[0], red[-1])
        assert abs(float(red.max() - red.min()) - float(green.max() - green.min())) <= 2  # a square stays one
    assert mirrored == {True, False}
    assert min(sides) in (16, 17, 18)
    assert 37 <= max(sides) <= 41
    assert len(lefts) > 10


def test_crops_follow_from_seed_epoch_and_place_and_from_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photographs(tmp_path / "a")

    def crops(seed: int, seed_globally: int) -> torch.Tensor:
        data = made(content=[folder, "chelsea"], style=["ihc", "hubble"])
        torch.manual_seed(seed_globally)
        loader = Loader(data.samples("train"), 3, train=True, seed=seed)
        return torch.cat([torch.cat([contents, styles], 1) for contents, styles in loader])

    assert torch.equal(crops(0, 1), crops(0, 2))
    assert not torch.equal(crops(0, 1), crops(1, 1))
    kept = crops(0, 1)
    monkeypatch.setattr(style_folders, "KEPT", 0)  # too many to be kept in memory: decoded anew each time
    assert torch.equal(crops(0, 3), kept)


def test_each_picture_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    real = style_folders.read_shorter
    monkeypatch.setattr(style_folders, "read_shorter", lambda path, side: decoded.append(path) or real(path, side))
    data = made(crops=30)
    for _ in range(2):
        list(Loader(data.samples("train"), 3, train=True))
    assert len(decoded) == len(set(decoded)) == 5 + 5  # of six photographs one is held out; five textures


def test_whole_styles_have_their_weights_and_size() -> None:
    styles = made(style=["china", "ihc"], style_weights=[3.0, 1.0], style_size=32).whole_styles()
    assert [style.weight for style in styles] == [0.75, 0.25]
    assert [tuple(style.image.shape) for style in styles] == [(3, 32, 48), (3, 32, 32)]


def predicted(files: list[str], **changes: object) -> tuple[list[tuple[torch.Tensor, str]], StyleFolders]:
    data = StyleFolders(**{**SMALL, "style": "ihc", "files": files, **changes})  # type: ignore[arg-type]
    batches = [data.on_after_batch_transfer(batch, 0) for batch in data.predict_dataloader()]
    assert all(style.weight == 1 and style.image.shape == (3, 20, 20) for *_, (style,) in batches)
    return [(images, name) for images, (name,), _ in batches], data


def animation(path: Path) -> str:
    pictures = [Image.new("RGB", (24, 18), (60 * i, 0, 255 - 60 * i)) for i in range(4)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:])
    return str(path)


def test_pictures_come_at_their_own_size_and_a_broken_one_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(photographs(tmp_path / "a", 2))
    (folder / "05.jpg").write_bytes(b"no picture")
    found, data = predicted([str(folder), "rocket"])
    assert [tuple(images.shape) for images, _ in found] == [(1, 3, 24, 30), (1, 3, 24, 31), (1, 3, 427, 640)]
    assert found[1][0][0, :, 3, 3].tolist() == pytest.approx([20 / 255, 90 / 255, 10 / 255])
    assert data.unreadable == [str(folder / "05.jpg")]
    (line,) = capsys.readouterr().err.splitlines()
    assert "05.jpg can't be read as a picture" in line
    found, _ = predicted([str(folder), "rocket"], size=64)
    assert [tuple(images.shape[2:]) for images, _ in found] == [(51, 64), (50, 64), (43, 64)]


def test_an_animated_picture_is_its_frames(tmp_path: Path) -> None:
    found, _ = predicted([animation(tmp_path / "loop.gif")])
    assert [name.rpartition("/")[2] for _, name in found] == [f"loop.gif frame {i}" for i in range(4)]
    for i, (images, _) in enumerate(found):
        assert images[0, :, 9, 9].tolist() == pytest.approx([60 * i / 255, 0, 1 - 60 * i / 255], abs=0.02)


def test_a_telephones_picture_with_a_second_one_in_it_is_one_picture(tmp_path: Path) -> None:
    """Its brightness map or its preview is no frame, and it is turned by its EXIF tag."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, kind in (("a.jpg", "MPO"), ("b.tif", "TIFF")):
        first, second = Image.new("RGB", (40, 24), "red"), Image.new("RGB", (20, 12), "blue")
        first.save(tmp_path / name, kind, save_all=True, append_images=[second], exif=exif)
    found, _ = predicted([str(tmp_path / "a.jpg"), str(tmp_path / "b.tif")])
    assert [tuple(images.shape) for images, _ in found] == [(1, 3, 40, 24)] * 2


def test_one_that_is_too_narrow_is_left_out_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    narrow = tmp_path / "narrow.png"
    Image.new("RGB", (90, 3)).save(narrow)
    found, data = predicted([str(narrow), "rocket"], size=64)
    assert len(found) == 1
    assert data.unreadable == [str(narrow)]
    assert "narrow.png would be 64×2 pixels, too narrow (at least 16)" in capsys.readouterr().err


def test_a_video_is_its_frames(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = str(tmp_path / "clip.mp4")
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in (40, 120, 200):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    found = list(frames(path))
    assert [name for _, name in found] == [f"{path} frame {i}" for i in range(3)]
    assert [pixels.shape for pixels, _ in found] == [(3, 48, 64)] * 3
    assert [float(pixels.float().mean()) for pixels, _ in found] == pytest.approx([40, 120, 200], abs=4)


def test_a_broken_video_is_left_out_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("av")
    broken = tmp_path / "clip.mp4"
    broken.write_bytes(b"no video")
    found, data = predicted([str(broken), "rocket"])
    assert len(found) == 1
    assert data.unreadable == [str(broken)]
    (line,) = capsys.readouterr().err.splitlines()
    assert "clip.mp4 can't be read as a video" in line


def test_a_missing_library_for_videos_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    for look in (lambda: list(frames("clip.mp4")), lambda: Frames(["a.png", "clip.mp4"], None)):
        with pytest.raises(UserError, match=r"clip.mp4 is a video, which PyAV reads: pip install av"):
            look()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"content": "no/such"}, "data.content: no picture matches no/such"),
        ({"content": "rocket"}, "data.test_fraction holds 1 of 1 pictures out"),
        ({"style": ["ihc", "china"], "style_weights": [1.0]}, "data.style_weights has 1 values for 2 styles"),
        ({"style_weights": [1.0] * 5, "style_test_fraction": 0.2}, "data.style_weights are for all styles"),
        ({"resize": 12}, "must be at least data.image_size, 16"),
        ({"crops": 0}, "data.crops must be at least 1"),
        ({"size": 4}, "data.image_size and data.size must be at least 16"),
    ],
)
def test_mistakes_end_in_one_line(changes: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says.replace("[", r"\[")):
        made(**changes)


@pytest.mark.parametrize("style", [None, "a"])
def test_a_style_is_to_be_chosen_for_a_task_that_takes_one(style: str | None, tmp_path: Path) -> None:
    folder = None if style is None else photographs(tmp_path / style)
    with pytest.raises(UserError, match="which style"):
        StyleFolders(**SMALL, style=folder, files="rocket").predict_dataloader()  # type: ignore[arg-type]
    with pytest.raises(UserError, match="nothing to stylise"):
        StyleFolders(**SMALL, style="ihc").predict_dataloader()  # type: ignore[arg-type]


@pytest.mark.parametrize("holds", [True, False])
def test_a_task_says_whether_its_weights_hold_the_style(holds: bool) -> None:
    data = StyleFolders(**SMALL, style=["ihc", "hubble"], files="rocket")  # type: ignore[arg-type]
    task: Any = SimpleNamespace(holds_style=holds)
    data.trainer = SimpleNamespace(lightning_module=task, global_rank=0, world_size=1)  # type: ignore[assignment]
    with nullcontext() if holds else pytest.raises(UserError, match="which style"):
        data.predict_dataloader()
