"""Files that are on the disk as a whole or not at all, and their checksums."""

import errno
import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

PART = '.part'  # ends the name of a file that is being written
CANNOT_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}  # what file systems answer that cannot flush: some of FUSE


@contextmanager
def write_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; what is written there becomes ``path`` once it is on the disk.

    When the body raises, or the process is killed, ``path`` stays as it was. A kill leaves a file that ends in
    ``PART``.

    Args:
        path: of the file; its folder is made if it is not there.

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
    """Return the SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def is_whole(path: str | os.PathLike[str]) -> bool:
    """Say whether a file that ``torch.save`` wrote is all there, by the checksums in it; nothing is unpickled."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, ValueError, RuntimeError, zlib.error):
        return False


def _flush(path: Path) -> None:
    """Put a file, or the names of the files in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
