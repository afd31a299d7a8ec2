"""The judge: its labels are what they are called, its choices are counted fairly, and it can see."""

from __future__ import annotations

import sys

import pytest
import torch
from timm.data.imagenet_info import ImageNetInfo

from wav2clip_gen.errors import W2CError
from wav2clip_gen.evaluation import judge, judging
from wav2clip_gen.evaluation.classes import ESC_50

# A word of each class's labels, by which all its indices are checked against timm's list.
WORDS = {
    "rooster": ("cock",), "hen": ("hen",), "cat": ("cat", "tabby"), "pig": ("hog", "boar"), "cow": ("ox",),
    "sheep": ("ram", "bighorn"), "frog": ("frog",), "sea_waves": ("breakwater", "promontory", "sandbar", "seashore"),
    "chainsaw": ("chain saw",), "clock": ("clock",),
    "train": ("train", "locomotive", "freight car", "passenger car"), "church_bells": ("bell", "church"),
    "keyboard_typing": ("keyboard",), "vacuum_cleaner": ("vacuum",), "airplane": ("airliner", "plane"),
    "washing_machine": ("washer",), "toilet_flush": ("toilet",),
    "siren": ("ambulance", "fire engine", "police van"),
}  # fmt: skip


INFO = ImageNetInfo()


def described(row: int) -> str:
    return INFO.index_to_description(row, detailed=True)


def test_every_label_is_what_its_class_says() -> None:
    for name, words in WORDS.items():
        for row in judge.SEEN_AS[name]:
            assert any(word in described(row) for word in words), (name, described(row))
    ids = INFO.label_names()  # type: ignore[no-untyped-call]
    dogs, insects = judge.SEEN_AS["dog"], judge.SEEN_AS["insects"]
    assert (described(dogs[0]).split(":")[0], described(dogs[-1]).split(":")[0]) == ("Chihuahua", "Mexican hairless")
    assert all("dog" in described(row) or ids[row] < "n02114" for row in dogs)
    assert (described(insects[0])[:12], described(insects[-1])[:8]) == ("tiger beetle", "lycaenid")
    assert set(judge.SEEN_AS) == {*WORDS, "dog", "insects"}


def test_no_label_is_in_two_classes() -> None:
    rows = [row for these in judge.SEEN_AS.values() for row in these]
    assert len(rows) == len(set(rows))


def test_classes_are_those_of_esc_50() -> None:
    assert len(judge.SEEN_AS) == 20
    assert {judge.class_of(label) for label in ESC_50} == {None, *judge.SEEN_AS}
    assert judge.class_of("clock_alarm") == judge.class_of("clock_tick") == "clock"


def test_each_class_has_words_for_an_image_tower() -> None:
    words = judge.class_words()
    assert len(set(words)) == len(judge.SEEN_AS)
    assert words[0] == "a picture of a dog"
    assert "a picture of a computer keyboard" in words


def test_probabilities_of_a_class_are_summed() -> None:
    one = torch.zeros(1, 1000)
    one[0, [151, 200, 268]], one[0, 281], one[0, 999] = torch.tensor([0.1, 0.2, 0.3]), 0.25, 0.15
    summed = dict(zip(judge.SEEN_AS, judge.class_probabilities(one)[0].tolist(), strict=True))
    assert summed["dog"] == pytest.approx(0.6)
    assert summed["cat"] == pytest.approx(0.25)
    assert sum(summed.values()) == pytest.approx(0.85)


def test_without_the_extra_the_hint_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(W2CError) as error:
        judge.load_judge()
    assert "wav2clip-gen[evaluate]" in error.value.hint


def test_a_judge_that_is_always_right_is_not_lucky() -> None:
    truth = torch.arange(20)
    choices = judging.weigh(torch.eye(20), truth, seed=0)
    assert (choices.right, choices.films, choices.top5) == (20, 20, 20)
    assert choices.shuffled == pytest.approx(1 / 20)
    assert choices.luck < 0.001


def test_a_judge_that_always_says_dog_gains_nothing_on_shuffled_sounds() -> None:
    scores = torch.zeros(10, 20)
    scores[:, 0] = 1
    choices = judging.weigh(scores, torch.tensor([0] * 4 + [7] * 6), seed=0)
    assert choices.right == 4
    assert choices.shuffled == pytest.approx(0.4)
    assert choices.luck == 1.0


def clock_face() -> torch.Tensor:
    """A picture (1, 3, 224, 224) of a white clock on a brown wall, at ten past ten."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (448, 448), (150, 110, 70))
    draw = ImageDraw.Draw(image)
    draw.ellipse((64, 64, 384, 384), fill=(20, 20, 20))
    draw.ellipse((80, 80, 368, 368), fill=(250, 250, 245))
    for hour in range(12):
        angle = torch.tensor(hour * torch.pi / 6)
        x, y = angle.sin().item(), -angle.cos().item()
        draw.line((224 + 112 * x, 224 + 112 * y, 224 + 134 * x, 224 + 134 * y), fill=(0, 0, 0), width=8)
    for degrees, length, width in ((305, 70, 12), (60, 105, 8)):
        angle = torch.tensor(degrees * torch.pi / 180)
        end = (224 + length * angle.sin().item(), 224 - length * angle.cos().item())
        draw.line((224, 224, *end), fill=(0, 0, 0), width=width)
    pixels = torch.frombuffer(bytearray(image.resize((224, 224)).tobytes()), dtype=torch.uint8)
    return pixels.view(224, 224, 3).permute(2, 0, 1)[None] / 255


@pytest.mark.slow
def test_the_real_judge_knows_a_clock_when_it_sees_one() -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="the `evaluate` extra is not installed")
    probabilities = judge.load_judge()(clock_face())
    assert probabilities.shape == (1, 1000)
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-4)
    classes = judge.class_probabilities(probabilities)[0]
    assert list(judge.SEEN_AS)[int(classes.argmax())] == "clock"
    assert classes.max() > 0.3
