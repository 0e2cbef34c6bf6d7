"""How MMCV finds the operators, and what each of them computes, by its definition."""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest
import torch
import torch.nn.functional as F
import torchvision
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.registry import init_default_scope
from operators import operators, standing_in
from torch._subclasses import FakeTensorMode

from mmrope import config_path, ops
from mmrope.commands.main import main
from mmrope.ops import casting
from tests.helpers.isolation import isolated
from tests.helpers.operators import HAS_COMPILED, without_compiled

EXTENSION = standing_in()


def python(code: str, env: dict[str, str] | None = None, *options: str, **kwargs: Any) -> list[str]:
    command = [sys.executable, *options, '-W', 'ignore', '-c', code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, **kwargs)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_mmrope_answers_for_mmcv_only_where_nothing_is_compiled(tmp_path: Path) -> None:
    code = 'import mmrope, mmcv._ext; print(mmcv._ext.__file__, mmrope.ops.compiled())'
    file, compiled = python(code, without_compiled(tmp_path))
    assert (file, compiled) == (ops.SOURCE, 'False')
    file, compiled = python(code)
    assert (file != ops.SOURCE, compiled) == (HAS_COMPILED, str(HAS_COMPILED))


def test_a_broken_extension_is_not_covered_up(tmp_path: Path) -> None:
    env = without_compiled(tmp_path)
    suffix = __import__('importlib.machinery').machinery.EXTENSION_SUFFIXES[0]
    (tmp_path / 'mmcv' / f'_ext{suffix}').write_text('not a library')
    code = 'import mmrope\ntry:\n    import mmcv._ext\nexcept ImportError as error:\n    print(error)'
    assert python(code, env)[0].startswith(str(tmp_path / 'mmcv' / '_ext'))


def test_nothing_heavy_is_imported_for_it() -> None:
    assert python("import sys, mmrope; print('torch' in sys.modules, 'mmcv' in sys.modules)") == ['False', 'False']


def test_installing_twice_is_installing_once() -> None:
    before = list(sys.meta_path)
    ops.install()
    assert sys.meta_path == before


@pytest.mark.parametrize('host', ops.NOTING)
def test_a_host_that_was_imported_before_is_named(monkeypatch: pytest.MonkeyPatch, host) -> None:
    monkeypatch.setattr(sys, 'meta_path', [finder for finder in sys.meta_path if finder is not ops.OperatorsFinder])
    for name in ops.NOTING:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, host, ModuleType(host))
    monkeypatch.setattr(ops, 'find_spec', lambda name: None)
    with pytest.warns(UserWarning, match='mmrope ops'):
        ops.install()
    with warnings.catch_warnings():  # where operators are compiled, nothing went wrong
        warnings.simplefilter('error')
        monkeypatch.setattr(sys, 'meta_path', [])
        monkeypatch.setattr(ops, 'find_spec', lambda name: object())
        ops.install()


def test_the_command_serves_programs_that_import_a_host_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / 'site'
    monkeypatch.setattr('sysconfig.get_path', lambda name: str(site))
    monkeypatch.setattr('mmrope.commands.ops.compiled', lambda: False)
    main(['ops'])
    assert str(site) in capsys.readouterr().out
    (tmp_path / 'lite').mkdir()
    code = f'import site; site.addsitedir({str(site)!r})\nimport mmdet.apis, mmdet.models, mmcv.ops\n'
    code += 'from mmdet.structures.mask import structures\nprint(structures.roi_align is mmcv.ops.roi_align)'
    assert python(code, without_compiled(tmp_path / 'lite'))[-1] == 'True'

    monkeypatch.setattr('mmrope.commands.ops.compiled', lambda: True)
    main(['ops'])
    main(['ops'])
    assert os.listdir(site) == []


def test_the_line_of_the_command_does_nothing_without_mmrope(tmp_path: Path) -> None:
    from mmrope.commands.ops import LINE

    (tmp_path / 'line.pth').write_text(LINE)
    code = f'import site, sys; site.addsitedir({str(tmp_path)!r}); print("mmrope" in sys.modules)'
    env = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    assert python(code, env, '-S', cwd=tmp_path) == ['False']  # without site-packages there is no mmrope


def test_missing_operators_raise_when_called() -> None:
    with pytest.raises(NotImplementedError, match='carafe_forward.*OPS=compiled'):
        EXTENSION.carafe_forward(1, kernel_size=2)
    with pytest.raises(AttributeError):
        EXTENSION.__path__  # noqa: B018
    with pytest.raises(NotImplementedError, match=r'pool_mode\W+max\b'):
        pool(torch.ones(1, 1, 4, 4), torch.zeros(1, 5), pool_mode=0)


def pool(
    x: torch.Tensor,
    rois: torch.Tensor,
    size: int = 3,
    scale: float = 0.5,
    ratio: int = 0,
    aligned: bool = True,
    pool_mode: int = 1,
) -> torch.Tensor:
    out = x.new_empty(len(rois), x.shape[1], size, size)
    nothing = x.new_zeros(0)
    settings = dict(aligned_height=size, aligned_width=size, spatial_scale=scale, sampling_ratio=ratio, aligned=aligned)
    EXTENSION.roi_align_forward(x, rois, out, nothing, nothing, pool_mode=pool_mode, **settings)
    return out


def pool_backward(
    grad: torch.Tensor,
    rois: torch.Tensor,
    shape: tuple[int, ...],
    size: int = 3,
    scale: float = 0.5,
    ratio: int = 0,
    aligned: bool = True,
) -> torch.Tensor:
    out = grad.new_full(shape, 7)
    nothing = grad.new_zeros(0)
    settings = dict(aligned_height=size, aligned_width=size, spatial_scale=scale, sampling_ratio=ratio, aligned=aligned)
    EXTENSION.roi_align_backward(grad, rois, nothing, nothing, out, pool_mode=1, **settings)
    return out


ROIS = torch.tensor([[0, 1.0, 2, 11, 9], [1, 3, 3, 3, 3], [1, -9, -9, 30, 30]])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('autocast', [False, True])
def test_roi_align_in_half_precision_is_float32_rounded_once(dtype: torch.dtype, autocast: bool) -> None:
    x = torch.randn(2, 3, 8, 8).to(dtype)
    grad = torch.randn(3, 3, 3, 3).to(dtype)
    with torch.autocast('cpu', dtype, enabled=autocast):
        out, back = pool(x, ROIS), pool_backward(grad, ROIS, x.shape)
    assert torch.equal(out, pool(x.float(), ROIS).to(dtype))
    assert torch.equal(back, pool_backward(grad.float(), ROIS, x.shape).to(dtype))


def test_roi_align_of_channels_last_maps() -> None:
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(pool(x.to(memory_format=torch.channels_last), ROIS), pool(x, ROIS))


NAN, INF = float('nan'), float('inf')


@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize(
    'roi, scale',
    [
        ([0, 1, 1, NAN, 2], 1.0), ([0, 1, 1, INF, 2], 1.0), ([0, -INF, 1, 2, 2], 1.0), ([NAN, 1, 1, 2, 2], 1.0),
        ([2, 1, 1, 2, 2], 1.0), ([-1, 1, 1, 2, 2], 1.0), ([0, 1, 1, 3e38, 3e38], 4.0), ([0, 1, 1, 1e39, 9], 1.0),
        ([0, 1, 1, 2, 2], NAN), ([0, 1, 1, 2, 2], INF),
    ],
)  # fmt: skip
def test_boxes_that_would_crash_the_kernel_are_refused(roi: list, scale, ratio: int, aligned: bool) -> None:
    rois = torch.tensor([[0, 1, 1, 2, 2], roi], dtype=torch.float64)
    with pytest.raises(ValueError, match=rf'rois .*\b2\b.*{scale}.*{re.escape(str(float(roi[1])))}'):
        pool(torch.ones(2, 1, 8, 8), rois, scale=scale, ratio=ratio, aligned=aligned)


def test_inverted_boxes_are_refused_where_they_have_no_meaning() -> None:
    rois = torch.tensor([[0, 5.0, 5, 2, 6]])
    with pytest.raises(ValueError, match='x1 <= x2'):
        pool(torch.ones(1, 1, 8, 8), rois)
    with pytest.raises(ValueError, match='x1 <= x2'):
        pool(torch.ones(1, 1, 8, 8), torch.tensor([[0, 2.0, 5, 5, 6]]), scale=-0.5)
    assert pool(torch.ones(1, 1, 8, 8), rois, aligned=False).isfinite().all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_nms_of_other_precisions(dtype: torch.dtype) -> None:
    boxes = torch.tensor([[0, 0, 8, 8], [0, 0, 8, 7], [20, 20, 24, 24]]).to(dtype)
    scores = torch.tensor([0.5, 0.75, 0.25]).to(dtype)
    assert EXTENSION.nms(boxes, scores, 0.5, 0).tolist() == [1, 2]
    dets = torch.zeros(3, 5, dtype=dtype)
    assert EXTENSION.softnms(boxes, scores, dets, 0.5, 0.5, 0.1, 0, 0).tolist() == [1, 2]
    assert dets[:2, 4].tolist() == [0.75, 0.25]
    assert EXTENSION.nms_match(torch.cat([boxes, scores[:, None]], 1), 0.5) == [[1, 0], [2]]


def test_nms_counts_the_last_pixel_where_the_offset_says_so() -> None:
    boxes = torch.tensor([[0.0, 0, 1, 1], [1, 1, 2, 2]])  # one pixel of seven is shared, or none
    scores = torch.tensor([0.9, 0.8])
    assert EXTENSION.nms(boxes, scores, 0.1, 0).tolist() == [0, 1]
    assert EXTENSION.nms(boxes, scores, 0.1, 1).tolist() == [0]


SHAPES = torch.tensor([[5, 7], [3, 2], [1, 1]])
STARTS = torch.tensor([0, 35, 41])


def attention_inputs(dtype: torch.dtype) -> list[torch.Tensor]:
    gen = torch.Generator().manual_seed(0)
    value = torch.randn(2, 42, 2, 4, generator=gen, dtype=torch.float64)
    locations = torch.rand(2, 6, 2, 3, 4, 2, generator=gen, dtype=torch.float64) * 1.4 - 0.2  # some lie outside
    weights = torch.rand(2, 6, 2, 3, 4, generator=gen, dtype=torch.float64)
    return [x.to(dtype).requires_grad_() for x in (value, locations, weights)]


@pytest.mark.parametrize('dtype, limit', [(torch.float64, 1e-14), (torch.float32, 1e-5)])
def test_deformable_attention_is_mmcvs_definition_with_its_gradients(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, limit: float
) -> None:
    monkeypatch.setattr('mmcv.ops.multi_scale_deform_attn.ext_module', EXTENSION)
    here, there = attention_inputs(dtype), attention_inputs(dtype)
    grad = torch.randn(2, 6, 8, dtype=dtype)
    out = MultiScaleDeformableAttnFunction.apply(here[0], SHAPES, STARTS, here[1], here[2], 64)
    expected = multi_scale_deformable_attn_pytorch(there[0], SHAPES, there[1], there[2])
    torch.testing.assert_close(out, expected, rtol=limit, atol=limit)
    out.backward(grad)
    expected.backward(grad)
    for one, other in zip(here, there):
        torch.testing.assert_close(one.grad, other.grad, rtol=limit, atol=10 * limit)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_deformable_attention_and_convolution_in_half_precision(dtype: torch.dtype) -> None:
    value, locations, weights = (x.detach() for x in attention_inputs(dtype))
    with torch.autocast('cpu', dtype):
        out = EXTENSION.ms_deform_attn_forward(value, SHAPES, STARTS, locations, weights, im2col_step=64)
    exact = multi_scale_deformable_attn_pytorch(value.float(), SHAPES, locations.float(), weights.float())
    assert out.dtype == dtype
    torch.testing.assert_close(out, exact.to(dtype))

    x, weight, offset = (
        torch.randn(2, 4, 6, 6).to(dtype),
        torch.randn(4, 4, 3, 3).to(dtype),
        torch.randn(2, 18, 6, 6).to(dtype),
    )
    out = x.new_empty(2, 4, 6, 6)
    settings = dict(kW=3, kH=3, dW=1, dH=1, padW=1, padH=1, dilationW=1, dilationH=1, group=1, deformable_group=1)
    with torch.autocast('cpu', dtype):
        EXTENSION.deform_conv_forward(x, weight, offset, out, None, None, im2col_step=2, **settings)
    exact = torchvision.ops.deform_conv2d(x.float(), offset.float(), weight.float(), padding=1)
    assert torch.equal(out, exact.to(dtype))


def test_a_deformable_convolution_without_shifts_is_a_convolution() -> None:
    x, weight, bias = torch.randn(2, 4, 6, 5), torch.randn(6, 2, 3, 3), torch.randn(6)
    out = x.new_empty(2, 6, 3, 5)
    sides = dict(kernel_h=3, kernel_w=3, stride_h=2, stride_w=1, pad_h=1, pad_w=1, dilation_h=1, dilation_w=1)
    offset, mask = x.new_zeros(2, 18, 3, 5), x.new_ones(2, 9, 3, 5)
    EXTENSION.modulated_deform_conv_forward(
        x, weight, bias, None, offset, mask, out, None, **sides, group=2, deformable_group=1, with_bias=True
    )
    torch.testing.assert_close(out, F.conv2d(x, weight, bias, (2, 1), 1, 1, 2))


def focal(
    function: str,
    logits: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    gamma: float = 2.0,
    alpha: float = 0.25,
) -> torch.Tensor:
    out = torch.empty_like(logits)
    getattr(EXTENSION, f'sigmoid_focal_loss_{function}')(logits, target, weight, out, gamma=gamma, alpha=alpha)
    return out


@pytest.mark.parametrize('gamma', [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize('weighted', [False, True])
def test_sigmoid_focal_loss_and_its_gradient(gamma: float, weighted: bool) -> None:
    gen = torch.Generator().manual_seed(0)
    logits = (torch.randn(9, 4, generator=gen, dtype=torch.float64) * 5).requires_grad_()
    target = torch.randint(0, 5, (9,), generator=gen)  # 4 is none of the classes
    weight = torch.rand(4, generator=gen, dtype=torch.float64) if weighted else torch.zeros(0)
    hot = F.one_hot(target, 5)[:, :4].double()
    expected = torchvision.ops.sigmoid_focal_loss(logits, hot, alpha=0.25, gamma=gamma)
    if weighted:
        expected = expected * torch.cat([weight, torch.ones(1)])[target][:, None]
    torch.testing.assert_close(focal('forward', logits, target, weight, gamma), expected, rtol=1e-10, atol=1e-12)
    (grad,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(focal('backward', logits.detach(), target, weight, gamma), grad, rtol=1e-8, atol=1e-12)


def test_sigmoid_focal_loss_of_extreme_logits_is_finite() -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]])
    for function in ('forward', 'backward'):
        assert focal(function, logits, torch.tensor([0, 0]), torch.zeros(0)).isfinite().all()


def test_deterministic_mode_sums_gradients_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def gradients(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        seen.append([x.device.type for x in tensors])
        return tuple(x * 2 for x in tensors)

    x = torch.ones(3, device='meta')
    monkeypatch.setattr(torch, 'are_deterministic_algorithms_enabled', lambda: False)
    assert casting.reproducibly(gradients, x)[0].device.type == 'meta'
    monkeypatch.setattr(torch, 'are_deterministic_algorithms_enabled', lambda: True)
    monkeypatch.setattr(torch.Tensor, 'cpu', lambda self: torch.ones(3))
    assert casting.reproducibly(gradients, x)[0].device.type == 'meta'
    assert seen == [['meta'], ['cpu']]


def test_nothing_waits_for_a_gpu() -> None:
    """Reading a value of a fake CUDA tensor raises. Deformable attention has to: the CPU needs the sizes of levels."""
    with FakeTensorMode(), torch.device('cuda'):
        x, rois = torch.empty(2, 4, 8, 8, dtype=torch.bfloat16), torch.empty(5, 5)
        out, nothing = x.new_empty(5, 4, 3, 3), x.new_empty(0)
        settings = dict(aligned_height=3, aligned_width=3, spatial_scale=0.5, sampling_ratio=0, aligned=True)
        EXTENSION.roi_align_forward(x, rois, out, nothing, nothing, pool_mode=1, **settings)
        EXTENSION.roi_align_backward(out, rois, nothing, nothing, torch.empty_like(x), pool_mode=1, **settings)
        weight, offset = torch.empty(4, 4, 3, 3), torch.empty(2, 18, 8, 8)
        settings = dict(kW=3, kH=3, dW=1, dH=1, padW=1, padH=1, dilationW=1, dilationH=1, group=1, deformable_group=1)
        EXTENSION.deform_conv_forward(x.float(), weight, offset, x.new_empty(2, 4, 8, 8), None, None, **settings)
        grads = torch.empty_like(x), torch.empty_like(offset)
        EXTENSION.deform_conv_backward_input(x.float(), offset, x.float(), *grads, weight, None, **settings)
        logits, target = torch.empty(6, 3), torch.empty(6, dtype=torch.long)
        assert focal('forward', logits, target, torch.empty(3)).is_cuda
        assert focal('backward', logits, target, torch.empty(3)).is_cuda


@pytest.mark.parametrize('error, said', [(ModuleNotFoundError, 'docs/install.md'), (OSError, 'import mmrope')])
def test_the_command_says_what_to_do_when_it_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error, said: str
) -> None:
    def fail(*args) -> NoReturn:
        raise error('so it is')

    monkeypatch.setattr('mmrope.commands.ops.compiled', fail if error is ModuleNotFoundError else lambda: False)
    monkeypatch.setattr('mmrope.commands.ops.write_whole', fail)
    with pytest.raises(SystemExit) as stop:
        main(['ops'])
    assert stop.value.code and said in capsys.readouterr().err


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_a_detector_trains_and_predicts_in_half_precision(dtype: torch.dtype) -> None:
    with isolated():
        init_default_scope('mmdet')
        cfg = Config.fromfile(config_path('mask_rcnn_rope_mixed_vit_tiny_digits.py'))
        model = MODELS.build(cfg.model)
        data = demo_mm_inputs(2, [[3, 96, 128]] * 2, num_classes=3, with_mask=True)
        with operators(EXTENSION), torch.autocast('cpu', dtype):
            losses = model(**model.data_preprocessor(data, True), mode='loss')
            loss, _ = model.parse_losses(losses)
            with torch.no_grad():
                found = model.eval()(**model.data_preprocessor(data, False), mode='predict')
        with operators(EXTENSION):
            loss.backward()
    assert loss.isfinite() and all(sample.pred_instances.scores.isfinite().all() for sample in found)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
