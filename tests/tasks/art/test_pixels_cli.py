"""What a person types for a texture or a style, and finds afterwards."""

import json
from pathlib import Path

import pytest
from PIL import Image
from running import different, folder_of, said, state, zoo

QUIET = ["--trainer.logger", "false", "--trainer.accelerator", "cpu"]
LAYERS = "{network.bn1: 1.0, network.blocks.0.0: 1.0}"
QUICK = ["--data.steps", "2", "--model.scales", "[0.5, 1.0]", *QUIET]
TEXTURE = ["--config", "texture", "--data.size", "32", "--model.layers", LAYERS, *QUICK]
STYLE = ["--config", "style_transfer", "--model.style_layers", LAYERS, *QUICK]
STYLE += ["--model.content_layers", "{network.blocks.0.0: 1.0}"]


def test_the_one_command_for_a_style(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (80, 60), "orange").save("my.jpg")
    Image.radial_gradient("L").save("their.png")
    words = ["--data.content", "my.jpg", "--data.style", "their.png", "--data.size", "48"]
    assert zoo("fit", *STYLE, *words) == 0
    output, folder = capsys.readouterr().out, folder_of("style_transfer")
    assert f"result      {folder / 'result.png'}\n" in output
    assert "zoo predict" not in output  # there are no other pictures to predict
    with Image.open(folder / "result.png") as picture:
        assert picture.size == (48, 36)
    assert len(list((folder / "pictures").glob("train-epoch*-image.png"))) == 2
    figures = json.loads((folder / "results.json").read_text())
    assert figures["test/style"] < figures["test/style_start"]
    assert {"test/content", "test/content_start", "test/histogram", "test/spectrum"} <= figures.keys()


def test_several_textures_have_a_result_each_and_a_checkpoint_gives_them_back(workspace: Path) -> None:
    assert zoo("fit", *TEXTURE, "--data.texture", "[ihc, brick]") == 0
    folder = folder_of("texture")
    assert [path.name for path in sorted(folder.glob("result*"))] == ["result-00.png", "result-01.png", "results.json"]
    figures = json.loads((folder / "results.json").read_text())
    assert figures["test/gram_ratio"] > 1
    assert zoo("predict", "--ckpt_path", str(folder), *QUIET[2:]) == 0
    again = folder_of("predict-texture")
    made = sorted((again / "pictures").glob("*.png"))
    for i, path in enumerate(made):
        with Image.open(path) as ours, Image.open(folder / f"result-{i:02d}.png") as first:
            assert ours.tobytes() == first.tobytes()
    assert [row["name"] for row in json.loads((again / "predictions.json").read_text())] == ["0", "1"]


def test_a_resumed_run_ends_with_the_same_picture(workspace: Path) -> None:
    for out, more in (
        ("whole", ["--checkpoint_every_n_steps", "1"]),
        ("rest", ["--ckpt_path", "whole/checkpoints/step=3.ckpt"]),
    ):
        assert zoo("fit", *TEXTURE, *more, "--no-test", "--out", out) == 0
    assert (Path("whole") / "result.png").read_bytes() == (Path("rest") / "result.png").read_bytes()
    whole, rest = (state(Path(out) / "checkpoints" / "last.ckpt") for out in ("whole", "rest"))
    assert not different(whole, rest)


def test_mistakes_end_in_one_line(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.png").write_bytes(b"no picture")
    for flags, says in (
        (["--data.texture", "broken.png"], "broken.png can't be read as a picture"),
        (["--data.texture", "no.png"], "there is no picture no.png; embedded ones are"),
        (["--trainer.max_epochs", "3"], "trainer.max_epochs can't be 3"),
        (["--data", "Pictures"], "TextureSynthesis wants data for texture, Pictures is for pictures"),
        (["--model.layers", "{network.bn7: 1.0}"], "EfficientNetLite0 has no layer network.bn7"),
    ):
        assert says in said(capsys, "fit", *TEXTURE, *flags)


def test_steps_may_be_limited(workspace: Path) -> None:
    assert zoo("fit", *TEXTURE, "--trainer.max_steps", "3") == 0
    folder = folder_of("texture")
    with Image.open(folder / "result.png") as picture:
        assert picture.size == (32, 32)
        made = picture.tobytes()
    assert zoo("predict", "--ckpt_path", str(folder), *QUIET[2:]) == 0
    with Image.open(next((folder_of("predict-texture") / "pictures").glob("*.png"))) as again:
        assert again.tobytes() == made


def test_a_made_picture_is_not_another_ones(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert zoo("fit", *TEXTURE, "--out", "made") == 0
    capsys.readouterr()
    for flags, says in (
        (["--data.size", "64"], "with image_size [32, 32], not [64, 64]"),
        (["--data.texture", "[ihc, brick]"], "with num_images 1, not 2"),
    ):
        assert says in said(capsys, "predict", "--ckpt_path", "made", *flags, *QUIET[2:])
