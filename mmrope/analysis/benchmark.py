"""Time and memory of backbones, side by side."""

import gc
import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from functools import partial, reduce
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import cast

import torch
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn

from ..models.open_tokens import split_open
from ..registry import MODELS

MODES = ('inference', 'training')
DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16)
WARM_UP = 1  # untimed rounds
PEERS = ('mmdet', 'mmsegmentation', 'mmpretrain', 'onedl-mmdetection', 'onedl-mmsegmentation', 'onedl-mmpretrain')
PACKAGES = ('mmrope', 'torch', 'timm', *PEERS)


@dataclass(frozen=True)
class Setting:
    """The conditions of a measurement.

    Args:
        size: image size in pixels, ``(H, W)``.
        batch: images per step.
        mode: ``'inference'``, a forward without gradients, or ``'training'``, a forward and a backward.
        device: torch device of the model.
        dtype: ``'float32'``, or a half precision to autocast to.
        threads: threads on the CPU; ``None`` for torch's choice.

    Raises:
        ValueError: if ``mode`` or ``dtype`` is unknown.
    """

    size: tuple[int, int]
    batch: int = 1
    mode: str = 'inference'
    device: str = 'cpu'
    dtype: str = 'float32'
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, known in (('mode', MODES), ('dtype', DTYPES)):
            if getattr(self, name) not in known:
                raise ValueError(f'{name} must be one of {", ".join(known)}, got {getattr(self, name)!r}')


@dataclass
class Measurement:
    """Time and memory of one candidate in one setting.

    Args:
        candidate: name of the candidate.
        setting: the conditions.
        times: seconds of each round.
        memory: peak bytes of a step beyond those of the idle model, or ``None`` if not measured.
        parameters: number of parameters.
    """

    candidate: str
    setting: Setting
    times: list[float] = field(default_factory=list)
    memory: int | None = None
    parameters: int = 0

    @property
    def median(self) -> float:
        """Median seconds of a round."""
        return statistics.median(self.times)

    @property
    def spread(self) -> float:
        """Difference between the slowest and the fastest round, as a share of the median."""
        return (max(self.times) - min(self.times)) / self.median

    @property
    def throughput(self) -> float:
        """Images per second."""
        return self.setting.batch / self.median

    def as_dict(self) -> dict:
        """Return the measurement as plain values, for JSON."""
        return dict(asdict(self), median=self.median, spread=self.spread, throughput=self.throughput)


def build_candidate(cfg: dict, setting: Setting) -> nn.Module:
    """Build a backbone for a setting, with random weights.

    Args:
        cfg: config of a backbone in a registry of OpenMMLab's, whose scope is in its ``type``
            (``dict(type='mmdet.SwinTransformer')``) or in ``_scope_``; ``compile=True`` compiles the backbone.
        setting: the mode and the device.

    Raises:
        KeyError: if no registry knows the type.
        ImportError: if its package is not installed.
    """
    kind = cfg['type']
    scope = kind.partition('.')[0] if isinstance(kind, str) and '.' in kind else 'mmrope'
    settings = {'_scope_': scope} | {key: value for key, value in cfg.items() if key not in ('init_cfg', 'compile')}
    model = revert_sync_batchnorm(MODELS.build(settings))
    model.train(setting.mode == 'training')
    model = model.to(setting.device)
    return cast(nn.Module, torch.compile(model, dynamic=False)) if cfg.get('compile') else model


def compare(
    candidates: dict[str, dict],
    setting: Setting,
    rounds: int = 5,
    memory: bool = True,
    progress: Callable[[str], None] = lambda text: None,
    skipping: Callable[[str], AbstractContextManager] = nullcontext,
    prepare: Callable[[], None] | None = None,
) -> list[Measurement]:
    """Measure candidates in turns: each round runs each of them once, so that noise of the machine affects all.

    Every second round goes through them backwards.

    Args:
        candidates: configs of backbones by name.
        setting: the conditions for all.
        rounds: number of timed rounds, after one warm-up that includes compilation.
        memory: whether to measure peak memory as well, on the CPU in a new process for each candidate.
        progress: called with a description of each step.
        skipping: returns, for the name of a candidate, a context to build and run it in. If the context swallows an
            error, the candidate is left out.
        prepare: as in :func:`peak_memory`.

    Returns:
        One measurement for each candidate that was built and ran, in order.
    """
    images = {channels: _images(channels, setting) for channels in {_channels(cfg) for cfg in candidates.values()}}
    models: dict[str, nn.Module] = {}
    done = {name: Measurement(name, setting) for name in candidates}
    with _threads(setting.threads):
        torch.compiler.reset()  # compilations of earlier settings count towards a limit
        for name, cfg in candidates.items():
            with skipping(name):
                if memory and not (cfg.get('compile') and setting.device == 'cpu'):  # the compiler's memory would count
                    progress(f'{name}: memory')
                    done[name].memory = peak_memory(cfg, setting, prepare)
                models[name] = build_candidate(cfg, setting)
                done[name].parameters = sum(param.numel() for param in models[name].parameters())
        for number in range(WARM_UP + rounds):
            turns = list(models.items())
            for name, model in turns if number % 2 else reversed(turns):
                progress(f'{name}: round {number} of {rounds}')
                seconds = None
                with skipping(name):
                    seconds = time_step(model, images[_channels(candidates[name])], setting)
                if seconds is None:
                    del models[name]
                elif number >= WARM_UP:
                    done[name].times.append(seconds)
    return [done[name] for name in candidates if name in models]


def time_step(model: nn.Module, images: Tensor, setting: Setting) -> float:
    """Measure the seconds of one forward, with backward in training mode."""
    _synchronize(setting)
    start = time.perf_counter()
    step(model, images, setting)
    _synchronize(setting)
    seconds = time.perf_counter() - start
    model.zero_grad(set_to_none=True)
    return seconds


def step(model: nn.Module, images: Tensor, setting: Setting) -> None:
    """Run one forward, with backward in training mode, without waiting for a GPU.

    The blocks that a backbone leaves to a head run, too, without the head's queries. Where all is frozen, there is
    nothing to go back to.
    """
    training = setting.mode == 'training'
    half = setting.dtype != 'float32'
    device = torch.device(setting.device).type
    with torch.autocast(device, DTYPES[setting.dtype], enabled=half), torch.set_grad_enabled(training):
        out = model(images)
        outs, tokens = split_open([out] if isinstance(out, Tensor) else list(out))
        if tokens is not None:
            x = tokens.x
            for block in tokens.blocks:
                x = block(x)
            outs += (tokens.norm(x),)
    if training and any(out.requires_grad for out in outs):
        reduce(torch.add, (out.float().mean() for out in outs)).backward()


def peak_memory(cfg: dict, setting: Setting, prepare: Callable[[], None] | None = None) -> int:
    """Measure the peak bytes of one step beyond those of the idle model.

    On CUDA the allocator counts them. On the CPU they are the resident memory of a new process.

    Args:
        cfg: config of the backbone, as in :func:`build_candidate`.
        setting: the conditions.
        prepare: called first in the new process, for example to import the modules that register the candidate. It
            is pickled, so it must be a module's function or a ``functools.partial`` of one.

    Raises:
        MemoryError: if the new process is killed.
    """
    if setting.device != 'cpu':
        return _peak_on_device(cfg, setting)
    # In the same process, this candidate could reuse memory that an earlier one has freed, which would not count.
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
        try:
            return pool.submit(_peak_on_cpu, cfg, setting, torch.get_num_threads(), prepare).result()
        except BrokenProcessPool as error:
            raise MemoryError('the process that measures memory was killed, probably for want of memory') from error


def peak_of(run: Callable[[], object]) -> int:
    """Measure the peak bytes of resident memory that a call adds on the CPU.

    Args:
        run: what to call. Memory that the process has freed earlier is used again and does not count, so the call
            belongs in a process that has done little else.
    """
    gc.collect()
    rest = _resident()
    _reset_peak()
    run()
    return _peak() - rest


def environment(device: str, threads: int | None = None) -> dict[str, str | int]:
    """Return the device, threads and package versions that the measurements depend on.

    Args:
        device: as in :class:`Setting`.
        threads: as in :class:`Setting`.
    """
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


def _peak_on_cpu(cfg: dict, setting: Setting, threads: int, prepare: Callable[[], None] | None) -> int:
    torch.set_num_threads(threads)
    if prepare is not None:
        prepare()
    model = build_candidate(cfg, setting)
    images = _images(_channels(cfg), setting)
    return peak_of(partial(step, model, images, setting))


def _peak_on_device(cfg: dict, setting: Setting) -> int:
    model = build_candidate(cfg, setting)
    images = _images(_channels(cfg), setting)
    step(model, images, setting)
    model.zero_grad(set_to_none=True)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(setting.device)
    rest = torch.cuda.memory_allocated(setting.device)
    step(model, images, setting)
    return torch.cuda.max_memory_allocated(setting.device) - rest


def _channels(cfg: dict) -> int:
    return cfg.get('in_channels', 3)


def _images(channels: int, setting: Setting) -> Tensor:
    return torch.randn(setting.batch, channels, *setting.size, device=setting.device)


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
