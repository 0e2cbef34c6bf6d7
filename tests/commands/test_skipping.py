"""What a tool skips, and what it does not."""

import errno

import pytest

from mmrope.commands.skipping import Skips


def test_an_error_is_a_problem_of_its_input_and_the_next_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    skips, done = Skips('tool.py'), []
    for name in ('a', 'b', 'c'):
        with skips.skipping(name):
            if name == 'b':
                raise RuntimeError('no memory')
            done.append(name)
    skips.check(done)
    assert done == ['a', 'c']
    with pytest.raises(SystemExit) as stop:
        skips.report('2 done')
    assert stop.value.code == 'tool.py: 1 skipped, 2 done'
    assert capsys.readouterr().err.startswith('tool.py: skipped: b: RuntimeError: no memory')


def test_nothing_skipped_is_nothing_to_report(capsys: pytest.CaptureFixture[str]) -> None:
    Skips('tool.py').report('3 done')
    assert capsys.readouterr() == ('', '')


@pytest.mark.parametrize('traceback, error', [(True, ValueError('a')), (False, OSError(errno.ENOSPC, 'full'))])
def test_errors_on_demand_and_a_full_disk_pass_through(traceback: bool, error: Exception) -> None:
    with pytest.raises(type(error)), Skips('tool.py', traceback).skipping('a'):
        raise error


def test_ctrl_c_is_no_problem_of_an_input() -> None:
    with pytest.raises(KeyboardInterrupt), Skips('tool.py').skipping('a'):
        raise KeyboardInterrupt


def test_the_error_of_the_only_input_is_raised() -> None:
    skips = Skips('tool.py')
    with skips.skipping('a'):
        raise ValueError('the only one')
    with pytest.raises(ValueError, match='the only one'):
        skips.check([])
