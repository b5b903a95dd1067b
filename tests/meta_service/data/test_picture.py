import io

import numpy as np
import pytest
from PIL import Image

from meta_service.data import picture as pictures
from meta_service.data.picture import decode, is_picture
from meta_service.errors import UserError

COLOURS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm"])
def test_pixels_come_channels_first_and_unchanged(picture, suffix):
    np.testing.assert_array_equal(decode(picture(COLOURS, suffix), "x", 8, 3), COLOURS.transpose(2, 0, 1))


def test_grey_becomes_three_equal_channels(picture):
    np.testing.assert_array_equal(decode(picture(COLOURS[..., 0]), "x", 8, 3), np.stack([COLOURS[..., 0]] * 3))


def test_one_channel_is_grey(picture):
    assert decode(picture(np.full((8, 8, 3), 77, np.uint8)), "x", 8, 1).tolist() == np.full((1, 8, 8), 77).tolist()


def test_another_size_is_resized(picture):
    pixels = decode(picture(np.full((20, 33), 99, np.uint8)), "x", 8, 3)
    assert pixels.shape == (3, 8, 8)
    assert (pixels == 99).all()


def test_a_one_bit_drawing_is_averaged_when_it_shrinks():
    stripes = Image.fromarray(np.indices((32, 32)).sum(0) % 2 == 0)
    assert stripes.mode == "1"
    pixels = decode(saved(stripes), "x", 8, 1)
    assert 100 < pixels.min() <= pixels.max() < 155


def test_transparency_is_white():
    assert (decode(saved(Image.new("RGBA", (8, 8), (0, 0, 0, 0))), "x", 8, 3) == 255).all()


def test_a_palette_with_transparency_is_white_there():
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert (decode(saved(image, transparency=b"\x00\xff"), "x", 8, 3) == 255).all()


def test_a_photograph_is_turned_as_its_orientation_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    image = Image.fromarray(COLOURS)
    content = saved(image, exif=exif.tobytes())
    np.testing.assert_array_equal(decode(content, "x", 8, 3).transpose(1, 2, 0), np.rot90(COLOURS, -1))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_image_is_an_error_that_names_it(picture, suffix):
    content = picture(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), suffix)
    with pytest.raises(UserError, match=r"^rose/1 is not a readable image"):
        decode(content[: len(content) // 2], "rose/1", 64, 3)


@pytest.mark.parametrize("content", [b"", b"hello", bytes(1000)])
def test_what_is_no_image_is_an_error(content):
    with pytest.raises(UserError, match="not a readable image"):
        decode(content, "x", 8, 3)


def test_every_damaged_image_is_either_read_or_a_user_error(picture):
    content, rng, refused = picture(COLOURS, "png"), np.random.default_rng(0), 0
    for _ in range(200):
        damaged = bytearray(content)
        for place in rng.integers(8, len(content), 3):
            damaged[place] = rng.integers(256)
        try:
            assert decode(bytes(damaged), "x", 8, 3).shape == (3, 8, 8)
        except UserError:
            refused += 1
    assert refused > 100


def test_sixteen_bits_are_refused(picture):
    with pytest.raises(UserError, match="expected 8 bits a channel"):
        decode(picture(np.full((8, 8), 40000, np.uint16)), "x", 8, 1)


def test_absurdly_many_pixels_are_refused(picture, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 63)
    with pytest.raises(UserError, match="8 x 8 pixels, at most 63"):
        decode(picture(), "x", 8, 1)


def test_an_image_bomb_is_refused_with_pillows_own_limit(picture, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UserError, match="not a readable image"):
        decode(picture(), "x", 8, 1)


@pytest.mark.parametrize("name", ["a/b.png", "a/b.JPEG", "b.jpg", "b.Tiff"])
def test_images_are_known_by_their_suffix(name):
    assert is_picture(name)


@pytest.mark.parametrize("name", ["a/readme.txt", "a/.b.png", "__MACOSX/a/b.png", ".git/b.png", "png", "a/b.png.part"])
def test_other_files_are_no_images(name):
    assert not is_picture(name)
