"""A file is taken when it has been quiet and reads the same twice."""

from __future__ import annotations

import pytest

from kube_nginx_agent.intake.settle import QUIET, QUIET_WHILE_OPEN, Settler


def test_untouched_file_is_not_looked_at() -> None:
    assert Settler().due is None


def test_touched_file_is_looked_at_once_it_was_quiet() -> None:
    settler = Settler()

    settler.touch(10.0)

    assert settler.due == 10.0 + QUIET


def test_file_that_is_open_for_writing_is_given_longer() -> None:
    settler = Settler()

    settler.touch(10.0, being_written=True)

    assert settler.due == 10.0 + QUIET_WHILE_OPEN


def test_closing_the_file_ends_the_longer_wait() -> None:
    settler = Settler()
    settler.touch(10.0, being_written=True)

    settler.touch(10.1)

    assert settler.due == pytest.approx(10.1 + QUIET)


def test_each_touch_of_a_burst_puts_the_look_off() -> None:
    settler = Settler()

    for number in range(1000):
        settler.touch(10.0 + number / 500)

    assert settler.due == pytest.approx(11.998 + QUIET)


def test_content_seen_once_has_not_settled() -> None:
    settler = Settler()

    assert not settler.look(10.0, "half")
    assert settler.due == 10.0 + QUIET


def test_content_seen_twice_in_a_row_has_settled() -> None:
    settler = Settler()
    settler.look(10.0, "whole")

    assert settler.look(10.1, "whole")
    assert settler.due is None


def test_content_that_grew_between_two_looks_has_not_settled() -> None:
    settler = Settler()
    settler.look(10.0, "half")

    assert not settler.look(10.1, "whole")
    assert settler.look(10.2, "whole")


def test_content_that_goes_back_and_forth_does_not_settle() -> None:
    settler = Settler()

    looks = [settler.look(10.0 + number, "ab"[number % 2]) for number in range(6)]

    assert not any(looks)
