"""Data sets of captions: every format, whatever the script; what is wrong is named, all at once."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import RandomCrop

from zoo.cli.data import main
from zoo.data.caption_folder import CaptionFolder
from zoo.data.coco import write_coco_example
from zoo.data.coco_captions import CocoCaptions
from zoo.data.flickr import Flickr8k, Flickr30k
from zoo.errors import UserError
from zoo.functional.counting import counted, counting_sentences
from zoo.functional.tokenizing import SubwordTokenizer, tokenizer_of

WHOLE: dict[str, Any] = {"val_fraction": 0, "test_fraction": 0, "min_count": 1, "image_size": 16, "batch_size": 4}
CAPTIONS = {
    "1.png": ["A dog, a cat; and a bird.", 'He says "no|yes".'],
    "2.png": ["Ein Mädchen läuft über die Straße."],
    "b/3.png": ["שלום עולם, כלב!", "كلب يركض"],
    "4 ü.png": ["一只狗在海滩上奔跑。"],
    "5.png": ["a 👩‍👩‍👧 family"],
    "6.png": ["the same", "a dog"],
}


def write_pictures(folder: Path, names: Any = CAPTIONS) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (12, 20, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)


def pairs() -> list[tuple[str, str]]:
    return [(name, text) for name, texts in CAPTIONS.items() for text in texts]


def table(path: Path, delimiter: str = ",", header: tuple[str, ...] = ("image", "caption"), **options: Any) -> None:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, **options)
        writer.writerows([*([header] if header else []), *pairs()])


def as_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def lines(path: Path, records: list[Any]) -> None:
    path.write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")


def coco() -> dict[str, Any]:
    ids = {name: number for number, name in enumerate(CAPTIONS, 7)}
    images = [{"id": number, "file_name": name, "height": 12, "width": 20} for name, number in ids.items()]
    found = [{"id": k, "image_id": ids[name], "caption": text} for k, (name, text) in enumerate(pairs())]
    licenses = [{"url": "u", "id": 1, "name": "CC"}]
    return {"info": {"description": "d"}, "annotations": found, "licenses": licenses, "images": images}


def karpathy() -> dict[str, Any]:
    images = [
        {"filename": name, "split": "train", "imgid": i, "sentences": [{"tokens": t.split(), "raw": t} for t in texts]}
        for i, (name, texts) in enumerate(CAPTIONS.items())
    ]
    return {"images": images, "dataset": "own"}


def beside(folder: Path, suffix: str) -> None:
    for name, texts in CAPTIONS.items():
        (folder / name).with_suffix(suffix).write_text("\n".join(["", *texts, "  "]), encoding="utf-8")
    (folder / "README.txt").write_text("not a caption")


NUMBERED = [f"{name}#{i}\t{text}" for name, texts in CAPTIONS.items() for i, text in enumerate(texts)]
BARS = ["image_name| comment_number| comment", *(f"{name}| 0| {text.replace('|', ' ')}" for name, text in pairs())]
FORMATS: dict[str, Callable[[Path], Any]] = {
    "table": lambda f: table(f / "captions.csv"),
    "table without a header": lambda f: table(f / "captions.csv", header=()),
    "table of other columns": lambda f: table(f / "any.csv", header=("File Name", "Text")),
    "semicolons": lambda f: table(f / "captions.csv", ";"),
    "tabs": lambda f: table(f / "captions.tsv", "\t", quoting=csv.QUOTE_NONE, quotechar=None),
    "numbered": lambda f: (f / "captions.token").write_text("\n".join(NUMBERED), encoding="utf-8"),
    "list": lambda f: as_json(f / "c.json", [{"image": name, "caption": text} for name, text in pairs()]),
    "lists": lambda f: as_json(f / "c.json", [{"file_name": n, "captions": texts} for n, texts in CAPTIONS.items()]),
    "by picture": lambda f: as_json(f / "c.json", CAPTIONS),
    "wrapped": lambda f: as_json(f / "c.json", {"data": [{"path": n, "text": t} for n, t in pairs()], "info": {}}),
    "COCO": lambda f: as_json(f / "c.json", coco()),
    "Karpathy": lambda f: as_json(f / "c.json", karpathy()),
    "lines": lambda f: lines(f / "metadata.jsonl", [{"file_name": name, "text": text} for name, text in pairs()]),
    "texts": lambda f: beside(f, ".txt"),
    "caption files": lambda f: beside(f, ".caption"),
}


def read(folder: Path, **options: Any) -> CaptionFolder:
    data = CaptionFolder(str(folder), **{**WHOLE, **options})
    data.setup("fit")
    return data


def sentences(data: Any, root: Path, split: Any = "train") -> dict[str, list[str]]:
    samples = data.annotated(split)
    details = [samples[index][1] for index in range(len(samples))]
    return {Path(one["path"]).relative_to(root).as_posix(): one["references"] for one in details}


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_read(tmp_path: Path, form: str) -> None:
    write_pictures(tmp_path)
    FORMATS[form](tmp_path)
    data = read(tmp_path)
    assert sentences(data, tmp_path) == CAPTIONS
    images, tokens, details = next(iter(data.train_dataloader()))
    assert images.shape == (4, 3, 16, 16)
    tokenizer = tokenizer_of(data.facts)
    for row, one in zip(tokens, details, strict=True):
        bare = {"".join(text.lower().split()) for text in one["references"]}
        assert "".join(tokenizer.decode(row).split()) in bare


def test_unusual_columns_are_named(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    table(tmp_path / "captions.csv", header=("Bild", "Satz"))
    with pytest.raises(UserError, match=r"captions.csv has no column of images: its first line is 'Bild, Satz'"):
        read(tmp_path)
    assert sentences(read(tmp_path, columns={"image": "Bild", "caption": "Satz"}), tmp_path) == CAPTIONS
    with pytest.raises(UserError, match="image, caption and part, not bild"):
        CaptionFolder(columns={"bild": "Bild"})


def test_several_columns_of_captions_and_commas_that_nobody_quoted(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["a.png", "b.png"])
    (tmp_path / "wide.csv").write_text("id,image,caption_1,caption_2\n0,a.png,one,two\n1,b.png,three,\n")
    (tmp_path / "loose.csv").write_text("image,caption\na.png,a dog, a cat, a bird\nb.png,one\n")
    assert sentences(read(tmp_path, captions="wide.csv"), tmp_path) == {"a.png": ["one", "two"], "b.png": ["three"]}
    assert sentences(read(tmp_path, captions="loose.csv"), tmp_path)["a.png"] == ["a dog, a cat, a bird"]


@pytest.mark.parametrize("form", ["column", "files", "folders", "beside"])
def test_parts_are_found(tmp_path: Path, form: str) -> None:
    names = {"train": ["1.png", "2.png"], "val": ["3.png"], "test": ["4.png"]}
    rows = [(f"{part}/{name}", f"picture {name}", part) for part, some in names.items() for name in some]
    write_pictures(tmp_path, [path for path, *_ in rows])
    if form == "column":
        content = "".join(f"{path},{text},{part.upper()}\n" for path, text, part in rows)
        (tmp_path / "all.csv").write_text(f"image,caption,split\n{content}")
    for part, some in names.items():
        if form in ("files", "folders"):
            place = tmp_path / f"{part}.jsonl" if form == "files" else tmp_path / part / "metadata.jsonl"
            lines(place, [{"file_name": name, "text": f"picture {name}"} for name in some])
        if form == "beside":
            for name in some:
                (tmp_path / part / name).with_suffix(".txt").write_text(f"picture {name}")
    data = CaptionFolder(str(tmp_path), **{**WHOLE, "val_fraction": 0.1, "test_fraction": 0.1})
    data.setup()
    for part, some in names.items():
        assert sentences(data, tmp_path, part) == {f"{part}/{name}": [f"picture {name}"] for name in some}


def test_parts_are_held_out_the_same_way_each_time(tmp_path: Path) -> None:
    data = CaptionFolder(**CaptionFolder.write_example(tmp_path))
    data.setup()
    found = {split: sentences(data, tmp_path, split) for split in ("train", "val", "test")}
    assert [len(one) for one in found.values()] == [10, 2, 3]
    again = CaptionFolder(str(tmp_path), **CaptionFolder.example)
    again.setup()
    assert {split: sentences(again, tmp_path, split) for split in found} == found
    assert data.summary() == (
        f"CaptionFolder: vocabulary of {len(data.facts['vocabulary'])}: 10 train pictures with 20 captions, "
        "2 val pictures with 4 captions, 3 test pictures with 6 captions"
    )


# What is wrong

WRONG: dict[str, tuple[str, Any, list[str]]] = {
    "table": (
        "c.csv",
        "image,caption\n1.png,good\nno.png,gone\n1.png,  \n2.png\n,nameless\nno.png,gone again\n2.png,\u200b\n",
        [
            "c.csv: line 3: its picture {root}/no.png is missing",
            "c.csv: line 4: the caption of 1.png is empty",
            "c.csv: line 5: it has 1 of the 2 columns",
            "c.csv: line 6: it names no picture",
            "c.csv: line 8: the caption of 2.png is empty",
        ],
    ),
    "an open quote": (
        "c.csv",
        'image,caption\n1.png,good\n2.png,"open\n3.png,next\n',
        ["c.csv: line 4: unexpected end of data; the lines behind it are not read"],
    ),
    "part": (
        "c.csv",
        "image,caption,split\n1.png,a,train\n2.png,b,dev\n1.png,c,test\n2.png,d,beta\n",
        ["c.csv: line 5: its part is 'beta', expected train, val or test", "1.png is in the train part, too"],
    ),
    "list": (
        "c.json",
        '[{"image": "1.png", "caption": "a"}, 7, {"image": "1.png"}, {"caption": "b"}, '
        '{"image": "2.png", "captions": [null, 3, "\\ud83d", ""]}]',
        [
            "c.json: entry 2: it is '7', not an object",
            "c.json: entry 3: 1.png has no captions",
            "c.json: entry 4: it names no picture",
            "c.json: entry 5: the caption of 2.png is 'None', not a text",
            "c.json: entry 5: the caption of 2.png is '3', not a text",
            "c.json: entry 5: the caption of 2.png is not valid Unicode: it has half of a surrogate pair",
            "c.json: entry 5: the caption of 2.png is empty",
        ],
    ),
    "lines": (
        "c.jsonl",
        '{"image": "1.png", "text": "a"}\n{"image": \n\n["1.png"]\n',
        ["c.jsonl: line 2 is not JSON: Expecting value", "c.jsonl: line 4: it is \"['1.png']\", not an object"],
    ),
    "COCO": (
        "c.json",
        '{"images": [{"id": 1, "file_name": "1.png"}, {"id": 1, "file_name": "2.png"}, '
        '{"id": "x", "file_name": "2.png"}, {"id": 3, "file_name": "no.png"}], '
        '"annotations": [{"id": 1, "image_id": 1, "caption": "a"}, '
        '{"id": 1, "image_id": 1, "caption": "b"}, {"id": 2, "image_id": 9, "caption": "c"}, '
        '{"id": 3, "image_id": 3, "caption": "d"}, {"id": 4, "image_id": 1, "caption": ""}]}',
        [
            "c.json: image 1: another image has this id, too",
            "c.json: image x: it needs an id, which is an integer, and a file_name",
            "c.json: annotation 1: another annotation has this id, too",
            "c.json: annotation 2: its image_id 9 is not among the images",
            "c.json: annotation 3: its picture {root}/no.png is missing",
            "c.json: annotation 4: the caption of 1.png is empty",
        ],
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_all_that_is_wrong_is_named_at_once(tmp_path: Path, kind: str) -> None:
    write_pictures(tmp_path, ["1.png", "2.png", "3.png"])
    name, content, expected = WRONG[kind]
    (tmp_path / name).write_text(content, encoding="utf-8")
    data = CaptionFolder(str(tmp_path), **WHOLE)
    with pytest.raises(UserError, match=rf"{len(expected)} entries are wrong: .*--data.skip_wrong true") as caught:
        data.setup("fit")
    assert "\n" not in str(caught.value)
    found = sorted(line for faults in data.faults.values() for line in faults.wrong)
    for line, wanted in zip(found, sorted(one.replace("{root}", str(tmp_path)) for one in expected), strict=True):
        assert wanted in line
    skipping = read(tmp_path, skip_wrong=True)
    assert f"left out: wrong entries ({len(expected)})" in skipping.summary()
    assert "1.png" in sentences(skipping, tmp_path)


def test_texts_beside_pictures_that_are_wrong_are_named(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["1.png", "2.png", "3.png", "4.png"])
    (tmp_path / "1.txt").write_text("a dog")
    (tmp_path / "2.txt").write_text(" \n")
    (tmp_path / "3.txt").write_bytes("Straße".encode("latin-1"))
    (tmp_path / "5.txt").write_text("nothing beside it")
    data = CaptionFolder(str(tmp_path), **WHOLE)
    with pytest.raises(UserError, match="3 entries are wrong") as caught:
        data.setup("fit")
    for part in (
        "2.txt (beside 2.png): the caption of 2.png is empty",
        "3.txt is not UTF-8 text: line 1 has the byte 0xdf",
    ):
        assert part in str(caught.value).replace("its caption", "the caption of 2.png")
    assert "5.txt: there is no picture beside it" in str(caught.value)
    assert "left out: wrong entries (3), pictures without captions (2)" in read(tmp_path, skip_wrong=True).summary()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.csv", b"image,caption\na.png,Stra\xdfe\n", "c.csv is not UTF-8 text: line 2 has the byte 0xdf"),
        ("c.json", b"[1, 2", "c.json is not valid JSON at character 5"),
        ("c.json", b'{"info": {}}', "c.json has no captions: expected COCO's format"),
        ("c.json", b"", "expected a JSON object"),
        ("c.csv", b"a.png\n", "c.csv has one column"),
        ("c.csv", b"", "nothing to train on: there is no picture with a caption"),
        (None, b"", "has no captions: expected a .csv, .tsv, .json or .jsonl file"),
    ],
)
def test_a_file_that_holds_no_captions_ends_in_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    write_pictures(tmp_path, ["a.png"])
    if name:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_repeated_captions_and_names_written_otherwise_are_one(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["images/a.png", "images/é.png"])
    rows = ["images/a.png,one", "./images/a.png,one ", "images\\a.png,two\tthree", "a,four", "images/e\u0301.png,five"]
    (tmp_path / "c.csv").write_text("\n".join(["image,caption", *rows]), encoding="utf-8")
    data = read(tmp_path)
    assert sentences(data, tmp_path) == {"images/a.png": ["one", "two three", "four"], "images/é.png": ["five"]}
    assert data.summary().endswith("left out: repeated captions (1)")


def test_long_captions_are_cut_and_counted(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["a.png", "b.png"])
    long = " ".join(["word"] * 500)
    as_json(tmp_path / "c.json", {"a.png": long, "b.png": "a word"})
    data = read(tmp_path, max_length=5)
    _, tokens, details = next(iter(data.train_dataloader()))
    assert tokens.shape == (2, 7)
    assert {len(one["references"][0]) for one in details} == {len(long), len("a word")}
    assert data.summary().endswith("longer than data.max_length 5 and cut: 1 captions")
    assert "captions of more than 5 tokens, which are cut: 1" in data.statistics("train")


def test_rare_words_are_unknown_and_those_of_other_parts_too(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["a.png", "b.png", "v.png"])
    rows = "a.png,a dog,train\nb.png,a cat,train\nb.png,a dog,train\nv.png,a dog zebra,val\n"
    (tmp_path / "c.csv").write_text(f"image,caption,split\n{rows}")
    data = read(tmp_path, min_count=2)
    assert data.facts["vocabulary"][4:] == ["a", "dog"]
    _, tokens, details = next(iter(data.val_dataloader()))
    unknown = data.facts["unknown_id"]
    assert tokens.tolist() == [[1, 4, 5, unknown, 2]]
    assert details[0]["references"] == ["a dog zebra"]
    assert any("tokens that are not in the vocabulary of 6: 1 (33.33 %)" in line for line in data.statistics("val"))


def test_subwords_are_trained_or_read(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    as_json(tmp_path / "c.json", CAPTIONS)
    trained = read(tmp_path, tokens="subwords", vocabulary_size=280)
    tokenizer = tokenizer_of(trained.facts)
    _, tokens, details = next(iter(trained.train_dataloader()))
    for row, one in zip(tokens, details, strict=True):
        assert tokenizer.decode(row) in one["references"]
    assert isinstance(tokenizer, SubwordTokenizer)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "tokenizer.json").write_text(tokenizer.text)
    assert read(tmp_path, tokens=str(tmp_path / "own" / "tokenizer.json")).facts == trained.facts
    with pytest.raises(UserError, match=r"data.tokens is words, subwords or a tokenizer.json, not bert"):
        read(tmp_path, tokens="bert")


# Published sets


def test_karpathys_split_of_coco_finds_the_pictures_of_both_years(tmp_path: Path) -> None:
    images = []
    for number, (split, folder) in enumerate(
        [("train", "train2014"), ("restval", "val2014"), ("val", "val2014"), ("test", "val2014"), ("test", "train2014")]
    ):
        name = f"COCO_{folder}_{number:012}.jpg"
        own = tmp_path / "train2017" / f"{number:012}.jpg" if number % 2 else tmp_path / folder / name
        write_pictures(own.parent, [own.name])
        raw = [{"raw": f"picture {number} ", "tokens": ["picture"]}]
        images.append({"filepath": folder, "filename": name, "cocoid": number, "split": split, "sentences": raw})
    as_json(tmp_path / "dataset_coco.json", {"images": images, "dataset": "coco"})
    data = CocoCaptions(str(tmp_path), karpathy=True, **WHOLE)
    data.setup()
    found = {split: list(sentences(data, tmp_path, split).values()) for split in ("train", "val", "test")}
    assert found == {
        "train": [["picture 0"], ["picture 1"]],
        "val": [["picture 2"]],
        "test": [["picture 3"], ["picture 4"]],
    }
    assert data.annotated("test")[0][1]["image_id"] == 3
    as_json(tmp_path / "dataset_coco.json", {"images": [*images, {**images[0], "split": "mine"}]})
    with pytest.raises(UserError, match="entry 6: its split is 'mine', not one of train, restval, val, test"):
        CocoCaptions(str(tmp_path), karpathy=True, **WHOLE).setup()


def test_cocos_published_files_are_read(tmp_path: Path) -> None:
    data = CocoCaptions(**CocoCaptions.write_example(tmp_path))
    data.setup()
    assert "8 train pictures with 16 captions, 2 val pictures with 4 captions, 5 test pictures" in data.summary()
    for part in ("train2017", "val2017"):
        (tmp_path / "annotations" / f"captions_{part}.json").unlink()
    with pytest.raises(UserError, match=r"has no annotations: expected .*annotations/captions_train2017.json"):
        CocoCaptions(str(tmp_path)).setup()
    instances = str(tmp_path / "annotations" / "instances_train2017.json")
    with pytest.raises(UserError, match=r"instances_train2017\.json has no captions: it is of another kind"):
        CocoCaptions(str(tmp_path), annotations=instances).setup()


def test_captions_are_made_of_cocos_instances(tmp_path: Path) -> None:
    write_coco_example(tmp_path / "annotations" / "instances_train2017.json", tmp_path / "train2017", range(15))
    data = CocoCaptions(str(tmp_path), instances=True, **WHOLE)
    data.setup("fit")
    found = sentences(data, tmp_path)
    annotations = json.loads((tmp_path / "annotations" / "instances_train2017.json").read_text())
    names = {one["id"]: one["name"] for one in annotations["categories"]}
    for image in annotations["images"]:
        own = [one for one in annotations["annotations"] if one["image_id"] == image["id"]]
        path = f"train2017/{image['file_name']}"
        assert (path in found) == bool(own)
        for kind in {one["category_id"] for one in own}:
            same = [one for one in own if one["category_id"] == kind]
            phrase = counted(names[kind], len(same), any(one["iscrowd"] for one in same))
            assert all(phrase in sentence for sentence in found[path])
    assert "left out: pictures without captions (5)" in data.summary()


@pytest.mark.parametrize(
    ("things", "expected"),
    [
        ([("dog", 2, False), ("frisbee", 1, False)], "two dogs and a frisbee"),
        ([("person", 3, False), ("orange", 1, False), ("bus", 2, False)], "three people, an orange and two buses"),
        ([("umbrella", 1, False), ("knife", 2, False)], "an umbrella and two knives"),
        ([("person", 9, True), ("skis", 1, False)], "many people and a pair of skis"),
        ([("wine glass", 2, False), ("broccoli", 3, False)], "two wine glasses and some broccoli"),
        ([("sheep", 13, False), ("scissors", 2, False)], "many sheep and two pairs of scissors"),
        ([("teddy bear", 12, False), ("mouse", 2, False)], "twelve teddy bears and two mice"),
        ([("baby", 2, False), ("toy", 2, False), ("bench", 2, False)], "two babies, two toys and two benches"),
    ],
)
def test_things_are_counted_in_words(things: list[tuple[str, int, bool]], expected: str) -> None:
    made = counting_sentences(things)
    assert made[0] == expected
    assert len(set(made)) == len(made) == 6
    one = things[0][1] == 1 and not things[0][2]
    assert f"there {'is' if one else 'are'} {expected}" in made


def test_flickr8k_takes_the_pictures_of_the_lists(tmp_path: Path) -> None:
    data = Flickr8k(**Flickr8k.write_example(tmp_path))  # its table has a caption of a picture that is in no list
    data.setup()
    assert "9 train pictures with 18 captions, 3 val pictures with 6 captions, 3 test pictures" in data.summary()
    with (tmp_path / "Flickr_8k.devImages.txt").open("a") as file:
        file.write("0000000001_flickr.jpg\nunknown.jpg\n")
    with pytest.raises(UserError, match="2 entries are wrong") as caught:
        Flickr8k(str(tmp_path)).setup()
    assert "devImages.txt: 0000000001_flickr.jpg is in the list of the train part, too" in str(caught.value)
    assert "the picture unknown.jpg, which a list names, has no captions" in str(caught.value)


def test_kaggles_tables_of_flickr_are_read(tmp_path: Path) -> None:
    names = ["1000.jpg", "2000.jpg", "2199200615.jpg"]
    write_pictures(tmp_path / "Images", names)
    (tmp_path / "captions.txt").write_text("image,caption\n" + "".join(f'{n},"A dog , and {n} ."\n' for n in names))
    small = Flickr8k(str(tmp_path), **WHOLE)
    small.setup()
    assert sentences(small, tmp_path)["Images/2000.jpg"] == ["A dog , and 2000.jpg ."]
    rows = ['1000.jpg| 0| Two men, in "green" shirts .', "2000.jpg| 0| A cat .", "2199200615.jpg| 4   A dog runs ."]
    (tmp_path / "results.csv").write_text("\n".join(["image_name| comment_number| comment", *rows]))
    large = Flickr30k(str(tmp_path), **WHOLE)
    large.setup()
    found = sentences(large, tmp_path)
    assert found["Images/1000.jpg"] == ['Two men, in "green" shirts .']
    assert found["Images/2199200615.jpg"] == ["A dog runs ."]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: Flickr8k(root), r"has no Flickr8k.token.txt: it is in Flickr8k_text.zip \(2 MB\)"),
        (lambda root: Flickr30k(root), r"has no results_20130124.token: .* \(4 GB\) are given on request"),
        (lambda root: Flickr30k(root, karpathy=True), r"there is no .*dataset_flickr30k.json: Karpathy's split is in"),
        (lambda root: CocoCaptions(root), r"no annotations: expected .*captions_train2017.json"),
        (lambda root: CocoCaptions(root, karpathy=True), r"there is no .*dataset_coco.json"),
        (lambda root: CocoCaptions(root, karpathy=True, instances=True), r"data.karpathy names its own file"),
        (lambda root: CaptionFolder(f"{root}/no"), r"no does not exist: give the pictures' folder by --data.root"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(tmp_path: Path, make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make(str(tmp_path)).setup("fit")
    assert "\n" not in str(caught.value)


# Training


def test_a_training_sentence_is_drawn_by_the_key_and_survives_augmentation(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    as_json(tmp_path / "c.json", CAPTIONS)

    data = read(tmp_path, augment=[partial(RandomCrop, size=16, padding=4)])
    samples, drawn = data.samples("train"), list[Any]()
    for key in (0, 1, 2, 3, 4, 0):
        torch.manual_seed(key)
        drawn.append(samples[0])
    assert torch.equal(drawn[0][0], drawn[-1][0])
    assert torch.equal(drawn[0][1], drawn[-1][1])
    assert not torch.equal(drawn[0][0], drawn[1][0])
    assert len({tuple(tokens.tolist()) for _, tokens, _ in drawn}) == 2
    assert drawn[0][2]["references"] == CAPTIONS["1.png"]


def test_unreadable_pictures_are_refused_for_evaluation_and_skipped_in_training(tmp_path: Path) -> None:
    data = CaptionFolder(**CaptionFolder.write_example(tmp_path), skip_unreadable=True)
    data.setup()
    training = Path(data.annotated("train").pictures[0].path)
    training.write_bytes(b"no picture")
    seen = CaptionFolder(**{**CaptionFolder.example, "root": str(tmp_path), "skip_unreadable": True})
    seen.setup()
    assert sum(len(details) for _, _, details in seen.train_dataloader()) == 9
    assert len(seen.check_samples("train")) == 1
    Path(data.annotated("val").pictures[0].path).write_bytes(b"no picture")
    with pytest.raises(UserError, match="evaluation skips no pictures"):
        CaptionFolder(str(tmp_path), **CaptionFolder.example, skip_unreadable=True).setup("fit")


def test_the_check_names_all_counts_words_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(tmp_path)
    FORMATS["table"](tmp_path)
    (tmp_path / "5.png").write_bytes(b"no picture")
    with (tmp_path / "captions.csv").open("a", encoding="utf-8") as file:
        file.write("gone.png,a dog\n")
    page = tmp_path / "page.png"
    options = ["--data.val_fraction", "0", "--data.test_fraction", "0", "--data.min_count", "1"]
    assert main(["check", "--data", "CaptionFolder", "--data.root", str(tmp_path), *options, "--page", str(page)]) == 1
    said = capsys.readouterr().out
    assert "train: 6 samples, 2 problems" in said
    assert f"captions.csv: line 11: its picture {tmp_path / 'gone.png'} is missing" in said
    assert "5.png can't be read as a picture" in said
    assert "captions: 9, 1 to 2, median 1.5 for a picture" in said
    assert "most frequent: a (5)" in said
    assert Image.open(page).height > 3 * 256  # five pictures in two rows, with sentences below
    with pytest.raises(UserError, match="CaptionFolder has neither boxes nor classes of pixels"):
        main(["export", "--data", "CaptionFolder", "--data.root", str(tmp_path)])
