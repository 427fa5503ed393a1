"""Deprecated interfaces are found: the settings that turn their warnings into failures work."""

import warnings
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser
from running import folder_of, write_recipe, zoo

from zoo.errors import UserError
from zoo.parsing import ZooParser

MODEL = {"class_path": "ToyClassification", "init_args": {"architecture": "ToyNet", "optimizer": "SGD"}}


def test_the_settings_find_them() -> None:
    with pytest.raises(DeprecationWarning, match="deprecated in v4"):
        ArgumentParser().dump(ArgumentParser().parse_args([]), skip_none=False)
    with pytest.raises(DeprecationWarning, match="gone soon"):
        warnings.warn_explicit("gone soon", DeprecationWarning, "base.py", 1, module="zoo.tasks.base")
    with pytest.raises(FutureWarning, match="gone soon"):
        warnings.warn_explicit("gone soon", FutureWarning, "trainer.py", 1, module="lightning.pytorch.trainer")


def test_the_command_line_hides_none_from_the_tests(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = write_recipe(workspace / "toy.yaml", MODEL, {"class_path": "ToyTensors"}, max_epochs=1)
    assert zoo("fit", "--config", str(recipe), "--no_test") == 0
    assert zoo("validate", "--ckpt_path", str(folder_of("toy"))) == 0

    def instantiate_classes(self: ZooParser, cfg: object) -> object:
        return super(ZooParser, self).instantiate_classes(cfg)  # as Lightning's own parser would

    monkeypatch.setattr(ZooParser, "instantiate_classes", instantiate_classes)
    with pytest.raises(UserError, match=r"DeprecationWarning: .*instantiate_classes"):
        zoo("fit", "--config", str(recipe), "--no_test")
