"""Every name of a checkpoint leads to a whole file, through huggingface_hub's own client, or to one sentence."""

import errno
import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from filelock import FileLock
from huggingface_hub import constants
from mmengine.runner import CheckpointLoader
from safetensors.torch import save

from mmrope.checkpoints.files import PART
from mmrope.checkpoints.loading import load_checkpoint, refuse_code_in_checkpoints
from mmrope.checkpoints.sources import SourceError, fetch
from tests.helpers.hub import COMMIT, Hub

REPO = 'naver-ai/rope_mixed_deit_small_patch16_LS'
NAME = f'hf-hub:{REPO}'


def content(value: float = 1.0) -> bytes:
    file = io.BytesIO()
    torch.save({'model': {'weight': torch.full((1000,), value)}}, file)
    return file.getvalue()


def value_of(name: str) -> float:
    return load_checkpoint(name)['model']['weight'][0].item()


def kept_files(folder: Path) -> list[str]:
    """Everything in a cache that a later call could take for weights, or for a part of some."""
    kinds = ('.bin', '.pth', '.safetensors', '.incomplete', PART)
    paths = [path for path in folder.rglob('*') if '.no_exist' not in path.parts]
    return [path.name for path in paths if path.name.endswith(kinds) or path.parent.name == 'blobs']


def test_the_authors_file_is_downloaded_once(hub: Hub) -> None:
    hub.files[REPO, 'pytorch_model.bin'] = content(3)
    assert value_of(NAME) == 3
    assert hub.downloads() == 1
    assert value_of(NAME) == 3
    assert hub.downloads() == 1


def test_safetensors_come_first(hub: Hub) -> None:
    hub.files[REPO, 'pytorch_model.bin'] = content(3)
    hub.files[REPO, 'model.safetensors'] = save({'weight': torch.ones(2)})
    assert list(load_checkpoint(NAME)) == ['weight']


@pytest.mark.parametrize(
    'end, path',
    [('@v1.0', 'v1.0/pytorch_model.bin'), ('/a/b.pth', 'main/a/b.pth'), (f'@{COMMIT}/a/b.pth', f'{COMMIT}/a/b.pth')],
)
def test_revision_and_file_can_be_named(hub: Hub, end: str, path: str) -> None:
    hub.files[REPO, 'pytorch_model.bin'] = hub.files[REPO, 'a/b.pth'] = content(4)
    assert value_of(NAME + end) == 4
    assert ('HEAD', f'/{REPO}/resolve/{path}') in hub.requests


@pytest.mark.parametrize('how', ['offline mode', 'the Hub is down'])
def test_cached_files_load_without_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    hub.files[REPO, 'pytorch_model.bin'] = content(5)
    value_of(NAME)
    hub.requests.clear()
    if how == 'offline mode':
        monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    else:
        monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', 'http://127.0.0.1:9/{repo_id}/{revision}')
    assert value_of(NAME) == 5
    assert hub.requests == []


def test_offline_without_the_file_is_one_sentence(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(SourceError, match=f'{NAME}.*HF_HUB_OFFLINE') as error:
        fetch(NAME)
    text = str(error.value)
    assert all(word in text for word in [str(tmp_path / 'hub'), 'model.safetensors', 'pytorch_model.bin'])
    assert '\n' not in text


def test_a_token_opens_a_private_repository(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files[REPO, 'pytorch_model.bin'] = content(6)
    hub.private.add(REPO)
    with pytest.raises(SourceError, match=f'{REPO}.*HF_TOKEN'):
        fetch(NAME)
    monkeypatch.setenv('HF_TOKEN', 'hf_secret')
    assert value_of(NAME) == 6


@pytest.mark.parametrize('token', ['', 'hf_of_another_account'])
def test_a_gated_repository_says_what_to_do(hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    """It answers 401 without a token, and 403 to one whose account has not accepted its terms."""
    hub.files[REPO, 'pytorch_model.bin'] = content(6)
    hub.gated.add(REPO)
    monkeypatch.setenv('HF_TOKEN', token)
    with pytest.raises(SourceError, match=f'{REPO} is gated: accept its terms at {hub.url}/{REPO}, .*HF_TOKEN'):
        fetch(NAME)
    monkeypatch.setenv('HF_TOKEN', 'hf_secret')
    assert value_of(NAME) == 6


@pytest.mark.parametrize(
    'name, words',
    [
        ('hf-hub:naver-ai/nothing', 'naver-ai/nothing.*HF_TOKEN'),
        (f'{NAME}@v2', r'@v2\W.*revision.*\bv2\b'),
        (f'{NAME}/weights.pth', r'/weights\.pth\W.*repository.*\bweights\.pth'),
        ('hf-hub:naver-ai/empty', r'repository.*\bmodel\.safetensors\b.*\bpytorch_model\.bin'),
        ('hf-hub:naver ai/it', 'naver ai.*hf-hub:OWNER/NAME'),
        ('hf-hub:nothing', 'hf-hub:nothing.*hf-hub:OWNER/NAME.*@REVISION.*/FILE'),
        ('timm:vit_base_patch16_rope_mixed_224.nobody', r'nobody\W.*\bvit_base_patch16_rope_mixed_224\.naver_in1k'),
        ('timm:vit_rope', f'timm:vit_rope.*timm.*{timm.__version__}'),
        ('torchvision://resnet50', 'torchvision://.*hf-hub:OWNER/NAME.*timm:NAME'),
    ],
)
def test_missing_sources_are_named(hub: Hub, name: str, words: str) -> None:
    hub.files[REPO, 'pytorch_model.bin'] = hub.files['naver-ai/empty', 'README.md'] = content()
    with pytest.raises(SourceError, match=words) as error:
        fetch(name)
    assert str(error.value).startswith(name) and '\n' not in str(error.value)


def test_a_download_that_breaks_off_leaves_nothing(hub: Hub, tmp_path: Path) -> None:
    hub.files[REPO, 'pytorch_model.bin'] = content(7)
    hub.cut.add('pytorch_model.bin')
    with pytest.raises(SourceError, match=f'{NAME}.*download.*size') as error:
        fetch(NAME)
    assert '\n' not in str(error.value)
    assert kept_files(tmp_path / 'hub') == []
    hub.cut.clear()
    assert value_of(NAME) == 7


def test_a_timm_name_leads_to_the_repository_that_timm_takes(hub: Hub) -> None:
    model = 'vit_base_patch16_rope_mixed_224.naver_in1k'
    hub.files[f'timm/{model}', 'model.safetensors'] = save({'weight': torch.ones(2)})
    assert timm.get_pretrained_cfg(model).hf_hub_id == f'timm/{model}'
    assert list(load_checkpoint(f'timm:{model}')) == ['weight']
    assert list(load_checkpoint('timm:vit_base_patch16_rope_mixed_224')) == ['weight']  # its default tag


def test_a_url_is_downloaded_once_and_not_mixed_up_with_another(hub: Hub) -> None:
    """Half of all files on the Web are called pytorch_model.bin."""
    for i in range(2):
        hub.files['', f'/{i}/pytorch_model.bin'] = content(i)
    for i in (0, 1, 0):
        assert value_of(f'{hub.url}/{i}/pytorch_model.bin') == i
    assert hub.downloads() == 2


@pytest.mark.parametrize(
    'problem, words',
    [('404', '404'), ('cut', r'\d+ bytes'), ('hash', 'SHA-256'), ('no server', 'refused')],
)
def test_a_url_that_fails_leaves_nothing(hub: Hub, tmp_path: Path, problem: str, words: str) -> None:
    digest = hashlib.sha256(content(1)).hexdigest()[:8]
    name = f'/model-{digest}.pth' if problem == 'hash' else '/model.pth'
    url = hub.url + name
    if problem != '404':
        hub.files['', name] = content(2 if problem == 'hash' else 1)
    if problem == 'cut':
        hub.cut.add(name)
    if problem == 'no server':
        url = f'http://127.0.0.1:9{name}'
    with pytest.raises(SourceError, match=words) as error:
        fetch(url)
    assert str(error.value).startswith(url) and '\n' not in str(error.value)
    assert kept_files(tmp_path / 'torch') == []
    hub.files['', name] = content(1)
    hub.cut.clear()
    if problem != 'no server':
        assert value_of(url) == 1


def test_the_next_download_removes_the_rest_of_a_killed_one(hub: Hub, tmp_path: Path) -> None:
    hub.files['', '/model.pth'] = content(1)
    path = Path(fetch(f'{hub.url}/model.pth'))
    path.rename(path.with_name(f'{path.name}.1{PART}'))
    assert value_of(f'{hub.url}/model.pth') == 1
    assert kept_files(tmp_path / 'torch') == ['model.pth']


def test_processes_that_start_together_download_once(hub: Hub, tmp_path: Path) -> None:
    hub.files[REPO, 'pytorch_model.bin'] = content(1) + bytes(1 << 24)
    hub.files['', '/model.pth'] = content(1) + bytes(1 << 24)
    code = 'import sys; from mmrope.checkpoints.sources import fetch; [print(fetch(name)) for name in sys.argv[1:]]'
    env = {**os.environ, 'HF_ENDPOINT': hub.url, 'HF_HUB_CACHE': str(tmp_path / 'hub'), 'TORCH_HOME': str(tmp_path)}
    env['PYTHONPATH'] = os.pathsep.join(sys.path)
    command = [sys.executable, '-c', code, NAME, f'{hub.url}/model.pth']
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    processes = [subprocess.Popen(command, env=env, **pipes) for _ in range(2)]
    results = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert len({out for out, _ in results}) == 1
    assert hub.downloads() == 2


def test_mmengine_loads_by_the_same_names(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that ``load_from`` and tools/test.py take them."""
    monkeypatch.setattr(CheckpointLoader, '_schemes', CheckpointLoader._schemes)
    for name in ('TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'):
        monkeypatch.setenv(name, '0')
    hub.files[REPO, 'pytorch_model.bin'] = content(2)
    refuse_code_in_checkpoints()
    assert CheckpointLoader.load_checkpoint(NAME)['model']['weight'][0] == 2


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'a.pth').write_bytes(content(2))
    assert value_of('~/a.pth') == 2
    assert fetch(tmp_path / 'a.pth') == str(tmp_path / 'a.pth')
    with pytest.raises(FileNotFoundError, match=rf'{tmp_path}/b\.pth'):
        fetch('~/b.pth')


@pytest.mark.parametrize('error', [OSError(errno.ENOLCK, 'No locks'), NotImplementedError('use SoftFileLock instead')])
def test_a_file_system_without_locks_gets_a_file_all_the_same(
    error: Exception, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(lock: FileLock) -> None:
        raise error

    monkeypatch.setattr(FileLock, '_acquire', refuse)
    hub.files['', '/model.pth'] = content(1)
    assert value_of(f'{hub.url}/model.pth') == 1
    assert kept_files(tmp_path / 'torch') == ['model.pth']


def test_a_cache_that_may_not_be_written_is_read(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster may have such a cache, which others have filled."""
    hub.files['', '/model.pth'] = content(1)
    fetch(f'{hub.url}/model.pth')
    monkeypatch.setattr(FileLock, '_acquire', lambda lock: pytest.fail('it was written'))
    assert value_of(f'{hub.url}/model.pth') == 1


def test_a_cache_that_cannot_be_written_is_one_sentence(hub: Hub, tmp_path: Path) -> None:
    hub.files['', '/model.pth'] = content(1)
    (tmp_path / 'torch').touch()
    with pytest.raises(SourceError, match=f"{hub.url}/model.pth: .*'{tmp_path}/torch"):
        fetch(f'{hub.url}/model.pth')
