"""Time and memory of backbones, side by side."""

import gc
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn

from ..registry import MODELS
from .hosts import leave_out_multimodal_models, scope_of
from .models import read_config

MODES = ('inference', 'training')
DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16)
WARM_UP = 1  # rounds that are not counted
HOSTS = ('mmdet', 'mmsegmentation', 'mmpretrain', 'onedl-mmdetection', 'onedl-mmsegmentation', 'onedl-mmpretrain')
PACKAGES = ('mmrope', 'torch', 'timm', *HOSTS)


@dataclass(frozen=True)
class Setting:
    """What is measured besides the candidate.

    Args:
        size: of the images in pixels, ``(H, W)``.
        batch: images at a time.
        mode: ``'inference'``, a forward without gradients, or ``'training'``, a forward and a backward.
        device: of the model, as torch names it.
        dtype: ``'float32'``, or a half precision to autocast to.
        threads: on the CPU; ``None`` for torch's choice.
    """

    size: tuple[int, int]
    batch: int = 1
    mode: str = 'inference'
    device: str = 'cpu'
    dtype: str = 'float32'
    threads: int | None = None


@dataclass
class Measurement:
    """What was measured of one candidate in one setting.

    Args:
        candidate: its name.
        setting: what was measured.
        times: seconds of each round.
        memory: bytes at the peak above those of the model at rest, or ``None`` where not measured.
        parameters: how many the candidate has.
    """

    candidate: str
    setting: Setting
    times: list[float] = field(default_factory=list)
    memory: int | None = None
    parameters: int = 0

    @property
    def median(self) -> float:
        """Seconds of a round, the median."""
        return statistics.median(self.times)

    @property
    def spread(self) -> float:
        """From the fastest to the slowest round, as a share of the median."""
        return (max(self.times) - min(self.times)) / self.median

    @property
    def throughput(self) -> float:
        """Images a second."""
        return self.setting.batch / self.median

    def as_dict(self) -> dict:
        """For JSON."""
        return dict(asdict(self), median=self.median, spread=self.spread, throughput=self.throughput)


def build_candidate(cfg: dict, setting: Setting) -> nn.Module:
    """Build a backbone for a setting; weights stay random.

    Args:
        cfg: of a backbone that a registry of OpenMMLab's knows, ``dict(type='mmdet.SwinTransformer')``, or with
            ``_scope_`` for the registry; with ``compile=True`` for one that ``torch.compile`` compiles.
        setting: mode and device are taken from it.

    Raises:
        KeyError: if no registry knows the type.
        ImportError: if its package is not there.
    """
    kind = cfg['type']
    scope = kind.partition('.')[0] if isinstance(kind, str) and '.' in kind else 'mmrope'
    settings = {'_scope_': scope} | {key: value for key, value in cfg.items() if key not in ('init_cfg', 'compile')}
    model = revert_sync_batchnorm(MODELS.build(settings))
    model.train(setting.mode == 'training')
    model = model.to(setting.device)
    return torch.compile(model, dynamic=False) if cfg.get('compile') else model


def compare(
    candidates: dict[str, dict],
    setting: Setting,
    rounds: int = 5,
    memory: bool = True,
    progress: Callable[[str], None] = lambda text: None,
    skipping: Callable[[str], AbstractContextManager] = nullcontext,
) -> list[Measurement]:
    """Measure candidates in turns: a round runs each of them once, so that a noisy machine disturbs all alike.

    Every second round goes through them backwards.

    Args:
        candidates: configs of backbones by name.
        setting: the same for all.
        rounds: how often each is timed, after one warm-up, in which a compiled one is compiled.
        memory: whether to measure the peak memory too. On the CPU each candidate gets a process of its own for that.
        progress: is told what comes next.
        skipping: gives, for the name of a candidate, the context that it is built and run in; one that takes an error
            in, as :meth:`Skips.skipping <mmrope.commands.skipping.Skips.skipping>` does, leaves the candidate out.

    Returns:
        One measurement for each candidate that was built and ran, in order.
    """
    images = torch.randn(setting.batch, 3, *setting.size, device=setting.device)
    models: dict[str, nn.Module] = {}
    done = {name: Measurement(name, setting) for name in candidates}
    with _threads(setting.threads):
        torch.compiler.reset()  # what earlier settings compiled counts towards a limit
        for name, cfg in candidates.items():
            with skipping(name):
                if memory and not (cfg.get('compile') and setting.device == 'cpu'):  # the compiler's would count
                    progress(f'{name}: memory')
                    done[name].memory = peak_memory(cfg, setting)
                models[name] = build_candidate(cfg, setting)
                done[name].parameters = sum(param.numel() for param in models[name].parameters())
        for number in range(WARM_UP + rounds):
            turns = list(models.items())
            for name, model in turns if number % 2 else reversed(turns):
                progress(f'{name}: round {number} of {rounds}')
                seconds = None
                with skipping(name):
                    seconds = time_step(model, images, setting)
                if seconds is None:
                    del models[name]
                elif number >= WARM_UP:
                    done[name].times.append(seconds)
    return [done[name] for name in candidates if name in models]


def time_step(model: nn.Module, images: Tensor, setting: Setting) -> float:
    """Seconds of one forward, and backward in training."""
    _synchronize(setting)
    start = time.perf_counter()
    step(model, images, setting)
    _synchronize(setting)
    seconds = time.perf_counter() - start
    model.zero_grad(set_to_none=True)
    return seconds


def step(model: nn.Module, images: Tensor, setting: Setting) -> None:
    """Run one forward, and backward in training, without waiting for a GPU."""
    training = setting.mode == 'training'
    half = setting.dtype != 'float32'
    device = torch.device(setting.device).type
    with torch.autocast(device, DTYPES[setting.dtype], enabled=half), torch.set_grad_enabled(training):
        out = model(images)
        outs = [out] if isinstance(out, Tensor) else list(out)
    if training:
        sum(out.float().mean() for out in outs).backward()


def peak_memory(cfg: dict, setting: Setting) -> int:
    """Bytes that one step needs at its peak above those of the model at rest.

    On CUDA these are the allocator's. On the CPU they are the resident memory of a fresh process.
    """
    if setting.device != 'cpu':
        return _peak_on_device(cfg, setting)
    # What an earlier candidate has freed would otherwise serve this one, and not count.
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        return pool.apply(_peak_on_cpu, (cfg, setting, list(sys.path), torch.get_num_threads(), list(_imported)))


def environment(device: str, threads: int | None = None) -> dict[str, str | int]:
    """What the figures depend on besides the setting; ``threads`` as in it."""
    packages = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    cuda = device != 'cpu'
    return dict(
        device=torch.cuda.get_device_name(device) if cuda else _cpu_name(),
        threads=threads or torch.get_num_threads(),
        python=platform.python_version(),
        **packages,
    )


_imported: list[str] = []  # what the processes that measure memory import too


def import_modules(names: str | Sequence[str]) -> None:
    """Import modules that register candidates, here and in the processes that measure memory.

    Raises:
        ImportError: if one cannot be imported.
    """
    leave_out_multimodal_models()
    for name in [names] if isinstance(names, str) else names:
        import_module(name)
        _imported.append(name)


def load_backbone(path: str) -> dict:
    """The backbone of a model's config file, with the ``_scope_`` of the library that the config is for.

    Raises:
        CommandError: if there is no such config.
        ValueError: if the config has none.
    """
    cfg = read_config(path)
    import_modules(cfg.get('custom_imports', {}).get('imports', ()))
    model = cfg.get('model', cfg)
    for _ in range(2):  # a wrapper, such as mmdet's batch fixer, holds the model
        if 'backbone' in model:
            backbone = _plain(model['backbone'])
            named = isinstance(backbone.get('type'), str) and '.' in backbone['type']
            scope = None if named else scope_of(cfg)
            return ({'_scope_': scope} if scope else {}) | backbone
        model = model.get('model', {})
    raise ValueError(f'a config must have model.backbone, but got {path}')


def _plain(node: Any) -> Any:
    """Make dicts and lists of a part of a config; classes stay, which ``Config.to_dict`` makes texts of."""
    if isinstance(node, Mapping):
        return {key: _plain(value) for key, value in node.items()}
    return type(node)(map(_plain, node)) if isinstance(node, (list, tuple)) else node


def _peak_on_cpu(cfg: dict, setting: Setting, path: list[str], threads: int, modules: list[str]) -> int:
    sys.path[:] = path
    torch.set_num_threads(threads)
    import_modules(modules)
    model = build_candidate(cfg, setting)
    images = torch.randn(setting.batch, 3, *setting.size)
    gc.collect()
    rest = _resident()
    _reset_peak()
    step(model, images, setting)
    return _peak() - rest


def _peak_on_device(cfg: dict, setting: Setting) -> int:
    model = build_candidate(cfg, setting)
    images = torch.randn(setting.batch, 3, *setting.size, device=setting.device)
    step(model, images, setting)
    model.zero_grad(set_to_none=True)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(setting.device)
    rest = torch.cuda.memory_allocated(setting.device)
    step(model, images, setting)
    return torch.cuda.max_memory_allocated(setting.device) - rest


def _synchronize(setting: Setting) -> None:
    if setting.device != 'cpu':
        torch.cuda.synchronize(setting.device)


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _resident() -> int:
    return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def _reset_peak() -> None:
    with suppress(OSError):  # else the peak counts from the start of the process
        Path('/proc/self/clear_refs').write_text('5')


def _peak() -> int:
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith('VmHWM:'):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _cpu_name() -> str:
    with suppress(OSError):
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    return platform.processor()
