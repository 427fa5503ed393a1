"""The frames of a video, written here by PyAV, in any order and in worker processes."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.data.files import UnreadableImage, whole
from zoo.data.predicting import PredictFiles, Source
from zoo.data.video import Frame, frames_of, read_frame
from zoo.errors import UserError

av = pytest.importorskip("av")
COUNT = 12


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey frames of 32 x 48 pixels that become brighter by 20 of 255 from each to the next."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for index in range(COUNT):
            pixels = np.full((32, 48, 3), 20 * index, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_all_frames_are_found_and_named(clip: Path) -> None:
    frames = frames_of(str(clip))
    assert len(frames) == COUNT
    assert Path(frames[7]).name == "clip-000007.mp4"
    assert pickle.loads(pickle.dumps(frames[7])).number == 7


@pytest.mark.parametrize("order", [range(COUNT), [5, 3, 11, 0, 4, 4]])
def test_each_frame_is_the_right_one(clip: Path, order: list[int]) -> None:
    for index in order:
        pixels, size, _ = read_frame(Frame(str(clip), index), None, 3, whole)
        assert size == (32, 48)
        assert pixels.float().mean().item() == pytest.approx(20 * index, abs=8)


def test_a_video_among_pictures_to_predict(clip: Path) -> None:
    samples = PredictFiles([str(clip)], [16, 16], 1, "whole")
    loaded = torch.utils.data.DataLoader(samples, batch_size=None, num_workers=2)
    found = list(loaded)
    assert len(found) == COUNT
    assert all(pixels.shape == (1, 16, 16) for pixels, _ in found)
    means = [pixels.float().mean().item() for pixels, _ in found]
    assert means == sorted(means)
    source = samples[3][1]
    assert isinstance(source, Source)
    assert source.name == "clip-000003.mp4"


def test_damaged_videos_end_in_one_line(clip: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    with pytest.raises(UnreadableImage, match=r"broken.mp4 can't be read as a video: "):
        frames_of(str(broken))
    with pytest.raises(UnreadableImage, match="frame 99 can't be decoded"):
        read_frame(Frame(str(clip), 99), None, 3, whole)


def test_without_pyav_the_error_says_what_to_install(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(UserError, match=r"pip install 'lightning-zoo\[video\]'"):
        frames_of(str(clip))
