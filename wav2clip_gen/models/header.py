"""The header of a weights file: which network it holds and where its numbers come from. Imports no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wav2clip_gen.errors import WeightsError

FORMAT = 1  # a later incompatible one gets the next number


@dataclass(frozen=True, kw_only=True)
class Header:
    """The metadata of a weights file."""

    role: str  # vqgan, clip, wav2clip or prior; `part` in the file
    config: dict[str, Any]  # arguments that rebuild the network
    training: dict[str, Any] = field(default_factory=dict)  # where the weights come from: steps, seed, data, scores
    original: dict[str, str] = field(default_factory=dict)  # name and sha256 of the file that was converted

    def metadata(self) -> dict[str, str]:
        """The header as the metadata of a safetensors file."""
        fields = asdict(self)
        return {"w2c-gen": json.dumps({"format": FORMAT, "part": fields.pop("role"), **fields})}


def require_file(path: Path, hint: str) -> Path:
    """Make sure that a weights file is there, and return it.

    Raises:
        WeightsError: It is not; `hint` is what to do then.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file", hint=hint)
    return path


def read_header(path: Path) -> Header:
    """The header of a weights file, read without torch.

    Raises:
        WeightsError: The file is missing, truncated, or not one of w2c-gen.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(require_file(path, "run `w2c-gen doctor`"), framework="np") as file:
            fields = json.loads((file.metadata() or {})["w2c-gen"])
        if fields.pop("format") != FORMAT:
            raise WeightsError(f"{path}: written by another version of w2c-gen", hint="update w2c-gen")
        return Header(role=fields.pop("part"), **fields)
    except (SafetensorError, OSError) as error:
        hint = "run `w2c-gen weights verify`, then fetch what is damaged again, or reinstall w2c-gen"
        raise WeightsError(f"{path}: not a readable safetensors file ({error})", hint=hint) from None
    except (AttributeError, KeyError, TypeError, ValueError):
        hint = "convert it: `w2c-gen weights convert FILE --as NAME --out OTHER.safetensors`"
        raise WeightsError(f"{path}: not a weights file of w2c-gen", hint=hint) from None
