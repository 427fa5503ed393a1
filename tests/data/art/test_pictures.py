import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.art.pictures import EMBEDDED, ContentAndStyle, Pictures, Textures, picture_file, read_scaled
from zoo.data.files import upright_size
from zoo.errors import UserError


def first_batch(data, split="train"):
    data.setup()
    return next(iter(getattr(data, f"{split}_dataloader")()))


def save(path, size=(40, 20), color=(200, 40, 20), **options):
    Image.new("RGB", size, color).save(path, **options)
    return str(path)


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_pictures_are_there(name):
    image = read_scaled(name, 32)
    assert image.shape[0] == 3
    assert max(image.shape) == 32
    assert image.std() > 0.02


def test_a_file_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 20), "red").save("brick", "PNG")
    assert picture_file("brick").resolve() == tmp_path / "brick"
    assert read_scaled("brick", 16).mean((1, 2)).tolist() == [1, 0, 0]


def test_what_is_no_picture_ends_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"no picture no/such.jpg; embedded ones are astronaut, brick"):
        Textures(texture="no/such.jpg").setup()
    with pytest.raises(UserError, match=r"is a folder: give the path of a picture"):
        Textures(texture=str(tmp_path)).setup()
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"broken.jpg can't be read as a picture") as told:
        ContentAndStyle(style=str(broken)).setup()
    assert "\n" not in str(told.value)


def test_files_as_people_have_them(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = save(tmp_path / "turned.jpg", exif=exif)
    assert upright_size(turned) == (40, 20)
    assert read_scaled(turned, 32).shape == (3, 32, 16)
    split = Image.new("RGB", (40, 20), "red")
    split.paste("blue", (0, 0, 20, 20))
    for name in ("turned.tif", "turned.png"):
        split.save(tmp_path / name, exif=exif)
        image = read_scaled(tmp_path / name, 40)
        assert image.shape == (3, 40, 20)
        assert image[:, 4, 10].tolist() == [0, 0, 1]
        assert image[:, 36, 10].tolist() == [1, 0, 0]
    grey16 = np.full((20, 40), 32896, np.uint16)
    Image.fromarray(grey16).save(tmp_path / "deep.png")
    assert read_scaled(tmp_path / "deep.png", 32).unique().tolist() == [pytest.approx(128 / 255)]
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert read_scaled(tmp_path / "clear.png", 16).min() == 1
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert read_scaled(tmp_path / "moving.gif", 16).mean((1, 2)).tolist() == [1, 0, 0]


def test_size_is_the_longer_side_and_shapes_are_kept(tmp_path):
    content, style = save(tmp_path / "a.png", (30, 60)), save(tmp_path / "b.png", (90, 45), (0, 0, 255))
    data = ContentAndStyle(content, style, size=48, style_size=64)
    contents, (only,) = first_batch(data)
    assert contents.shape == (1, 3, 48, 24)
    assert only.image.shape == (3, 32, 64)
    assert only.mask is None
    assert data.facts == {"in_channels": 3, "image_size": [48, 24], "num_images": 1}
    with pytest.raises(UserError, match=r"would be 48×8 pixels, too narrow"):
        read_scaled(save(tmp_path / "c.png", (600, 100)), 48)


def test_further_contents_fill_the_first_ones_shape(tmp_path):
    picture = Image.new("RGB", (60, 20), "red")
    picture.paste("lime", (20, 0, 40, 20))
    picture.save(tmp_path / "wide.png")
    square = save(tmp_path / "square.png", (20, 20))
    contents, _ = first_batch(ContentAndStyle([square, str(tmp_path / "wide.png")], square, size=20))
    assert contents.shape == (2, 3, 20, 20)
    assert contents[1].mean((1, 2)).tolist() == [0, 1, 0]


def test_weights_are_shares_and_masks_go_with_their_style(tmp_path):
    content = save(tmp_path / "a.png", (40, 40))
    for name, box in (("left", (0, 0, 20, 40)), ("right", (20, 0, 40, 40))):
        mask = Image.new("L", (40, 40))
        mask.paste(255, box)
        mask.save(tmp_path / f"{name}.png")
    masks = [str(tmp_path / f"{name}.png") for name in ("left", "right")]
    data = ContentAndStyle(content, ["ihc", "hubble"], style_weights=[3, 1], masks=masks, size=40)
    _, styles = first_batch(data)
    assert [style.weight for style in styles] == [0.75, 0.25]
    assert styles[0].mask[0, 0].tolist() == [1] * 20 + [0] * 20
    assert torch.equal(styles[0].mask + styles[1].mask, torch.ones(1, 40, 40))
    Image.new("L", (40, 40)).save(tmp_path / "black.png")
    with pytest.raises(UserError, match=r"black.png is black all over"):
        ContentAndStyle(content, "ihc", masks=str(tmp_path / "black.png"), size=40).setup()
    wide = save(tmp_path / "wide.png", (61, 40), "white")
    for other, size in ((wide, 40), (content, 320)):  # of the content's shape, whatever its size
        assert ContentAndStyle(other, "ihc", masks=other, size=size).read()[0][1][0].mask.all()
    with pytest.raises(UserError, match=r"wide.png has not the content's shape, which is 40×40 here"):
        ContentAndStyle(content, "ihc", masks=wide, size=40).setup()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"style_weights": [1, 2]}, "2 values for 1 styles"),
        ({"style_weights": [-1]}, "at least 0"),
        ({"masks": ["a.png", "b.png"]}, "2 pictures for 1 styles"),
        ({"size": 4}, "data.size must be at least 16"),
        ({"style_size": 4}, "data.style_size must be at least 16"),
        ({"steps": 0}, "data.steps must be at least 1"),
        ({"content": []}, "no picture is given"),
    ],
)
def test_wrong_arguments_end_in_one_line(arguments, says):
    with pytest.raises(UserError, match=says):
        ContentAndStyle(**arguments)


def test_an_epoch_is_the_same_batch_again_and_again():
    data = Textures(["brick", "hubble"], size=32, canvas=[48, 64], steps=3)
    data.setup()
    batches = list(data.train_dataloader())
    assert len(batches) == len(data.train_dataloader()) == 3
    assert all(batch is batches[0] for batch in batches)
    images, names = batches[0]
    assert [tuple(image.shape) for image in images] == [(3, 32, 32), (3, 28, 32)]
    assert names == ["brick", "hubble"]
    assert data.facts["image_size"] == [48, 64]
    assert data.facts["num_images"] == 2
    assert len(list(data.test_dataloader())) == 1
    assert data.val_dataloader() == []
    with pytest.raises(UserError, match=r"data.canvas is height and width"):
        Textures(canvas=[64])


def test_pictures_to_begin_with_have_one_shape(tmp_path):
    picture = Image.new("RGB", (60, 20), "red")
    picture.paste("lime", (20, 0, 40, 20))
    picture.save(tmp_path / "wide.png")
    square = save(tmp_path / "square.png", (30, 30), (0, 0, 255))
    wide = str(tmp_path / "wide.png")
    data = Pictures([square, wide], size=24, steps=3)
    images, names = first_batch(data)
    assert torch.allclose(images.mean((2, 3)), torch.tensor([[0.0, 0, 1], [0, 1, 0]]), atol=0.01)
    assert images.shape == (2, 3, 24, 24)
    assert names == [square, wide]
    assert data.facts == {"in_channels": 3, "image_size": [24, 24], "num_images": 2}
    assert len(data.train_dataloader()) == 3
    images, names = first_batch(Pictures(wide, canvas=[16, 48]), "predict")
    assert images.shape == (1, 3, 16, 48)
    assert names == [wide]


def test_without_a_picture_there_is_a_grey_canvas():
    images, names = first_batch(Pictures(size=40), "test")
    assert names == ["canvas"]
    assert images.shape == (1, 3, 40, 40)
    assert images.unique().tolist() == [0.5]
    assert first_batch(Pictures(canvas=[16, 32]))[0].shape == (1, 3, 16, 32)
    with pytest.raises(UserError, match=r"data.canvas is height and width, at least 16 each, not \[8, 32\]"):
        Pictures(canvas=[8, 32])
    with pytest.raises(UserError, match="no picture is given"):
        Pictures([])
