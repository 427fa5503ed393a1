import os
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from zoo.data.files import (
    UnreadableImage,
    central,
    matching_files,
    random_resized,
    read_image,
)
from zoo.data.walk import LeftOut
from zoo.errors import UserError

SIZE = [12, 12]


def gradient(width=24, height=24):
    """Red grows to the right, green downwards, blue is even."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, np.full_like(x, 100)], -1).round().astype(np.uint8)


def save(array_or_image, path, **options):
    image = array_or_image if isinstance(array_or_image, Image.Image) else Image.fromarray(array_or_image)
    image.save(path, **options)
    return path


def close(a, b, tolerance):
    return (a.int() - b.int()).abs().max() <= tolerance


@pytest.mark.parametrize(("width", "height"), [(24, 24), (32, 24), (24, 40)])
def test_it_is_the_shorter_side_resized_and_the_centre_cropped(tmp_path, width, height):
    path = save(gradient(width, height), tmp_path / "a.png")
    whole = functional.resize(functional.pil_to_tensor(Image.open(path)), SIZE[:1], antialias=True)
    assert close(read_image(path, SIZE), functional.center_crop(whole, SIZE), 5)


def test_every_exif_orientation_gives_the_same_picture(tmp_path):
    upright = gradient(40, 24)
    turned_back = {  # what a camera stores so that the tag's turn gives the upright picture
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }
    expected = read_image(save(upright, tmp_path / "0.png"), [12, 20])
    for tag, stored in turned_back.items():
        exif = Image.Exif()
        exif[0x0112] = tag
        path = save(np.ascontiguousarray(stored), tmp_path / f"{tag}.png", exif=exif)
        assert close(read_image(path, [12, 20]), expected, 1), tag


def test_transparency_lies_over_white(tmp_path):
    rgba = np.zeros((24, 24, 4), np.uint8)
    rgba[:, 12:, 3] = 255
    grey = Image.fromarray(rgba).convert("LA")
    palette = Image.new("P", (24, 24), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.paste(1, (0, 0, 12, 24))
    for path in (
        save(rgba, tmp_path / "rgba.png"),
        save(grey, tmp_path / "la.png"),
        save(palette, tmp_path / "p.png", transparency=1),
        save(palette, tmp_path / "p.gif", transparency=1),
    ):
        image = read_image(path, [24, 24])
        assert (image[:, :, :12] == 255).all(), path
        assert (image[:, :, 12:] == 0).all(), path


def test_16_bit_is_scaled_not_cut_off(tmp_path):
    values = np.linspace(0, 65535, 24 * 24).reshape(24, 24)
    sixteen = save(values.astype(np.uint16), tmp_path / "a.png")
    tiff = save(values.astype(np.uint16), tmp_path / "a.tif")
    expected = torch.from_numpy((values / 257).round())
    for path in (sixteen, tiff):
        assert close(read_image(path, [24, 24], channels=1)[0], expected, 1)
        assert close(read_image(path, [24, 24], channels=3)[2], expected, 1)


def test_other_kinds(tmp_path):
    colour = Image.fromarray(gradient())
    expected = read_image(save(colour, tmp_path / "a.png"), SIZE)
    assert close(read_image(save(colour.convert("CMYK"), tmp_path / "cmyk.tif"), SIZE), expected, 2)
    assert close(read_image(save(colour.convert("CMYK"), tmp_path / "cmyk.jpg", quality=100), SIZE), expected, 16)
    assert close(read_image(save(colour, tmp_path / "a.webp", lossless=True), SIZE), expected, 0)
    assert close(read_image(save(colour.quantize(256), tmp_path / "palette.png"), SIZE), expected, 24)
    assert close(
        read_image(save(colour.convert("1", dither=0), tmp_path / "bits.png"), SIZE)[0] % 255, torch.zeros(1), 254
    )
    black = Image.new("RGB", colour.size)
    animation = save(colour, tmp_path / "a.png.gif", save_all=True, append_images=[black, black])
    assert close(read_image(animation, SIZE), expected, 40)
    grey = read_image(save(colour.convert("L"), tmp_path / "grey.png"), SIZE)
    assert torch.equal(grey[0], grey[2])
    luma = (expected.double() * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0)
    assert close(read_image(tmp_path / "a.png", SIZE, channels=1)[0], luma, 2)


def test_a_large_jpeg_is_drafted_without_harm(tmp_path):
    path = save(gradient(500, 400), tmp_path / "a.jpg", quality=95)
    exact = read_image(save(Image.open(path), tmp_path / "a.png"), [40, 40])
    assert close(read_image(path, [40, 40]), exact, 4)
    corner = lambda width, height, aspect: (width - 100, height - 100, width, height)  # noqa: E731
    assert close(read_image(path, [20, 20], region=corner), read_image(tmp_path / "a.png", [20, 20], region=corner), 4)


def test_random_boxes_are_inceptions():
    torch.manual_seed(0)
    boxes = torch.tensor([random_resized(400, 300) for _ in range(3000)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area, ratio = width * height / 120_000, width / height
    assert 0.075 < area.min() < 0.1
    assert 0.97 < area.max() <= 1
    assert 0.72 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.37
    assert (boxes[:, :2] >= 0).all()
    assert boxes[:, 2].max() == 400
    assert boxes[:, 3].max() == 300
    reference = functional_boxes(3000)
    assert abs(area.mean() - reference.mean()) < 0.02
    assert random_resized(1000, 2) == central(1000, 2)
    areas = [(r - x) * (b - t) for x, t, r, b in (random_resized(400, 300, least=0.6) for _ in range(200))]
    assert 0.58 < min(areas) / (400 * 300) < 0.7


def functional_boxes(count):
    from torchvision.transforms import RandomResizedCrop

    image = torch.empty(1, 300, 400)
    boxes = [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(count)]
    return torch.tensor([h * w / 120_000 for _, _, h, w in boxes])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty or of an unknown kind"),
        (b"no picture", "unknown kind"),
        (None, "no such file"),
        ("cut", "truncated"),
    ],
)
def test_unreadable_files_are_named(tmp_path, content, reason):
    path = tmp_path / "a.jpg"
    if content == "cut":
        save(gradient(100, 100), path)
        content = path.read_bytes()[:1000]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason) as caught:
        read_image(path, SIZE)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_float_pictures_are_refused(tmp_path):
    with pytest.raises(UnreadableImage, match="no fixed range"):
        read_image(save(np.ones((4, 4), np.float32), tmp_path / "a.tif"), SIZE)


def tiff(values, signed, bits=None, white_is_zero=False):
    """A grey TIFF of integers, little endian, written here: Pillow writes few depths."""
    height, width = values.shape
    bits = bits or values.itemsize * 8
    strip = values.tobytes() if bits != 12 else packed_12(values)
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, 1 - white_is_zero),
        (273, 4, 134),
        (277, 3, 1),
    ]
    tags += [(278, 4, height), (279, 4, len(strip)), (339, 3, 2 if signed else 1)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + strip


def packed_12(values):
    """Two values in three bytes, high bits first."""
    first, second = values.reshape(-1, 2).astype(np.uint32).T
    return np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1).astype(np.uint8).tobytes()


@pytest.mark.parametrize(("dtype", "bits"), [("u1", 8), ("i1", 8), ("u2", 12), ("u2", 16), ("i2", 16)])
def test_integers_of_any_depth_are_scaled_by_its_range(tmp_path, dtype, bits):
    low = -(2 ** (bits - 1)) if dtype.startswith("i") else 0
    values = np.linspace(low, low + 2**bits - 1, 24 * 24).round().astype(dtype).reshape(24, 24)
    (tmp_path / "a.tif").write_bytes(tiff(values, dtype.startswith("i"), bits))
    expected = torch.from_numpy((values.astype(float) - low) / (2**bits - 1) * 255)
    assert close(read_image(tmp_path / "a.tif", [24, 24], channels=1)[0], expected, 1)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_white_may_be_zero(tmp_path, dtype):
    values = np.linspace(0, np.iinfo(dtype).max, 16).astype(dtype).reshape(4, 4)
    (tmp_path / "a.tif").write_bytes(tiff(values, signed=False, white_is_zero=True))
    expected = 255 - torch.from_numpy(values / np.iinfo(dtype).max * 255)
    assert close(read_image(tmp_path / "a.tif", [4, 4], channels=1)[0], expected, 1)


@pytest.mark.parametrize(("dtype", "most"), [("u4", 2**32 - 1), ("i4", 60_000), ("i4", 1000)])
def test_32_bit_integers_are_refused(tmp_path, dtype, most):
    values = np.linspace(0, most, 16).astype(dtype).reshape(4, 4)
    (tmp_path / "a.tif").write_bytes(tiff(values, dtype.startswith("i")))
    with pytest.raises(UnreadableImage, match="32-bit integers have no fixed range; save it with 8 or 16 bits"):
        read_image(tmp_path / "a.tif", SIZE)


@pytest.mark.parametrize("most", [100, 255])  # the latter are bytes that were saved with 16 bits
def test_what_would_be_black_is_refused(tmp_path, most):
    dark = save(np.linspace(0, most, 16).astype(np.uint16).reshape(4, 4), tmp_path / "a.png")
    with pytest.raises(UnreadableImage, match=f"its values from 0 to {most} would be black in a range up to 65535"):
        read_image(dark, SIZE)
    assert read_image(save(np.full((4, 4), 4095, np.uint16), tmp_path / "c.png"), SIZE).any()
    assert read_image(save(np.full((4, 4), 1, np.uint8), tmp_path / "d.png"), SIZE).any(), "dark, but as it is stored"
    assert not read_image(save(np.zeros((4, 4), np.uint16), tmp_path / "b.png"), SIZE).any()


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UnreadableImage, match=r"pipe\.png can't be read as a picture: it is not a regular file"):
        read_image(tmp_path / "pipe.png", SIZE)
    with pytest.raises(UserError, match="is not a regular file"):
        matching_files([str(tmp_path / "pipe.png")])


def test_patterns(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("b.jpg", "a.jpg", "notes.txt", "deep/er/c.png", "odd[1].jpg"):
        (tmp_path / name).touch()
    found = matching_files([f"{tmp_path}/b.jpg", f"{tmp_path}/?.jpg", f"{tmp_path}/**/*.png", f"{tmp_path}/odd[1].jpg"])
    assert [p.removeprefix(f"{tmp_path}/") for p in found] == ["b.jpg", "a.jpg", "deep/er/c.png", "odd[1].jpg"]
    assert len(matching_files([str(tmp_path)])) == 3
    with pytest.raises(UserError, match=r"no picture matches .*/deep; for those in its folders give '.*/deep/\*\*/\*'"):
        matching_files([f"{tmp_path}/deep"])
    with pytest.raises(UserError, match=r"no picture matches .*\*\.webp"):
        matching_files([f"{tmp_path}/*.webp"])


@pytest.mark.parametrize("name", ["nowhere", "nowhere/a.jpg"])
def test_what_does_not_exist_is_said_to_not_exist(tmp_path, name):
    with pytest.raises(UserError, match=rf"data.files: .*{name}, which does not exist"):
        matching_files([f"{tmp_path}/{name}"])


def test_patterns_follow_links_without_loops(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/b/c.png", "a/[x] (1)/d.jfif", "a/@eaDir/thumb.png", "a/b/notes.txt", "pool/l.png", "a/.h.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "a/b/loop").symlink_to(tmp_path / "a")
    (tmp_path / "a/self").symlink_to(tmp_path / "a")
    (tmp_path / "a/link").symlink_to(tmp_path / "pool")
    pictures = ["a/[x] (1)/d.jfif", "a/b/c.png", "a/link/l.png"]
    left_out = LeftOut()
    assert matching_files(["a/**/*"], left_out=left_out) == pictures
    assert str(left_out) == "not pictures (1: .txt)"
    assert matching_files([f"{tmp_path}/a/**"]) == [f"{tmp_path}/{name}" for name in pictures]
    assert matching_files(["**/*.png"]) == ["a/b/c.png", "pool/l.png"]
    assert matching_files(["a/**/[x] (1)/*"]) == matching_files(["a/[x] (1)/?.*"]) == pictures[:1]
    assert matching_files(["a/b/*.txt"]) == ["a/b/notes.txt"]
