"""The pictures of an evaluation: what is drawn, and that nothing is out of place where there is little to draw."""

import matplotlib.figure
import numpy as np
import pytest
from detected import K, scenes

from zoo.metrics import detection_pictures as pictures
from zoo.metrics.detection_analysis import curve, curves, errors
from zoo.metrics.matching import match, overlaps
from zoo.metrics.samples import Samples, as_samples

NAMES = ["cat", "a class with a very long name", "bird", "dog"]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[matplotlib.figure.Figure]:
    """The figures that are drawn."""
    made: list[matplotlib.figure.Figure] = []
    draw = pictures.figure_picture
    monkeypatch.setattr(pictures, "figure_picture", lambda figure: made.append(figure) or draw(figure))
    return made


def texts(figure: matplotlib.figure.Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


def fits(figure: matplotlib.figure.Figure) -> bool:
    """Whether nothing is cut off at the figure's border."""
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return box.x0 >= -0.01 and box.y0 >= -0.01 and box.x1 <= width + 0.01 and box.y1 <= height + 0.01


def test_an_evaluation(figures: list[matplotlib.figure.Figure]) -> None:
    samples = as_samples(*scenes())
    made = pictures.detection_pictures(samples, NAMES)
    assert list(made) == ["curves", "confusion", "errors"]
    assert all(picture.mode == "RGB" and len(picture.getcolors(1 << 20) or []) > 5 for picture in made.values())
    drawn, bars = figures
    assert all(fits(figure) for figure in figures)
    pairs = overlaps(samples)
    ap = [one.ap for one in curves(samples, pairs, K)]
    assert {f"cat  AP {ap[0]:.2f}", f"a class with a ve…  AP {ap[1]:.2f}"} <= set(texts(drawn))
    assert not any(text.startswith("bird") for text in texts(drawn))  # no object
    best, confidence = curve(samples, match(samples, pairs)).best()
    assert any(text.endswith(f"F1 {best:.2f} at {confidence:.2f}") for text in texts(drawn))
    counts = errors(samples, pairs).counts
    assert {str(count) for count in counts.values()} <= set(texts(bars))


def test_of_many_classes_the_worst_are_named(figures: list[matplotlib.figure.Figure]) -> None:
    samples = as_samples(*scenes(images=40, found=5))
    samples.objects.label[:] = np.arange(len(samples.objects)) % 30
    pairs, names = overlaps(samples), [str(k) for k in range(30)]
    pictures.curves_picture(curves(samples, pairs, 30), names, curve(samples, match(samples, pairs)))
    assert sum("AP" in text for text in texts(figures[0])) == 6
    assert fits(figures[0])


def test_without_detections_and_without_objects() -> None:
    detections, targets = scenes(3)
    without = as_samples([{name: values[:0] for name, values in one.items()} for one in detections], targets)
    assert len(pictures.detection_pictures(without, NAMES)) == 3
    none: Samples = as_samples(detections, [{name: values[:0] for name, values in one.items()} for one in targets])
    assert pictures.detection_pictures(none, NAMES) == {}
