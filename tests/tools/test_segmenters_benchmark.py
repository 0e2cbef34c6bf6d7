"""The comparison of whole segmenters counts and times each, and writes ratios to the first."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / 'benchmarks/segmenters.py'


@pytest.mark.slow
def test_each_segmenter_is_timed_in_turns(tmp_path: Path) -> None:
    configs = ['eomt_rope_mixed_vit_tiny_digits', 'upernet_rope_mixed_vit_tiny_digits']
    out = tmp_path / 'out.json'
    options = ['--size', '32', '--rounds', '2', '--out', str(out)]
    subprocess.run([sys.executable, str(SCRIPT), '--configs', *configs, *options], check=True)
    written = json.loads(out.read_text())
    assert [row['config'] for row in written['rows']] == configs and written['batch'] == 2
    first, second = written['rows']
    assert first['ratios'] == {'inference': 1.0, 'training': 1.0}
    for mode in ('inference', 'training'):
        assert second['ratios'][mode] == pytest.approx(second['seconds'][mode] / first['seconds'][mode])
        assert all(len(row['rounds'][mode]) == 2 and row['flops'] > 0 for row in written['rows'])
        assert all(row['memory'][mode] >= 0 for row in written['rows'])
    assert first['parameters'] == 521_676
