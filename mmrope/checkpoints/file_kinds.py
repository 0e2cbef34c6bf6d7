"""The kind of a file that was expected to be a checkpoint, by its first bytes."""

import os
import re
import zipfile

HEAD = 1024  # bytes that tell the kinds apart
BEGINNINGS = (
    (b'version https://git-lfs', 'a pointer of Git LFS: git lfs pull fetches the file itself'),
    (b'\x89HDF\r\n\x1a\n', 'an HDF5 file, as Keras writes it'),
    (b'\x93NUMPY', 'an array of NumPy (.npy)'),
    (b'\x89PNG', 'a PNG image'),
    (b'\xff\xd8\xff', 'a JPEG image'),
    (b'\x1f\x8b', 'compressed by gzip: unpack it first'),
    (b'BZh', 'compressed by bzip2: unpack it first'),
    (b'\xfd7zXZ', 'compressed by xz: unpack it first'),
    (b'\x28\xb5\x2f\xfd', 'compressed by zstd: unpack it first'),
    (b'7z\xbc\xaf', 'a 7z archive: unpack it first'),
)
MARKUP = re.compile(rb'\s*<(!doctype|html|head|body|\?xml|!--)', re.IGNORECASE)
# A model in ONNX begins with the version of the format and the name of the program that wrote it.
ONNX = re.compile(rb'\x08[\x01-\x1f]\x12[\x01-\x40][\w.-]+')
TEXT = re.compile(r'[^\x00-\x08\x0e-\x1f\x7f\ufffd]+')


def is_safetensors(path: str) -> bool:
    """Say whether a file begins as safetensors do: with the length of a header, and the header, which is JSON."""
    head = read_head(path)
    return head[8:9] == b'{' and int.from_bytes(head[:8], 'little') <= os.path.getsize(path)


def kind_of(path: str) -> str | None:
    """Say what a file is that no weights could be read from; ``None`` if that is not to be seen."""
    head = read_head(path)
    if not head:
        return 'empty'
    if not any(head):
        return 'full of zeros, as a power cut leaves it'
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
        return 'an HTML or XML page, as a server sends it in place of a file'
    if ONNX.match(head):
        return 'a model in ONNX'
    return _kind_of_text(head)


def read_head(path: str) -> bytes:
    """Read how a file begins."""
    with open(path, 'rb') as file:
        return file.read(HEAD)


def _kind_of_zip(path: str) -> str | None:
    """Tell what a zip archive holds, or that it has lost its end, where the list of its parts is."""
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
    return f'a zip archive that torch.save did not write, with {names[0] if names else "nothing"} in it'


def _kind_of_pickle(head: bytes) -> str | None:
    return f'a pickle of protocol {head[1]}, and only protocol 2 is read' if head[1:2] > b'\x02' else None


def _kind_of_text(head: bytes) -> str | None:
    text = head.decode('utf-8', 'ignore' if len(head) == HEAD else 'replace')
    if not TEXT.fullmatch(text):
        return None
    first = next((line.strip() for line in text.splitlines() if line.strip()), '')
    return f'text that begins with {first[:40]!r}' if first else 'blank'
