"""What captioning predicts, as plain results, as pictures and as files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from zoo import drawing
from zoo.tasks.image_ids import image_ids

MARGIN = 10  # pixels beside the text of a strip, both sides together
SIDE = 256  # pixels of the longer side of a drawn picture, at least
SMALL = 128  # the same of the pictures in a strip of attention


@dataclass
class Sentence:
    """A sentence and its log-probability, the sum over its tokens and the end."""

    text: str
    log_probability: float


@dataclass
class Captioned:
    """The captions of a picture.

    Args:
        name: the picture's file, or its number.
        captions: the best first.
        tokens: the first caption's tokens, as text.
        attention: where the network looked for each of them, (T, h, w); None if it can't say.
        log_probability: of the text that pictures are ranked for; None without one.
    """

    name: str
    captions: list[Sentence]
    tokens: list[str]
    attention: Tensor | None = None
    log_probability: float | None = None

    def as_json(self) -> dict[str, Any]:
        """``name``, ``caption``, ``captions`` with their log-probabilities, and the asked text's, if there is one."""
        row = {
            "name": self.name,
            "caption": self.captions[0].text,
            "captions": [{"caption": one.text, "log_probability": one.log_probability} for one in self.captions],
        }
        return row if self.log_probability is None else {**row, "log_probability": self.log_probability}


def draw_captioned(image: Tensor, result: Captioned, references: Sequence[str] = ()) -> Image.Image:
    """The image with its captions below, wrapped; then the references where they are known, and a strip of attention.

    Args:
        image: in [0, 1], (C, H, W).
        result: its captions.
        references: true captions; the first three are shown.
    """
    picture = drawing.to_picture(image, SIDE)
    width = picture.width - MARGIN
    for number, one in enumerate(result.captions, 1):
        text = f"{number}. {one.text}" if len(result.captions) > 1 else one.text
        picture = drawing.captioned(picture, drawing.wrap_text(text, width), drawing.PLAIN)
    for text in references[:3]:
        picture = drawing.captioned(picture, drawing.wrap_text(f"true: {text}", width), drawing.RIGHT)
    strip = attention_strip(image, result)
    return picture if strip is None else drawing.stacked([picture, strip])


def attention_strip(image: Tensor, result: Captioned) -> Image.Image | None:
    """The image once for each token of the first caption, with a heat map of where the network looked for it.

    Each map is scaled to its own largest value. None if there are no maps.
    """
    if result.attention is None or not result.tokens:
        return None
    maps = result.attention.float()[:, None]
    maps = F.interpolate(maps, image.shape[-2:], mode="bilinear")[:, 0].clamp(min=0)
    made = []
    for token, heat in zip(result.tokens, maps, strict=False):
        seen = drawing.to_picture(drawing.heated(image, heat / heat.max().clamp(min=1e-12)), SMALL)
        if max(seen.size) > 2 * SMALL:
            seen.thumbnail((SMALL, SMALL))
        made.append(drawing.captioned(seen, [token]))
    return drawing.grid(made, min(8, len(made)))


def write_results(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Captions in COCO's results format: a list of ``image_id`` and ``caption``; ``file_name`` says which picture.

    Args:
        path: of the JSON file.
        rows: as ``Captioned.as_json`` gives them.
    """
    names = [str(row["name"]) for row in rows]
    found = [
        {"image_id": number, "caption": row["caption"], "file_name": name}
        for number, name, row in zip(image_ids(names), names, rows, strict=True)
    ]
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_ranking(path: Path, text: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """The pictures in the order in which they fit a text, the most probable first."""
    ordered = sorted(rows, key=lambda row: -row["log_probability"])
    found = {"text": text, "pictures": [{key: row[key] for key in ("name", "log_probability")} for row in ordered]}
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
