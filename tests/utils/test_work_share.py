"""Shares of a piece of work: together they are the whole, each once."""

from hypothesis import given
from hypothesis import strategies as st

from utils.work_share import WHOLE, WorkShare


@given(num_rows=st.integers(0, 3000), count=st.integers(1, 9), unit=st.integers(1, 300))
def test_shares_are_the_whole_and_equal_but_for_a_unit(num_rows, count, unit):
    shares = [WorkShare(index, count).rows(num_rows, unit) for index in range(count)]
    assert [row for share in shares for row in share] == list(range(num_rows))
    assert all(share.start % unit == 0 for share in shares if share)
    assert max(map(len, shares)) - min(map(len, shares)) < 2 * unit


def test_one_process_has_everything():
    assert WHOLE.rows(7, 4) == range(7)
    assert WHOLE.gather("x") == ["x"]
