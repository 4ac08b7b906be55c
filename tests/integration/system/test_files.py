"""Private files: whole, durable, and refused when others could read them."""

import errno
import os
import socket
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.kernel.errors import (
    BadRequestError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    StorageFullError,
)
from shared.system import files, processes, secrets
from tests.support.store_disk import may_mount, mounted


@given(st.binary(max_size=2_000))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    path = tmp_path_factory.mktemp("f") / "secret"
    files.write_private(path, data)
    assert files.read_private(path, limit=2_000) == data
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_never_overwritten_unless_asked(tmp_path: Path):
    path = tmp_path / "secret"
    files.write_private(path, b"one")
    with pytest.raises(ConflictError):
        files.write_private(path, b"two")
    assert path.read_bytes() == b"one"
    files.write_private(path, b"two", replace=True)
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not may_mount(), reason="no file system may be mounted here")
def test_a_full_disk_says_so_and_leaves_what_was_there(tmp_path: Path):
    with mounted(tmp_path / "disk", 256 * 1024) as disk:
        path = disk.folder / "state"
        files.write_private(path, b"one")
        foreign = disk.fill("foreign", leave=0)
        for name in ("state", "other"):
            with pytest.raises(StorageFullError) as refused:
                files.write_private(disk.folder / name, b"two", replace=name == "state")
            assert str(disk.folder) in refused.value.remedy
        assert path.read_bytes() == b"one"
        assert set(disk.folder.iterdir()) == {path, foreign}
        foreign.unlink()
        files.write_private(path, b"two", replace=True)
        assert path.read_bytes() == b"two"


@pytest.mark.parametrize(
    ("code", "error"), [(errno.EDQUOT, StorageFullError), (errno.EIO, OSError)]
)
def test_a_spent_quota_is_a_full_disk_and_a_failing_disk_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[Exception]
):
    def fail(_descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(error):
        files.write_private(tmp_path / "state", b"one")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602])
def test_open_files_are_refused(tmp_path: Path, mode: int):
    path = tmp_path / "secret"
    files.write_private(path, b"x")
    path.chmod(mode)
    with pytest.raises(ForbiddenError) as refusal:
        files.read_private(path, limit=10)
    assert "chmod 600" in refusal.value.remedy


def test_what_is_no_such_file(tmp_path: Path):
    with pytest.raises(NotFoundError):
        files.read_private(tmp_path / "missing", limit=10)
    with pytest.raises(ForbiddenError):
        files.read_private(tmp_path, limit=10)
    files.write_private(tmp_path / "long", b"x" * 11)
    with pytest.raises(BadRequestError):
        files.read_private(tmp_path / "long", limit=10)


def test_policy_files_may_be_read_but_not_written_by_others(tmp_path: Path):
    path = tmp_path / "hsmd.toml"
    path.write_text("")
    path.chmod(0o644)
    files.require_trusted(path)
    path.chmod(0o664)
    with pytest.raises(ForbiddenError, match="other users can change"):
        files.require_trusted(path)


def test_directories(tmp_path: Path):
    directory = files.private_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    directory.chmod(0o750)
    with pytest.raises(ForbiddenError):
        files.private_directory(directory)


def test_secret_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files.write_private(tmp_path / "pin", b"1234\n")
    assert secrets.read_secret(f"file:{tmp_path}/pin") == b"1234\n"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert secrets.read_secret("credential:pin") == b"1234\n"
    for missing in ("credential:other", f"file:{tmp_path}/other"):
        with pytest.raises(NotFoundError):
            secrets.read_secret(missing)
    for wrong in ("1234", "file:pin", "credential:../pin", "|cat pin", "env:PIN", ""):
        with pytest.raises(BadRequestError):
            secrets.read_secret(wrong)


def test_one_process_holds_a_lock(tmp_path: Path):
    held = processes.hold_lock(tmp_path / "lock")
    with pytest.raises(ConflictError):
        processes.hold_lock(tmp_path / "lock")
    os.close(held)
    os.close(processes.hold_lock(tmp_path / "lock"))


@pytest.mark.parametrize("depth", [0, 3])
def test_private_socket_replaces_a_dead_one(tmp_path: Path, depth: int):
    """Also where the path is longer than the 107 bytes that the kernel takes (unix(7))."""
    path = tmp_path.joinpath(*["deep" * 12] * depth, "s")
    path.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(2):
        with processes.listen_private(path, owner_uid=os.geteuid()) as listener:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            with socket.socket(socket.AF_UNIX) as client, processes.address_of(path) as address:
                client.connect(address)
                connection, _ = listener.accept()
                with connection:
                    assert processes.peer_uid(connection) == os.geteuid()
