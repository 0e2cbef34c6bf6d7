"""Parts of the predictor: classes that it takes from a config, and errors that it keeps."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import FUNCTIONS

from mmrope.commands.errors import CommandError
from mmrope.commands.prediction import Predictor, _quiet, metainfo_of


def config_of(scope: str, **dataset: Any) -> Config:
    return Config(dict(default_scope=scope, test_dataloader=dict(dataset=dataset)))


def test_classes_are_a_list_a_file_or_folders(tmp_path: Path) -> None:
    names = tmp_path / 'classes.txt'
    names.write_text('cat\ndog\n')
    for name in ('ant', 'bee', 'cow'):
        (tmp_path / 'images' / name).mkdir(parents=True)
    listed = dict(classes=('cat', 'dog'), palette=[(1, 2, 3), (4, 5, 6)])
    assert metainfo_of(config_of('mmdet', type='CocoDataset', metainfo=listed)) == listed
    for scope, dataset in (
        ('mmdet', dict(type='CocoDataset', metainfo=dict(classes=str(names)))),
        ('mmpretrain', dict(type='CustomDataset', data_root='', classes=str(names))),
    ):
        found = metainfo_of(config_of(scope, **dataset))
        assert (found['classes'], len(found['palette'])) == (['cat', 'dog'], 2)
    folders = dict(type='CustomDataset', data_root=str(tmp_path), data_prefix='images')
    assert metainfo_of(config_of('mmpretrain', **folders))['classes'] == ['ant', 'bee', 'cow']


def test_a_class_that_is_no_list_is_refused() -> None:
    cfg = config_of('mmdet', type='CocoDataset', metainfo=dict(classes='cat'))
    with pytest.raises(CommandError, match=r"test_dataloader.*classes 'cat'"):
        metainfo_of(cfg)


def test_an_error_from_elsewhere_has_its_class_and_names_no_option_of_a_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(self: Predictor, arrays: list[np.ndarray]) -> None:
        raise RuntimeError('no')

    monkeypatch.setattr(Predictor, '_predict', fail)
    predictor = Predictor.__new__(Predictor)
    with pytest.warns(UserWarning, match='image 1 is not predicted: RuntimeError: no$'):
        predictions = predictor([np.zeros((4, 4, 3), np.uint8)] * 2)
    assert [prediction.error for prediction in predictions] == ['RuntimeError: no'] * 2


def test_a_warning_that_a_host_has_no_registry_of_functions_is_left_out() -> None:
    logger, seen = MMLogger.get_current_instance(), []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: seen.append(record.getMessage().partition(' with')[0])
    logger.addHandler(handler)
    try:
        with _quiet(), FUNCTIONS.switch_scope_and_registry('mmdet'):
            logger.warning('another')
        with FUNCTIONS.switch_scope_and_registry('mmdet'):
            pass
    finally:
        logger.removeHandler(handler)
    assert seen == ['another', 'Failed to search registry']
