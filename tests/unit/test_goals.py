"""What the administrator wants, and what health says laid over it."""

from __future__ import annotations

from datetime import timedelta

from kube_nginx_agent.desired import ALL_WELL, HealthView
from kube_nginx_agent.intake.intake import Wish
from kube_nginx_agent.loop.goals import Base, make_base, make_goal, wanted_listen
from unit.making import NODE, PATHS, address, config_of, ips

THREE = "backends: [10.0.0.1, 10.0.0.2, 10.0.0.3]\n"
ONE_OUT = HealthView(out=frozenset({address("10.0.0.2:6443")}))


def wish(text: str) -> Wish:
    return Wish(text.encode(), config_of(text))


def base(text: str = THREE, names: dict[str, list[str]] | None = None) -> Base:
    wanted = wish(text)
    resolved = {name: ips(texts) for name, texts in (names or {}).items()}
    return make_base(wanted, resolved, NODE, wanted_listen(wanted, NODE))


def test_health_is_laid_over_any_list() -> None:
    for live in (base(), None):
        goal = make_goal(base(), ONE_OUT, PATHS, live=live)
        down = [str(server.address) for server in goal.desired.servers if server.down]
        assert down == ["10.0.0.2:6443"]


def test_list_that_is_not_live_is_one_goal_whatever_its_backends_do() -> None:
    well = make_goal(base(), ALL_WELL, PATHS, live=None)
    ill = make_goal(base(), ONE_OUT, PATHS, live=None)

    assert well.key == ill.key
    assert not ill.may_wait


def test_each_change_of_health_of_the_live_list_is_a_goal_of_its_own_that_may_wait() -> None:
    well = make_goal(base(), ALL_WELL, PATHS, live=base())
    ill = make_goal(base(), ONE_OUT, PATHS, live=base())

    assert well.key != ill.key
    assert ill.may_wait


def test_comment_makes_no_other_list() -> None:
    assert base().if_all_well == base(THREE + "# a comment\n").if_all_well


def test_answer_of_dns_makes_another_list() -> None:
    text = "backends: [api.example.com]\n"
    one = base(text, {"api.example.com": ["10.0.0.1"], "other.example.com": ["10.9.9.9"]})
    two = base(text, {"api.example.com": ["10.0.0.1", "10.0.0.2"]})

    assert one.wish == two.wish
    assert one.if_all_well != two.if_all_well
    assert one.addresses == (("api.example.com", tuple(ips(["10.0.0.1"]))),)


def test_backends_are_those_of_all_servers() -> None:
    assert base().backends == {address(f"10.0.0.{n}:6443") for n in (1, 2, 3)}


def test_health_changes_nothing_but_the_servers_and_the_time_limits() -> None:
    slow = HealthView(connect_timeout=timedelta(seconds=1))

    goal = make_goal(base(), slow, PATHS, live=base())

    assert goal.desired.listen == base().listen
    assert goal.desired.connect_timeout == timedelta(seconds=1)


def test_nginx_leaves_out_nobody_by_itself_on_a_far_link_or_while_none_passes() -> None:
    far = HealthView(connect_timeout=timedelta(milliseconds=500))
    none = HealthView(none_passes=True)

    counts = [
        {server.max_fails for server in make_goal(base(), view, PATHS, live=None).desired.servers}
        for view in (ALL_WELL, ONE_OUT, far, none)
    ]

    assert counts == [{2}, {2}, {0}, {0}]


def test_change_that_dns_makes_may_wait_for_room_and_an_edit_may_not() -> None:
    text = "backends: [api.example.com]\n"
    live = base(text, {"api.example.com": ["10.0.0.1"]})
    answer = base(text, {"api.example.com": ["10.0.0.1", "10.0.0.2"]})
    edit = base(text + "proxy: {idle_timeout: 20m}\n", {"api.example.com": ["10.0.0.1"]})

    assert make_goal(answer, ALL_WELL, PATHS, live=live).may_wait
    assert not make_goal(edit, ALL_WELL, PATHS, live=live).may_wait
