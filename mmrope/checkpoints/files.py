"""Files that are written whole or not at all, and their checksums."""

import errno
import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

PART = '.part'  # suffix of a file that is being written
CANNOT_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}  # from file systems that cannot flush, such as some of FUSE


@contextmanager
def write_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; its file replaces ``path`` once it is on the disk.

    If the body raises or the process is killed, ``path`` stays unchanged. A killed process leaves a file that ends in
    ``PART``.

    Args:
        path: path of the file; its folder is created if missing.

    Raises:
        OSError: if the file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.{uuid4().hex}{PART}')
    try:
        yield part
        try:
            _flush(part)
        except OSError as error:
            if error.errno not in CANNOT_FLUSH:
                raise
        os.replace(part, path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    with suppress(OSError):  # SMB, some of FUSE and of WSL's file systems flush no folders
        _flush(path.parent)


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def is_whole(path: str | os.PathLike[str]) -> bool:
    """Return whether a file by ``torch.save`` is complete, by its checksums; nothing is unpickled."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, ValueError, RuntimeError, zlib.error):
        return False


def _flush(path: Path) -> None:
    """Flush a file, or the list of files in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
