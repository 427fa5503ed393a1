import numpy as np
import torch
from sklearn.datasets import load_digits

from zoo.data import Digits


def test_digits_are_scikit_learns():
    data = Digits()
    data.setup()
    parts = {split: data.samples(split) for split in ("train", "val", "test")}
    rows = {split: part.fetch(torch.arange(len(part))) for split, part in parts.items()}
    assert {split: len(labels) for split, (_, labels) in rows.items()} == {"train": 1295, "val": 143, "test": 359}
    images = torch.cat([images for images, _ in rows.values()])
    labels = torch.cat([labels for _, labels in rows.values()])
    digits = load_digits()
    ours = sorted(
        (label, tuple(image)) for label, image in zip(labels.tolist(), images.flatten(1).tolist(), strict=True)
    )
    scaled = np.round(digits.images * 255 / 16).astype(int).reshape(-1, 64)
    assert ours == sorted(
        (int(label), tuple(image)) for label, image in zip(digits.target, scaled.tolist(), strict=True)
    )
    shares = torch.bincount(rows["test"][1]) / torch.bincount(labels)
    assert ((shares - 0.2).abs() < 0.005).all()
    assert data.facts["class_counts"] == torch.bincount(rows["train"][1]).tolist()
    assert data.facts["mean"] == [round((rows["train"][0] / 255.0).double().mean().item(), 4)]
