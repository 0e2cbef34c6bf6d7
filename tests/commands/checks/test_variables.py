"""A variable that a child config sets without effect is named, with what to set in its place."""

import warnings
from pathlib import Path

import pytest
from mmengine.config import Config

from mmrope.commands.checks.variables import check_variables, idle_variables
from mmrope.commands.config import load_config
from tests.helpers.recipes import CONFIGS, configs

MASK_RCNN = 'mask_rcnn_rope_mixed_vit_b_coco'
IDLE = {
    'image_size = (320, 320)': (MASK_RCNN, 'set the pipelines of the data loaders, or train with --size N'),
    'crop_size = (256, 256)': ('upernet_rope_mixed_vit_b_ade20k', 'set the pipelines'),
    'max_iters = 300': (MASK_RCNN, 'set train_cfg.max_iters and param_scheduler'),
    'max_epochs = 3': ('mask_rcnn_rope_mixed_swin_t_coco', 'set train_cfg.max_epochs'),
    'data_root = "data/mine/"': (MASK_RCNN, 'give --data-root DIR'),
    'metainfo = dict(classes=("a", "b"))': (MASK_RCNN, 'set metainfo of each data set'),
    'num_classes = 3': (
        'cascade_rcnn_rope_mixed_swin_t_coco',
        'set model.roi_head.bbox_head.0.num_classes, model.roi_head.bbox_head.1.num_classes, '
        'model.roi_head.bbox_head.2.num_classes',
    ),
    'train_pipeline = [dict(type="LoadImageFromFile")]': (MASK_RCNN, 'set the pipelines'),
}


@pytest.mark.parametrize('line', IDLE)
def test_a_variable_without_effect_is_named(line: str, tmp_path: Path) -> None:
    base, advice = IDLE[line]
    (tmp_path / 'child.py').write_text(f'_base_ = {str(CONFIGS / f"{base}.py")!r}\n{line}\n')
    name = line.partition(' ')[0]
    (tmp_path / 'grandchild.py').write_text('_base_ = "child.py"\nwork_dir = "work"\n')
    for config in ('child.py', 'grandchild.py'):
        with pytest.warns(UserWarning, match=f'sets {name} = .*, which has no effect: {advice}'):
            load_config(str(tmp_path / config))


@pytest.mark.parametrize('path', configs('*.py'))
def test_the_variables_of_every_config_have_an_effect(path: Path) -> None:
    assert list(idle_variables(Config.fromfile(path))) == []


def test_a_variable_with_its_effect_is_no_warning(tmp_path: Path) -> None:
    text = f'_base_ = {str(CONFIGS / "mask_rcnn_rope_mixed_swin_t_coco.py")!r}\nmax_epochs = 3\n'
    (tmp_path / 'child.py').write_text(f'{text}train_cfg = dict(max_epochs=max_epochs)\ndata_root = "data/coco"\n')
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        check_variables(Config.fromfile(tmp_path / 'child.py'))


def test_a_part_that_is_set_in_place_of_its_variable_is_no_warning(tmp_path: Path) -> None:
    """The variables of the base stay behind."""
    text = f'_base_ = {str(CONFIGS / "mask_rcnn_rope_mixed_vit_b_coco.py")!r}\ntrain_cfg = dict(max_iters=300)\n'
    (tmp_path / 'child.py').write_text(f'{text}train_dataloader = dict(dataset=dict(pipeline=[]))\n')
    cfg = Config.fromfile(tmp_path / 'child.py')
    assert {name for name, _ in idle_variables(cfg)} >= {'max_iters', 'train_pipeline'}
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        check_variables(cfg)
