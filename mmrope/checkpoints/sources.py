"""From the name of a checkpoint (a path, a URL, ``hf-hub:`` or ``timm:``) to a local file.

All processes of a launcher may ask for the same file. The first one downloads it under a lock of the cache, and the
others find it there. No process waits for a message from another, so none hangs if one fails.
"""

import hashlib
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import torch
from filelock import FileLock
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm import tqdm

from .files import PART, sha256, write_whole

SCHEME = re.compile(r'(hf-hub|timm):|(https?)://|(\w[\w.+-]+)://')
HUB_NAME = re.compile(r'hf-hub:([\w.-]+/[\w.-]+)(?:@([^/]+))?(?:/(.+))?')
HUB_FILES = ('model.safetensors', 'pytorch_model.bin')
# OpenMMLab and PyTorch put the first digits of the SHA-256 into the file name: mask_rcnn-1aa05a0b.pth
HASH_IN_NAME = re.compile(r'-([0-9a-f]{8,64})\.\w+')
SILENCE = 60  # seconds without a byte after which a download has failed


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is the complete explanation."""


class SourceError(CheckpointError):
    """A checkpoint that cannot be found or downloaded under its name."""


def fetch(name: str | os.PathLike[str]) -> str:
    """Return the local path of a checkpoint; download it if it is not in the cache.

    Args:
        name: a path (``~`` is expanded), a URL, ``hf-hub:OWNER/NAME[@REVISION][/FILE]`` or ``timm:NAME``.

    Raises:
        FileNotFoundError: if a path names no file.
        SourceError: if the name is none of these or a folder, or the file cannot be downloaded completely.
    """
    name = os.fspath(name)
    scheme = SCHEME.match(name)
    if scheme is None:
        return _local_file(name)
    hub, url, other = scheme.groups()
    if other:
        raise SourceError(f'{name}: a checkpoint must be a path, a URL, hf-hub:OWNER/NAME or timm:NAME, not {other}://')
    if url:
        return _fetch_url(name)
    return _fetch_from_hub(name if hub == 'hf-hub' else _hub_name_of_timm(name))


def _local_file(name: str) -> str:
    path = os.path.expanduser(name)
    if os.path.isdir(path):
        raise SourceError(f'the checkpoint {path} is a folder; give a file in it')
    if not os.path.isfile(path):
        raise FileNotFoundError(f'the checkpoint {path} does not exist')
    return path


def _hub_name_of_timm(name: str) -> str:
    """Return the repository that timm loads the weights of a model from."""
    import timm  # takes a second, which other names should not pay for

    model = name.partition(':')[2]
    try:
        cfg = timm.get_pretrained_cfg(model)
    except RuntimeError:  # timm has the model, but not the tag
        cfg = None
    if cfg is None or not cfg.hf_hub_id:
        known = ', '.join(timm.list_pretrained(f'{model.partition(".")[0]}*')) or 'none'
        raise SourceError(f'{name}: timm {timm.__version__} has no weights of this name; similar names: {known}')
    return f'hf-hub:{cfg.hf_hub_id}'


def _fetch_from_hub(name: str) -> str:
    found = HUB_NAME.fullmatch(name)
    if found is None:
        raise SourceError(f'{name} must have the form hf-hub:OWNER/NAME[@REVISION][/FILE]')
    repo, revision, file = found[1], unquote(found[2] or constants.DEFAULT_REVISION), found[3]

    def is_cached(file: str) -> bool:
        return isinstance(try_to_load_from_cache(repo, file, revision=revision), str)

    # Try a cached file first: it needs no request for the other, and no wait for a Hub that does not answer.
    files = [file] if file else sorted(HUB_FILES, key=is_cached, reverse=True)
    for file in files:
        try:
            path = hf_hub_download(repo, file, revision=revision)
        except Exception as error:  # the client's transport errors share no public class
            unreachable = isinstance(error, LocalEntryNotFoundError) and not constants.HF_HUB_OFFLINE
            if file == files[-1] or unreachable or not isinstance(error, EntryNotFoundError):
                raise SourceError(f'{name}: {_reason(error, repo, revision, files)}') from error
        else:
            break
    return path


def _reason(error: Exception, repo: str, revision: str, files: list[str]) -> str:
    """Explain in one sentence why the Hub's client failed."""
    hub = constants.ENDPOINT
    if isinstance(error, GatedRepoError):
        return (
            f'{repo} is gated: accept its terms at {hub}/{repo}, and give a token of that account '
            "(HF_TOKEN, or 'hf auth login')"
        )
    if isinstance(error, RepositoryNotFoundError):
        return f'{hub} has no repository {repo}, or it is private or gated and needs a token (HF_TOKEN)'
    if isinstance(error, RevisionNotFoundError):
        return f'the repository has no revision {revision}'
    if isinstance(error, LocalEntryNotFoundError):
        why = 'HF_HUB_OFFLINE is set' if constants.HF_HUB_OFFLINE else f'the Hub cannot be reached at {hub}'
        return f'{why}, and the cache {constants.HF_HUB_CACHE} does not hold {" or ".join(files)}'
    if isinstance(error, EntryNotFoundError):
        return f'the repository has no {" or ".join(files)}'
    return f'the download failed and nothing was kept: {" ".join(str(error).split()) or type(error).__name__}'


def _fetch_url(url: str) -> str:
    """Download into a folder per URL below PyTorch's ``hub/checkpoints``, since many files share a name."""
    file = os.path.basename(urlsplit(url).path)
    if not file:
        raise SourceError(f'{url} names no file')
    path = Path(torch.hub.get_dir(), 'checkpoints', hashlib.sha256(url.encode()).hexdigest()[:16], file)
    if path.is_file():
        return str(path)
    lock = FileLock(f'{path}.lock')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError, NotImplementedError):  # on file systems without locks each process downloads
            lock.acquire()
        if lock.is_locked:
            for left in path.parent.glob(f'*{PART}'):  # from a download that was killed
                left.unlink()
        if not path.is_file():
            _download(url, path)
    except SourceError:
        raise
    except Exception as error:  # the errors of urlopen share no class
        text = ' '.join(str(error).split()) or type(error).__name__
        raise SourceError(f'{url}: the download failed and nothing was kept: {text}') from error
    finally:
        lock.release()
    return str(path)


def _download(url: str, path: Path) -> None:
    """Download a file; keep it only if it is complete and matches the hash in its name, if there is one.

    ``torch.hub.download_url_to_file`` mistakes a broken connection for the end of the file.
    """
    expected = HASH_IN_NAME.search(path.name)
    with write_whole(path) as part:
        with urlopen(Request(url, headers={'User-Agent': 'mmrope'}), timeout=SILENCE) as response:
            with part.open('wb') as file, tqdm.wrapattr(file, 'write', total=response.length, disable=None) as out:
                shutil.copyfileobj(response, out)
            if response.length:
                raise OSError(f'{response.length} bytes are missing')
        if expected is not None and not sha256(part).startswith(expected[1]):
            raise SourceError(f'{url}: the SHA-256 of the file differs from the hash in its name; nothing was kept')
