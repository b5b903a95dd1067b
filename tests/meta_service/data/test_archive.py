import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from meta_service.data import archive
from meta_service.errors import UserError

FILES = {"train/rose/1.png": b"one", "train/rose/2.png": b"two", "test/lily/1.png": os.urandom(5000)}


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return path


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as made:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return path


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


WRITERS = {"a.zip": write_zip, "a.tar.gz": write_tar, "a.tgz": write_tar, "a.tar": write_tar, "a": write_folder}
ARCHIVES = ["a.zip", "a.tar.gz", "a.tar"]


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", WRITERS)
def test_every_form_gives_the_same_files(tmp_path, name):
    path = WRITERS[name](tmp_path / name, FILES)
    assert dict(archive.files(path, lambda name: True)) == FILES
    assert sorted(archive.names(path)) == sorted(FILES)


@pytest.mark.parametrize("name", WRITERS)
def test_only_wanted_files_are_read(tmp_path, name):
    path = WRITERS[name](tmp_path / name, FILES)
    read = dict(archive.files(path, lambda name: name.endswith("2.png")))
    assert read == {name: b"two" if name.endswith("2.png") else b"" for name in FILES}


def test_a_folder_gives_its_names_sorted(tmp_path):
    assert archive.names(write_folder(tmp_path / "a", FILES)) == sorted(FILES)


def test_links_in_a_folder_are_followed(tmp_path):
    write_folder(tmp_path / "elsewhere", {"1.png": b"one"})
    (tmp_path / "a" / "train").mkdir(parents=True)
    (tmp_path / "a" / "train" / "rose").symlink_to(tmp_path / "elsewhere")
    assert dict(archive.files(tmp_path / "a", lambda name: True)) == {"train/rose/1.png": b"one"}


def test_a_folder_that_contains_itself_ends(tmp_path):
    write_folder(tmp_path / "a", FILES)
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    assert archive.names(tmp_path / "a") == sorted(FILES)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_truncated_archive_is_one_error_that_names_it(tmp_path, name, share):
    path = WRITERS[name](tmp_path / name, FILES)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError) as error:
        list(archive.files(path, lambda name: True))
    assert str(path) in one_line(error)
    assert "fetch it again" in one_line(error)


def test_an_uncompressed_tar_cut_off_in_a_file_is_refused(tmp_path):
    path = write_tar(tmp_path / "a.tar", FILES)
    path.write_bytes(path.read_bytes()[: 512 * 6])
    with pytest.raises(UserError, match="cannot be read"):
        list(archive.files(path, lambda name: True))


@pytest.mark.parametrize("name", ARCHIVES)
def test_what_is_no_archive_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"<html>please log in</html>" * 100)
    with pytest.raises(UserError, match="cannot be read"):
        archive.names(tmp_path / name)


def test_a_zip_with_a_flipped_bit_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", FILES)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="cannot be read"):
        list(archive.files(path, lambda name: True))


def test_a_missing_archive_is_one_error(tmp_path):
    with pytest.raises(UserError, match=r"a\.zip cannot be read \(.*No such file"):
        archive.names(tmp_path / "a.zip")


@pytest.mark.parametrize("outside", ["../x.png", "train/../../x.png", "/etc/x.png", "..\\x.png"])
@pytest.mark.parametrize("name", ARCHIVES)
def test_a_path_that_leads_outside_is_refused(tmp_path, name, outside):
    path = WRITERS[name](tmp_path / name, {**FILES, outside: b"x"})
    with pytest.raises(UserError, match="leads outside"):
        archive.names(path)


def test_a_name_with_a_line_break_stays_one_line(tmp_path):
    with pytest.raises(UserError) as error:
        archive.names(write_tar(tmp_path / "a.tar", {"../a\nb": b"x"}))
    assert "a\\nb" in one_line(error)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_tar_member_that_is_no_plain_file_is_refused(tmp_path, kind):
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as made:
        member = tarfile.TarInfo("train/rose/1.png")
        member.type, member.linkname = kind, "/etc/passwd"
        made.addfile(member)
    with pytest.raises(UserError, match="not a plain file"):
        archive.names(path)


def test_a_link_in_a_zip_is_refused(tmp_path):
    link = zipfile.ZipInfo("train/rose/1.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="not a plain file"):
        archive.names(tmp_path / "a.zip")


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_tar_that_announces_a_terabyte_is_refused_before_it_is_read(tmp_path, kind):
    member = tarfile.TarInfo("train/rose/1.png")
    member.type, member.size = kind, 2**40
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(UserError, match="1,099,511,62"):
        archive.names(tmp_path / "a.tar")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_what_unpacks_to_many_times_its_size_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr(archive, "MAX_FILE", 2**20)
    path = WRITERS[name](tmp_path / name, {f"train/rose/{i}.png": bytes(2**20) for i in range(8)})
    with pytest.raises(UserError, match="100 times its size"):
        archive.names(path)


def test_an_encrypted_zip_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": b"one"})
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flag in the file's header, then in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="encrypted"):
        list(archive.files(path, lambda name: True))


@pytest.mark.parametrize("name", WRITERS)
def test_reading_writes_nothing(tmp_path, name):
    path = WRITERS[name](tmp_path / name, FILES)
    before = sorted(tmp_path.rglob("*"))
    list(archive.files(path, lambda name: True))
    assert sorted(tmp_path.rglob("*")) == before
