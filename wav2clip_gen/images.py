"""Input images: read from common formats, upright, opaque, 8 bits per channel. Imports no torch."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen.config import Settings
from wav2clip_gen.errors import SettingsError

if TYPE_CHECKING:
    from PIL import Image

Picture = NDArray[np.uint8]  # (H, W, 3) red, green, blue

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")  # none starts another program
LARGEST = 1024  # px, longer side of a style image; perceptors have less
# What Pillow raises for damaged files, besides OSError.
BROKEN = (SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, RuntimeError, struct.error)


def read_covering(path: str | Path, width: int, height: int) -> Picture:
    """Read an image, scaled and centre-cropped to (height, width, 3).

    Raises:
        SettingsError: There is no such file, it is no image, it is damaged, or it is too large.
    """
    from PIL import Image, ImageOps

    return np.array(ImageOps.fit(_read(Path(path)), (width, height), Image.Resampling.LANCZOS))


def read_style(path: str | Path) -> Picture:
    """Read an image in its own aspect ratio, its longer side at most `LARGEST`.

    Raises:
        SettingsError: As in `read_covering`.
    """
    from PIL import Image

    picture = _read(Path(path))
    picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return np.array(picture)


def check_images(settings: Settings) -> None:
    """Check that the images named in the settings can be read.

    Raises:
        SettingsError: One cannot, or there is an init weight without an init image.
    """
    if settings.painting.init_weight and settings.painting.init_image is None:
        raise SettingsError("an init weight needs an init image, and none is given", hint="add --init-image")
    for file in settings.image_files:
        _read(Path(file))


def _read(path: Path) -> Image.Image:
    from PIL import Image, ImageOps, UnidentifiedImageError

    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=formats) as opened:
                opened.load()
                return _opaque(ImageOps.exif_transpose(opened))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        most = (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise SettingsError(f"{path}: has more than {most:.0f} million pixels", hint="make it smaller first") from None
    except UnidentifiedImageError:
        raise SettingsError(f"{path}: not a readable image", hint="give a PNG, JPEG, WebP or TIFF") from None
    except OSError as error:
        if error.strerror:
            raise SettingsError(f"{path}: cannot be read ({error.strerror})", hint="check the file name") from None
        raise SettingsError(f"{path}: a damaged image ({error})", hint="save it again, as PNG or JPEG") from None
    except BROKEN as error:
        raise SettingsError(f"{path}: a damaged image ({error})", hint="save it again, as PNG or JPEG") from None


def _opaque(picture: Image.Image) -> Image.Image:
    """Convert to RGB, on white where it is transparent."""
    from PIL import Image

    if picture.mode[0] in "IF":  # numbers of more than 8 bits: 16, or floats in [0, 1]
        values = np.asarray(picture, dtype=np.float64) * (1 if picture.mode == "F" else 1 / 65_535)
        picture = Image.fromarray((np.nan_to_num(values).clip(0, 1) * 255).round().astype(np.uint8))
    if picture.has_transparency_data:
        whole = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole)
    return picture.convert("RGB")
