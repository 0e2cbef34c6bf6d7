"""Check and measure mmrope on a GPU: ``python benchmarks/gpu.py COMMAND [ROW ...]``; ``gpu_session.sh`` runs all of it.

Each result is printed and appended to a file of JSON lines at once, so a run that is cut off keeps its results.
``table`` writes Markdown from the file. On a machine without a GPU, ``--device cpu --small`` tries a command: its times
mean nothing, and Triton's interpreter takes the place of compiled kernels.
"""

import argparse
import copy
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

if not Path('/dev/nvidiactl').exists():  # must be set before Triton is imported
    os.environ.setdefault('TRITON_INTERPRET', '1')

import peers  # noqa: F401  registers timm's ViTs
import torch
import torch.nn.functional as F
from gpu_count import ROWS
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity
from torch.utils.benchmark import Timer

from mmrope import RoPESwin, RoPEViT
from mmrope.analysis.benchmark import MODES, Setting, build_candidate, compare, environment, step, time_step
from mmrope.commands.errors import sentence
from mmrope.layers import Attention, RoPE, attention, even_windows, kernels, one_window, qkv, varlen

# Models by name that are checked against float64 on the CPU, and the largest error relative to the norm, by dtype.
VIT = dict(arch=dict(embed_dims=64, depth=3, num_heads=2), patch_size=4, layer_scale_init_value=0.5)
SWIN = dict(
    arch=dict(embed_dims=32, depths=(2, 2), num_heads=(2, 4)), window_size=4, out_indices=(0, 1), drop_path_rate=0.0
)
WINDOWS = dict(window_size=5, global_attn_indexes=(1,))
MODELS: dict[str, Callable[[], nn.Module]] = {
    **{f'vit {rope}': lambda rope=rope: RoPEViT(**VIT, **WINDOWS, rope=rope) for rope in ('mixed', 'axial', None)},
    'vit global ape': lambda: RoPEViT(**VIT, ape=True, img_size=32),
    'vit cls token': lambda: RoPEViT(**VIT, with_cls_token=True),
    'vit checkpointed': lambda: RoPEViT(**VIT, **WINDOWS, with_cp=True),
    'vit without LayerScale': lambda: RoPEViT(**{**VIT, 'layer_scale_init_value': None}, **WINDOWS),
    **{
        f'swin {rope}{" rpb" * rpb}': lambda rope=rope, rpb=rpb: RoPESwin(**SWIN, rope=rope, rpb=rpb)
        for rope, rpb in itertools.product(('mixed', 'axial', None), (False, True))
    },
}
ERROR = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}

# Candidates that are measured: kinds of rotation with switches, and peers by row.
OURS = ('None', 'axial', 'mixed', 'mixed, kernels off', 'mixed, varlen off', 'mixed, cuDNN off', 'mixed, inductor')
COMPILED = ('None, compiled', 'mixed, compiled')
PEERS = dict(
    vit_windows={
        "timm's SAM ViT-B": dict(type='mmrope.TimmViT', name='samvit_base_patch16', dynamic_img_size=None),
    },
    vit_global={
        "timm's RoPE-Mixed ViT-B": dict(type='mmrope.TimmViT', name='vit_base_patch16_rope_mixed_224'),
        "timm's ViT-B": dict(type='mmrope.TimmViT', name='vit_base_patch16_224', init_values=1e-4),
    },
    swin={"torchvision's Swin-T": dict(type=lambda **kwargs: torchvision_swin(**kwargs))},
)
PEERS['swin_batch_2'] = PEERS['swin']
SMALL_SHAPE = (2, 3, 208, 240)
SMALL = dict(
    vit=dict(arch=dict(embed_dims=32, depth=12, num_heads=2)),
    swin=dict(arch=dict(embed_dims=16, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8))),
    timm=dict(embed_dim=32, depth=2, num_heads=2),
)


def torchvision_swin(embed_dim: int = 96) -> nn.Module:
    """Build torchvision's Swin-T without its head: padded and masked windows, with a relative position bias."""
    from torchvision.models import SwinTransformer

    return SwinTransformer([4, 4], embed_dim, [2, 2, 6, 2], [3, 6, 12, 24], [7, 7], stochastic_depth_prob=0.2).features


def definition(qkv_: Tensor, angles: Any, windows: Any, order: Any = None, packed: bool = False) -> list[Tensor]:
    """Compute ``split_qkv`` by its definition."""
    return list(qkv._split(qkv_, angles, windows, order, packed))


@cache
def by_inductor() -> Callable:
    """Compile the definition, anew for each cut into windows."""
    return torch.compile(definition, dynamic=False)


@contextmanager
def switched(*names: str) -> Iterator[None]:
    """Compute in other ways, named by ``SWITCHES``, than mmrope does by default."""
    with ExitStack() as stack:
        for name in names:
            for context in SWITCHES[name]():
                stack.enter_context(context)
        yield


@contextmanager
def _without_cudnn() -> Iterator[None]:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def _kernels(take: Callable[[Tensor], bool]) -> AbstractContextManager:
    return mock.patch.object(kernels, 'take', take)


SWITCHES: dict[str, Callable[[], Sequence[AbstractContextManager]]] = {
    'kernels off': lambda: [_kernels(lambda x: False)],
    'varlen off': lambda: [varlen.switched_off()],
    'cuDNN off': lambda: [_without_cudnn()],
    'inductor': lambda: [
        mock.patch.object(attention, 'split_qkv', by_inductor()), torch._dynamo.config.patch(recompile_limit=64),
    ],
    'definition': lambda: [
        mock.patch.object(attention, 'split_qkv', definition), _kernels(lambda x: False), varlen.switched_off(),
    ],
    'interpreter': lambda: [_kernels(lambda x: x.dtype in kernels.DTYPES and kernels._has_operators())],
    'compiled': lambda: [],
}  # fmt: skip


def record(args: argparse.Namespace, **entry: Any) -> None:
    """Print a result and append it to the file."""
    texts = (f'{key}: {value:.4g}' if isinstance(value, float) else f'{key}: {value}' for key, value in entry.items())
    print(', '.join(text if len(text) <= 160 else f'{text[:160]} ...' for text in texts), flush=True)
    entry = dict(command=args.command, card=environment(args.device)['device']) | entry
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open('a') as file:
        file.write(json.dumps(entry) + '\n')
    args.failed = args.failed or entry.get('ok') is False


@contextmanager
def attempt(args: argparse.Namespace, **entry: Any) -> Iterator[None]:
    """Record an error and go on."""
    try:
        yield
    except Exception as error:
        record(args, **entry, ok=False, error=sentence(error))


def measure(function: Callable[[], Any]) -> float:
    """Return the median seconds of a call; the timed calls follow each other without waiting for the GPU."""
    return Timer('function()', globals=dict(function=function)).blocked_autorange(min_run_time=0.1).median


def profiled(function: Callable[[], Any], device: str) -> list[dict[str, Any]]:
    """Run a function and list the kernels that ran on the device, the longest first."""
    cpu = device == 'cpu'
    activity, kind = (ProfilerActivity.CPU, DeviceType.CPU) if cpu else (ProfilerActivity.CUDA, DeviceType.CUDA)
    with torch.profiler.profile(activities=[activity]) as prof:
        function()
        if not cpu:
            torch.cuda.synchronize()
    spent = [
        dict(name=e.key, calls=e.count, seconds=(e.self_cpu_time_total if cpu else e.self_device_time_total) / 1e6)
        for e in prof.key_averages()
        if e.device_type == kind
    ]
    return sorted(spent, key=lambda x: -x['seconds'])


def env(args: argparse.Namespace) -> None:
    """Record the card and its limits: copies, matrix products, attention and the kernel that it takes."""
    record(args, **environment(args.device), cudnn=torch.backends.cudnn.version(), cuda=torch.version.cuda)
    size, side, tokens = (2**20, 64, 64) if args.small else (2**31, 8192, 32768)
    x = torch.zeros(size, dtype=torch.uint8, device=args.device)
    y = torch.empty_like(x)
    record(args, what='copy', terabytes_per_second=2 * size / measure(lambda: y.copy_(x)) / 1e12)
    for name, shape in dict(square=(side, side, side), mlp=(tokens, 768, 3072)).items():
        a, b = (torch.randn(s, device=args.device, dtype=torch.bfloat16) for s in (shape[:2], shape[:0:-1]))
        seconds = measure(lambda a=a, b=b: F.linear(a, b))
        record(args, what=f'matrix product, {name}', teraflops=2 * shape[0] * shape[1] * shape[2] / seconds / 1e12)
    for shape in ((8, 12, 4096, 64), (8 * 25, 12, 169, 64), (8 * 29 * 48, 3, 49, 32)):
        batch, heads, length, head_dim = (2, *shape[1:2], 64, shape[3]) if args.small else shape
        packed = torch.randn(batch, length, 3, heads, head_dim, device=args.device, dtype=torch.bfloat16)
        q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
        attend = partial(F.scaled_dot_product_attention, q, k, v)
        for off in ((), ('cuDNN off',)):
            with switched(*off):
                attend()
                kernel = profiled(attend, args.device)[0]['name']
                rate = 4 * batch * heads * length**2 * head_dim / measure(attend) / 1e12
            record(args, what=f'attention {tuple(q.shape)}', switches=off, teraflops=rate, kernel=kernel)


def results(model: nn.Module, x: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return all maps and the gradients of frequencies, LayerScale and the rest, each one float64 vector on the CPU."""
    half = dtype in (torch.float16, torch.bfloat16)
    # Convolutions would round float32 to TF32.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        with torch.autocast(x.device.type, dtype if half else torch.bfloat16, enabled=half):
            maps = model(x)
        generator = torch.Generator().manual_seed(1)
        weights = [torch.randn(out.shape, generator=generator).to(x.device) for out in maps]
        sum((out.float() * weight).sum() for out, weight in zip(maps, weights)).backward()
    parts: dict[str, list[Tensor]] = dict(maps=list(maps))
    for name, param in model.named_parameters():
        part = next((part for part in ('freqs', 'gamma') if part in name), 'rest')
        if param.grad is not None:
            parts.setdefault(part, []).append(param.grad)
    return {part: torch.cat([x.detach().double().cpu().flatten() for x in xs]) for part, xs in parts.items()}


def build_checked(name: str) -> nn.Module:
    """Build one of ``MODELS`` for training, with attention far from uniform."""
    model = MODELS[name]().train()
    for key, param in model.named_parameters():
        if key.endswith('qkv.weight'):
            nn.init.normal_(param, std=0.2)
    return model


def errors_of(ours: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """Compute the norm of each part's error relative to that of the part."""
    return {part: ((ours[part] - exact[part]).norm() / exact[part].norm()).item() for part in exact}


def check(args: argparse.Namespace) -> None:
    """Compare maps and gradients of whole models with the definition in float64 on the CPU."""
    ways = ((), ('varlen off',), ('kernels off',), ('definition',))
    if args.device == 'cpu':
        ways = (('interpreter',), ('definition',))
    shape = (2, 3, 29, 44) if args.small else (3, 3, 61, 100)
    for name in ('vit mixed', 'swin mixed') if args.small else MODELS:
        torch.manual_seed(0)
        model, x = build_checked(name), torch.randn(shape)
        with switched('definition'):
            exact = results(copy.deepcopy(model).double(), x.double(), torch.float64)
        for way, (dtype, limit) in itertools.product(ways, ERROR.items()):
            entry = dict(model=name, switches=way, dtype=str(dtype)[6:])
            with attempt(args, **entry), switched(*way):
                errors = errors_of(results(copy.deepcopy(model).to(args.device), x.to(args.device), dtype), exact)
                record(args, **entry, **errors, ok=max(errors.values()) <= limit)


def sync(args: argparse.Namespace) -> None:
    """Fail if a step waits for the GPU, after the first steps at an image size have made the indexes."""
    for row, mode in itertools.product(args.rows, MODES):
        setting, build = row_of(args, row, mode)
        for way in ((), ('kernels off',), ('varlen off',)):
            with attempt(args, row=row, mode=mode, switches=way), switched(*way):
                model = build_candidate(dict(type=build, rope='mixed'), setting)
                images = torch.randn(2, 3, *setting.size, device=args.device)
                for last in (False, False, True):
                    with _no_wait() if last and args.device != 'cpu' else ExitStack():
                        step(model, images, setting)
                record(args, row=row, mode=mode, switches=way, ok=None if args.device == 'cpu' else True)


@contextmanager
def _no_wait() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode('error')
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode('default')


def limits(args: argparse.Namespace) -> None:
    """Attend in 65,600 windows, more than one launch allows, and compare with two halves."""
    batch = 4 if args.small else 1025  # of 224 x 224 pixels, in Swin's first stage
    windows = even_windows((56, 56), 7)
    attn = Attention(32, 1, 'mixed', 10.0).to(args.device)
    x = torch.randn(batch, 56 * 56, 32, device=args.device)
    for dtype, way in itertools.product((torch.float32, torch.bfloat16), ((), ('cuDNN off',), ('kernels off',))):
        entry = dict(windows=64 * batch, dtype=str(dtype)[6:], switches=way)
        with attempt(args, **entry), switched(*way):
            whole, halves = ([_attended(attn, part, windows, dtype) for part in x.tensor_split(n)] for n in (1, 2))
            errors = {
                name: ((ours - theirs).norm() / theirs.norm()).item()
                for name, ours, theirs in zip(('out', 'gradient'), whole[0], map(torch.cat, zip(*halves)))
            }
            record(args, **entry, **errors, ok=max(errors.values()) <= ERROR[dtype])


def _attended(attn: Attention, x: Tensor, windows: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    with torch.autocast(x.device.type, torch.bfloat16, enabled=dtype != torch.float32):
        out = attn(x, windows)
    return out.detach().float(), torch.autograd.grad(out.float().square().sum(), x)[0]


def plans(args: argparse.Namespace) -> None:
    """Time the first and the second step at each of several sizes; the first pays for a plan for each shape."""
    sizes = [(800, 1344), (800, 1216), (800, 1088), (1344, 800), (800, 1024), (768, 1344), (640, 960), (672, 1344)]
    ways = ((), ('cuDNN off',), ('varlen off', 'cuDNN off'), ('varlen off',))
    for row, mode, way in itertools.product(args.rows, MODES, ways):
        setting, build = row_of(args, row, mode)
        with attempt(args, row=row, mode=mode, switches=way), switched(*way):
            model, times = build_candidate(dict(type=build, rope='mixed'), setting), []
            for size in [(64, 80), (64, 96)] if args.small else sizes:
                images = torch.randn(2, 3, *size, device=args.device)
                times.append([time_step(model, images, setting) for _ in range(2)])
            first, again = zip(*times)
            record(args, row=row, mode=mode, switches=way, sizes=sizes[: len(times)], first=first, again=again)


def tune(args: argparse.Namespace) -> None:
    """Time the Triton kernels alone, as they are and with other numbers of channels, tokens, images and warps."""
    assert kernels._library() is not None, 'Triton is not installed'
    from mmrope.layers import triton_kernels

    batch, side, heads, head_dim = (2, 5, 2, 16) if args.small else (8, 64, 12, 64)
    tokens, pairs = side**2, heads * head_dim // 2
    x = torch.randn(batch, tokens, 3, heads, head_dim, device=args.device, dtype=torch.bfloat16)
    angles = RoPE(head_dim, heads, 'mixed', 10.0).to(args.device)((side, side)).detach()
    places = kernels._places(one_window((side, side)), None, 0, True, x.device)
    q, k, v = torch.empty_like(x).copy_(x).permute(2, 0, 3, 1, 4).unbind(0)
    grad, turn = torch.empty_like(x), x.new_empty(batch, tokens, pairs, dtype=torch.float32)
    branch = x[:, :, 0].flatten(2).contiguous()
    residual, scale = torch.randn_like(branch, dtype=torch.float32), torch.ones(1, 1, 2 * pairs, device=args.device)

    def time(name: str, function: Callable[[], Any], moved: int, **tile: int) -> None:
        with attempt(args, kernel=name, **tile):
            seconds = measure(function)
            record(args, kernel=name, **tile, seconds=seconds, terabytes_per_second=moved / seconds / 1e12)

    def time_rotation(images: int, **tile: int) -> None:
        chunks = turn[: -(-batch // images)]
        size = x.nbytes
        time('rotate', lambda: torch.ops.mmrope.rotate(x, angles, places, images), 2 * size, images=images, **tile)
        time(
            'unrotate', lambda: torch.ops.mmrope.unrotate(grad, chunks, q, k, v, q, k, angles, places[0], images),
            size * 8 // 3 + chunks.nbytes, images=images, **tile,
        )  # fmt: skip

    def time_scale(**tile: int) -> None:
        function = partial(torch.ops.mmrope.scale_gradients, residual, branch, scale)
        time('scale_gradients', function, residual.nbytes + 2 * branch.nbytes, **tile)

    time_rotation(kernels._images(x.shape))
    time_scale()
    for p, tile, images, warps in itertools.product((32, 64), (512, 1024, 2048, 4096), (8, 1), (4, 8)):

        def tiles(batch: int, tokens: int, pairs: int, images: int, p=p, tile=tile, warps=warps) -> tuple:
            t = tile // p
            grid = (-(-tokens // t), -(-pairs // p), -(-batch // images))
            return grid, dict(IMAGES=images, T=t, P=p, num_warps=warps)

        with mock.patch.object(triton_kernels, '_tiles', tiles):
            time_rotation(images, P=p, T=tile // p, warps=warps)
        if args.small:
            break
    for t, d in [(32, 64)] if args.small else itertools.product((16, 32, 64, 128), (32, 64, 128)):
        with mock.patch.multiple(triton_kernels, TOKENS=t, CHANNELS=d):
            time_scale(T=t, D=d)


def row_of(args: argparse.Namespace, row: str, mode: str) -> tuple[Setting, Callable[..., nn.Module]]:
    """Return the setting of a row, and the function that builds its backbone from ``rope``."""
    build, shape = ROWS[row]
    batch, _, *size = SMALL_SHAPE if args.small else shape
    if args.small:
        full, small = build, SMALL[row.split('_')[0]]
        build = lambda **kwargs: full(**small, **kwargs)  # noqa: E731  a registry builds functions, not partials
    return Setting(tuple(size), args.batch or batch, mode, args.device, 'bfloat16'), build


def candidates_of(args: argparse.Namespace, row: str, build: Callable[..., nn.Module]) -> dict[str, dict]:
    """Return the configs to compare in a row by name: a kind of rotation, then its switches."""
    ours = {
        name: dict(type=build, rope=None if name.startswith('None') else name.partition(',')[0])
        | (dict(compile=True) if args.compile else {})
        for name in (COMPILED if args.compile else OURS)
    }
    return ours if args.compile else ours | {name: _peer(args, cfg) for name, cfg in PEERS[row].items()}


def _peer(args: argparse.Namespace, cfg: dict) -> dict:
    timm = 'name' in cfg
    small = (SMALL['timm'] if timm else dict(embed_dim=24)) if args.small else {}
    return cfg | (dict(drop_path_rate=0.1) if timm else {}) | small


def bench(args: argparse.Namespace) -> None:
    """Measure time and memory of a step in bfloat16 autocast, with the candidates in turns, by row and mode."""
    for row, mode in itertools.product(args.rows, args.modes):
        setting, build = row_of(args, row, mode)

        @contextmanager
        def running(name: str, row: str = row, mode: str = mode) -> Iterator[None]:
            switches = [] if name.startswith(("timm's", "torchvision's")) else name.split(', ')[1:]
            with attempt(args, row=row, mode=mode, candidate=name), switched(*switches):
                yield

        candidates = candidates_of(args, row, build)
        for entry in compare(candidates, setting, args.rounds, args.device != 'cpu', skipping=running):
            record(args, row=row, **entry.as_dict())


def profile(args: argparse.Namespace) -> None:
    """Profile one training step: the host is the limit if the GPU is busy for less time than the step takes."""
    for row, rope in itertools.product(args.rows, (None, 'mixed')):
        setting, build = row_of(args, row, 'training')
        model = build_candidate(dict(type=build, rope=rope), setting)
        images = torch.randn(setting.batch, 3, *setting.size, device=args.device)
        seconds = [time_step(model, images, setting) for _ in range(4)][-1]
        spent = profiled(partial(time_step, model, images, setting), args.device)
        busy, launches = sum(x['seconds'] for x in spent), sum(x['calls'] for x in spent)
        record(args, row=row, rope=rope, seconds=seconds, busy=busy, launches=launches, largest=spent[:30])
        for x in spent[:15]:
            print(f'{1e3 * x["seconds"]:9.3f} ms {x["calls"]:6d} {x["name"][:100]}')


def table(args: argparse.Namespace) -> None:
    """Print the results of ``bench`` as Markdown, of repeated measurements the last."""
    entries = [json.loads(line) for line in args.out.read_text().splitlines()]
    for card in dict.fromkeys(entry['card'] for entry in entries):
        mine = [entry for entry in entries if entry['card'] == card]
        rates = {x['what']: x.get('terabytes_per_second') or x.get('teraflops') for x in mine if 'what' in x}
        print(f'**{card}**', *[f'{what} {rate:.2f} T/s' for what, rate in rates.items()], sep='; ', end='\n\n')
        print('| row | images | | ms | spread | MiB | x without |\n| --- | --- | --- | ---: | ---: | ---: | ---: |')
        measured = [x | x['setting'] for x in mine if 'times' in x]
        done = {(x['row'], x['batch'], x['mode'], x['candidate']): x for x in measured}
        for (row, batch, mode, name), entry in done.items():
            base = done.get((row, batch, mode, 'None, compiled' if 'compiled' in name else 'None'))
            sides, memory = entry['size'], entry['memory']
            cells = [
                f'{row}, {name}', f'{batch} x {sides[0]} x {sides[1]}', mode, f'{1e3 * entry["median"]:.2f}',
                f'{entry["spread"]:.0%}', '' if memory is None else f'{memory / 2**20:,.0f}',
                f'{entry["median"] / base["median"]:.3f}' if base else '',
            ]  # fmt: skip
            print('|', ' | '.join(cells), '|')
        print()


COMMANDS = {function.__name__: function for function in (env, check, sync, limits, plans, tune, bench, profile, table)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; exit code 1 means that something is wrong or did not run."""
    parser = argparse.ArgumentParser(prog='gpu.py', description='Check and measure mmrope on a GPU.')
    commands = '; '.join(f'{name}: {function.__doc__.splitlines()[0]}' for name, function in COMMANDS.items())
    parser.add_argument('command', choices=COMMANDS, help=commands)
    parser.add_argument('rows', nargs='*', metavar='ROW', help=f'rows to measure, of {", ".join(ROWS)} (default: all)')
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/gpu/results.jsonl'), help='file of results (default: %(default)s)'
    )
    parser.add_argument('--device', default='cuda', help='torch device (default: %(default)s)')
    parser.add_argument('--small', action='store_true', help='use small models and images, to try a command')
    parser.add_argument('--modes', nargs='+', choices=MODES, default=['training', 'inference'])
    parser.add_argument('--rounds', type=int, default=10, help='timed rounds of bench (default: %(default)s)')
    parser.add_argument('--batch', type=int, help="batch size, in place of the row's")
    parser.add_argument('--compile', action='store_true', help='bench models that are compiled as a whole')
    args = parser.parse_args(arguments)
    if unknown := sorted(set(args.rows) - set(ROWS)):
        parser.error(f'ROW must be one of {", ".join(ROWS)}, got {unknown[0]}')
    args.failed = False
    args.rows = args.rows or list(ROWS)
    COMMANDS[args.command](args)
    if args.failed:
        sys.exit(f'gpu.py {args.command}: something failed; see the lines with "ok": false in {args.out}')


if __name__ == '__main__':
    main()
