"""The model zoo is what its generator makes of configs, known weights and measurements, and cites a source for each."""

import pytest
import yaml

from tests.helpers.tiny import ROOT, load_tool

METAFILE = yaml.safe_load((ROOT / 'configs' / 'metafile.yml').read_text())


def test_the_page_is_what_its_generator_makes() -> None:
    load_tool('make_model_zoo', 'docs').main(['--check'])


@pytest.mark.parametrize('key', ['Published', 'Results'])
@pytest.mark.parametrize('changes', [{'Source': None}, {'Config': 'dino_rope_mixed_vit_x'}, {}])
def test_a_measurement_needs_a_config_once_and_a_source(key: str, changes: dict[str, str | None]) -> None:
    tool = load_tool('make_model_zoo', 'docs')
    rows = [*METAFILE[key], METAFILE[key][0]] if not changes else [METAFILE[key][0] | changes]
    configs = [row['Config'] for row in METAFILE[key]]
    with pytest.raises(ValueError, match=f'{key}.*{rows[-1]["Config"]}'):
        tool.read_measurements({'Published': [], 'Results': [], key: rows}, configs)


def test_only_the_digits_have_been_trained_and_reach_what_their_pages_say() -> None:
    results = {row['Config']: row['Metrics'] for row in METAFILE['Results']}
    digits = {path.stem for path in (ROOT / 'configs').glob('*_tiny_digits.py')}
    assert set(results) == digits
    eomt = results['eomt_rope_mixed_vit_tiny_digits']['mIoU'] / 100
    assert f'EoMT\nreached {eomt:.3f}.' in (ROOT / 'docs' / 'eomt.md').read_text()
    page = (ROOT / 'docs' / 'quickstart.md').read_text()
    for backbone in ('vit', 'swin'):
        box, mask = (value / 100 for value in results[f'mask_rcnn_rope_mixed_{backbone}_tiny_digits'].values())
        assert f'{box:.3f} box mAP, {mask:.3f} mask mAP' in page
        assert f'{results[f"upernet_rope_mixed_{backbone}_tiny_digits"]["mIoU"] / 100:.3f} mIoU' in page
