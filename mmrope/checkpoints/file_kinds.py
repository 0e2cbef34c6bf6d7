"""Identification of files that were expected to be checkpoints, by their first bytes."""

import os
import re
import zipfile

HEAD = 1024  # bytes that tell the kinds apart
BEGINNINGS = (
    (b'version https://git-lfs', 'a Git LFS pointer: run git lfs pull to fetch the file'),
    (b'\x89HDF\r\n\x1a\n', 'an HDF5 file, as Keras writes'),
    (b'\x93NUMPY', 'a NumPy array (.npy)'),
    (b'\x89PNG', 'a PNG image'),
    (b'\xff\xd8\xff', 'a JPEG image'),
    (b'\x1f\x8b', 'compressed with gzip: unpack it first'),
    (b'BZh', 'compressed with bzip2: unpack it first'),
    (b'\xfd7zXZ', 'compressed with xz: unpack it first'),
    (b'\x28\xb5\x2f\xfd', 'compressed with zstd: unpack it first'),
    (b'7z\xbc\xaf', 'a 7z archive: unpack it first'),
)
MARKUP = re.compile(rb'\s*<(!doctype|html|head|body|\?xml|!--)', re.IGNORECASE)
# An ONNX model begins with the version of the format and the name of the program that wrote it.
ONNX = re.compile(rb'\x08[\x01-\x1f]\x12[\x01-\x40][\w.-]+')
TEXT = re.compile(r'[^\x00-\x08\x0e-\x1f\x7f\ufffd]+')


def is_safetensors(path: str) -> bool:
    """Return whether a file begins like safetensors: with the length of a header, and the header in JSON."""
    head = read_head(path)
    return head[8:9] == b'{' and int.from_bytes(head[:8], 'little') <= os.path.getsize(path)


def kind_of(path: str) -> str | None:
    """Describe a file that no weights could be read from; ``None`` if its kind is unknown."""
    head = read_head(path)
    if not head:
        return 'empty'
    if not any(head):
        return 'full of zeros, as after a power cut'
    if head.startswith(b'PK\x03\x04'):
        return _kind_of_zip(path)
    if head.startswith(b'\x80'):
        return _kind_of_pickle(head)
    if head[257:262] == b'ustar':
        return 'a tar archive: unpack it first'
    known = next((kind for beginning, kind in BEGINNINGS if head.startswith(beginning)), None)
    if known is not None:
        return known
    if MARKUP.match(head):
        return 'an HTML or XML page, which a server sent instead of a file'
    if ONNX.match(head):
        return 'an ONNX model'
    return _kind_of_text(head)


def read_head(path: str) -> bytes:
    """Read the first bytes of a file."""
    with open(path, 'rb') as file:
        return file.read(HEAD)


def _kind_of_zip(path: str) -> str | None:
    """Describe a zip archive by its contents; one without its end, where they are listed, is cut short."""
    if not zipfile.is_zipfile(path):
        return 'cut short: copy or download it again'
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.endswith('/data.pkl')]
        head = archive.read(pickles[0])[:2] if pickles else b''
    if any(name.endswith('/constants.pkl') for name in names):
        return 'a TorchScript program'
    if any(name.endswith('.npy') for name in names):
        return 'an archive of NumPy arrays (.npz)'
    if pickles:
        return _kind_of_pickle(head)
    return f'a zip archive of {names[0] if names else "nothing"}, which torch.save did not write'


def _kind_of_pickle(head: bytes) -> str | None:
    return f'a pickle of protocol {head[1]}; only protocol 2 is supported' if head[1:2] > b'\x02' else None


def _kind_of_text(head: bytes) -> str | None:
    text = head.decode('utf-8', 'ignore' if len(head) == HEAD else 'replace')
    if not TEXT.fullmatch(text):
        return None
    first = next((line.strip() for line in text.splitlines() if line.strip()), '')
    return f'text that begins with {first[:40]!r}' if first else 'blank'
