"""The judges: their labels are those of their classes, and they recognize a clock."""

from __future__ import annotations

import sys

import pytest
import torch
from timm.data.imagenet_info import ImageNetInfo

from wav2clip_gen.errors import W2CError
from wav2clip_gen.evaluation import film
from wav2clip_gen.evaluation.held_out import ESC_50

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


def test_every_label_belongs_to_its_class() -> None:
    for name, words in WORDS.items():
        for row in film.IMAGENET_LABELS[name]:
            assert any(word in described(row) for word in words), (name, described(row))
    ids = INFO.label_names()  # type: ignore[no-untyped-call]
    dogs, insects = film.IMAGENET_LABELS["dog"], film.IMAGENET_LABELS["insects"]
    assert (described(dogs[0]).split(":")[0], described(dogs[-1]).split(":")[0]) == ("Chihuahua", "Mexican hairless")
    assert all("dog" in described(row) or ids[row] < "n02114" for row in dogs)
    assert (described(insects[0])[:12], described(insects[-1])[:8]) == ("tiger beetle", "lycaenid")
    assert set(film.IMAGENET_LABELS) == {*WORDS, "dog", "insects"}


def test_no_label_is_in_two_classes() -> None:
    rows = [row for these in film.IMAGENET_LABELS.values() for row in these]
    assert len(rows) == len(set(rows))


def test_classes_are_those_of_esc_50() -> None:
    assert len(film.IMAGENET_LABELS) == 20
    assert {film.class_of(label) for label in ESC_50} == {None, *film.IMAGENET_LABELS}
    assert film.class_of("clock_alarm") == film.class_of("clock_tick") == "clock"


def test_each_class_has_a_prompt_for_an_image_tower() -> None:
    prompts = film.class_prompts()
    assert len(set(prompts)) == len(film.IMAGENET_LABELS)
    assert prompts[0] == "a picture of a dog"
    assert "a picture of a computer keyboard" in prompts


def test_probabilities_of_a_class_are_summed() -> None:
    one = torch.zeros(1, 1000)
    one[0, [151, 200, 268]], one[0, 281], one[0, 999] = torch.tensor([0.1, 0.2, 0.3]), 0.25, 0.15
    summed = dict(zip(film.IMAGENET_LABELS, film.class_probabilities(one)[0].tolist(), strict=True))
    assert summed["dog"] == pytest.approx(0.6)
    assert summed["cat"] == pytest.approx(0.25)
    assert sum(summed.values()) == pytest.approx(0.85)


def test_without_the_extra_the_hint_tells_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(W2CError) as error:
        film.load_judges()
    assert "wav2clip-gen[evaluate]" in error.value.hint


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
def test_the_real_judges_recognize_a_clock() -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="the `evaluate` extra is not installed")
    judges = film.load_judges()
    assert list(judges) == ["Lite0", "Lite1"]
    for judge in judges.values():
        probabilities = judge(clock_face())
        assert probabilities.shape == (1, 1000)
        assert probabilities.sum().item() == pytest.approx(1, abs=1e-4)
        classes = film.class_probabilities(probabilities)[0]
        assert list(film.IMAGENET_LABELS)[int(classes.argmax())] == "clock"
        assert classes.max() > 0.3
