"""One image file as an array of bytes."""

import io

import numpy as np
from PIL import Image, ImageOps

from meta_service.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
MAX_PIXELS = 64 * 10**6
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF")
_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")


def is_picture(name: str) -> bool:
    """Whether a file counts as an image: by its suffix; hidden files and those macOS adds do not."""
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
    return not hidden and name.lower().endswith(SUFFIXES)


def decode(content: bytes, where: str, size: int, channels: int) -> np.ndarray:
    """The pixels [channels, size, size], uint8, of an image file.

    Turned as its EXIF orientation says, converted to grey or RGB, and where it has another size resized (Lanczos; the
    aspect ratio is not kept). Raises UserError naming `where` for what is no image, cut off, or not 8 bits a channel.
    """
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as opened:
            image: Image.Image = opened
            if image.width * image.height > MAX_PIXELS:
                raise UserError(f"{where} has {image.width} x {image.height} pixels, at most {MAX_PIXELS:,} are read")
            if image.mode not in _EIGHT_BITS:
                raise UserError(f"{where} has pixels of type {image.mode}, expected 8 bits a channel; convert it")
            if (
                image.has_transparency_data
            ):  # on white paper; dropping the alpha would show whatever colour lies under it
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
            # converted before resizing: Pillow resizes 1-bit images without averaging, whatever filter is asked for
            pixels = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
    except UserError:
        raise
    except Exception as error:  # damaged bytes end in nearly any error of Pillow's decoders
        raise UserError(f"{where} is not a readable image ({error}); replace it") from error
    if pixels.size != (size, size):
        pixels = pixels.resize((size, size), Image.Resampling.LANCZOS)
    array = np.asarray(pixels)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)
