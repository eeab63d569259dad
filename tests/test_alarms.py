from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facerelay import alarms, reasons
from facerelay.alarms import Alarm, Report, find
from facerelay.messages import Account, Ledger, LinkHealth
from facerelay.verdict import judge

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def report(
    account: Account | None = None,
    *,
    heard: float | None = 5,
    lately: Account | None = None,
    outbox: str = "a" * 32,
    **link: Any,  # noqa: ANN401 - any of a link's figures
) -> Report:
    """Return the report of a site with one camera, `heard` so many seconds ago; None: of this machine."""
    health = LinkHealth.model_validate({"time": ago(heard or 5), **link})
    books = Ledger(outbox=outbox, cameras={"home/door": account or Account()}, link=health)
    recent = None if lately is None else {"home/door": lately}
    return Report("home", books, None if heard is None else ago(heard), recent)


def kinds(*reports: Report, **more: dict[str, int]) -> list[str]:
    return [alarm.kind for alarm in find(reports, now=NOW, lost=more.get("lost"))]


def only(*reports: Report) -> Alarm:
    (alarm,) = find(reports, now=NOW)
    return alarm


WELL = Account(captured=9, stored=7, erased=1, waiting=1, frames=900)


def test_all_is_well() -> None:
    found = find([report(WELL)], now=NOW)
    assert not found
    assert judge([report(WELL)], found) == ("good", "Nothing is lost, late or dark.")


def test_nothing_is_known_of_nothing() -> None:
    assert judge([], find([], now=NOW)).level == "unknown"


def test_dropped_faces_are_told_with_their_reason_and_cleared_when_they_are_long_ago() -> None:
    account = Account(
        captured=9, dropped=3, stored=6, reasons={"evicted": 2, "damaged": 1, "gate-small": 99, "still": 7}
    )
    alarm = only(report(account))
    assert (alarm.kind, alarm.severity, alarm.site, alarm.camera) == ("dropped", "critical", "home", "door")
    assert alarm.words == (
        "3 faces of home/door dropped so far, never to be seen: 2 gave way in a full outbox (the least"
        " valuable go first); 1 damaged on the edge's disk. See why nothing went up (link, brokers, store),"
        " or raise outbox.max_bytes."
    )
    assert not kinds(report(account, lately=Account(captured=1, stored=1)))
    lately = only(report(account, lately=Account(captured=1, dropped=1, reasons={"expired": 1})))
    assert "1 face of home/door dropped in the last day" in lately.words
    assert judge([report(account)], [alarm]) == (
        "critical", "Faces of home/door were lost; nothing is late; nothing is dark.",
    )  # fmt: skip


def test_refused_faces_are_safe_and_to_be_known_of() -> None:
    alarm = only(report(Account(captured=1, refused=1, reasons={"conflict": 1})))
    assert (alarm.kind, alarm.severity) == ("refused", "warning")
    assert "parked at the edge" in alarm.words
    assert "who else writes into this bucket" in alarm.words


def test_books_that_do_not_close_are_a_fault_of_ours() -> None:
    assert only(report(Account(captured=5, stored=4))).kind == "books"


def test_a_camera_that_is_gone_now() -> None:
    alarm = only(report(Account(dark_since=ago(3600 * 3), gaps=1)))
    assert (alarm.kind, alarm.severity, alarm.since) == ("dark", "critical", ago(3600 * 3))
    assert "since 2026-11-21 05:00 UTC (3 hours ago)" in alarm.words
    assert not kinds(report(Account(gaps=4, dark_s=600)))


@pytest.mark.parametrize(
    ("link", "kind", "severity", "words"),
    [
        ({"silent_s": 40}, "unanswered", "critical", "no receipt since 2026-11-21 07:59 UTC"),
        ({"silent_s": 400, "resets": 2}, "stuck", "critical", "made anew 2 times, in vain"),
        ({"oldest_s": 121}, "late", "warning", "Nothing is lost"),
        ({"broker_dropped": 5}, "broker-dropped", "warning", "max_queued_messages"),
        ({"time": ago(600)}, "clock", "warning", "595 s behind"),
        ({"time": NOW + timedelta(days=1)}, "clock", "warning", "s ahead"),
    ],
)
def test_a_link_that_ails(link: dict[str, Any], kind: str, severity: str, words: str) -> None:
    alarm = only(report(WELL, **link))
    assert (alarm.kind, alarm.severity) == (kind, severity)
    assert words in alarm.words


@pytest.mark.parametrize("link", [{"oldest_s": 119}, {"resets": 3}, {"broker_dropped": 0}, {"cuts": 9}])
def test_a_link_that_is_well(link: dict[str, Any]) -> None:
    assert not kinds(report(WELL, **link))


def test_an_edge_that_is_not_heard_says_nothing_else_of_now() -> None:
    silent = report(Account(captured=2, waiting=2, dark_since=ago(300)), heard=61, oldest_s=500, silent_s=400)
    alarm = only(silent)
    assert (alarm.kind, alarm.severity, alarm.since) == ("silent", "critical", ago(61))
    assert judge([silent], [alarm]).words == "Nothing is lost; home is not heard; nothing is dark."
    assert "2 faces waited there" in alarm.words
    assert not kinds(report(WELL, heard=59))
    assert "retired" in only(report(WELL, heard=86_400 * 3)).words


def test_capture_on_this_machine_that_does_not_run() -> None:
    assert not kinds(report(WELL, heard=None))
    stopped = report(WELL, heard=None, time=ago(100))
    assert "Capture at home has not run since" in only(stopped).words


def test_pictures_sent_by_hand_leave_no_edge_behind_that_is_missed() -> None:
    sent = Account(captured=1, stored=1)
    assert not kinds(report(sent, heard=3600, brief=True, broker_dropped=3))
    waits = only(report(Account(captured=1, waiting=1), heard=3600, brief=True))
    assert "1 face waited there" in waits.words


def test_an_edge_of_an_old_version_is_not_missed() -> None:
    books = Ledger(outbox="a" * 32, cameras={"home/door": WELL})
    assert not kinds(Report("home", books, ago(86_400)))


def test_an_outbox_whose_cameras_another_tells_of_is_not_missed() -> None:
    done = Account(captured=9, stored=9, dark_since=ago(7200))
    old, new = report(done, heard=3600, oldest_s=500), report(WELL, outbox="b" * 32)
    assert not kinds(old, new)
    assert kinds(old, new._replace(site="yard")) == ["silent"]
    assert kinds(old, report(WELL, outbox="b" * 32, heard=3600)) == ["silent", "silent"]
    silent = only(old, report(WELL, outbox="b" * 32, heard=90))
    assert (silent.kind, silent.outbox) == ("silent", "b" * 32)


@pytest.mark.parametrize(("heard", "severity"), [(3600, "critical"), (86_401, "warning")])
def test_faces_that_waited_in_an_outbox_whose_place_another_took_are_missed(
    heard: float, severity: str
) -> None:
    old, new = report(Account(captured=9, stored=6, waiting=3), heard=heard), report(outbox="b" * 32)
    alarm = only(old, new)
    assert (alarm.kind, alarm.severity, alarm.outbox, alarm.since) == (
        "silent",
        severity,
        "a" * 32,
        ago(heard),
    )
    assert "3 faces waited in outbox aaaaaaaa of home" in alarm.words


def test_a_camera_of_two_outboxes_that_are_heard_may_be_dark_and_what_both_say_is_said_once() -> None:
    dark = Account(dark_since=ago(600))
    assert kinds(report(dark), report(dark, outbox="b" * 32)) == ["dark"]
    lost = Account(dropped=5, reasons={"evicted": 5})
    assert kinds(report(lately=lost), report(lately=lost, outbox="b" * 32)) == ["dropped"]


def test_of_faces_that_go_without_receipts_nobody_says_that_none_is_lost() -> None:
    sent = Account(captured=9, sent=9)
    assert judge([report(sent)], []) == (
        "unknown",
        "Nothing is late or dark. Faces of home go without receipts: whether they came is not known.",
    )
    late = [report(sent, oldest_s=300)]
    assert judge(late, find(late, now=NOW)) == (
        "warning",
        "Faces of home go without receipts, whether they came is not known; home is late; nothing is dark.",
    )  # fmt: skip
    assert judge([report(sent, lately=Account(captured=1, stored=1))], []).level == "good"


def test_what_an_audit_has_found() -> None:
    assert kinds(report(WELL), lost={"home/door": 2, "home/yard": 0}) == ["lost"]
    books = report(WELL).books.model_copy(update={"lost": 1})
    assert (
        "1 face of home ought to be in the bucket and is not"
        in only(report(WELL)._replace(books=books)).words
    )


def test_critical_ones_come_first_and_one_sentence_says_it_all() -> None:
    dropped = Account(captured=1, dropped=1, dark_since=ago(60), reasons={"evicted": 1})
    reports = [report(dropped, oldest_s=300, broker_dropped=1)]
    found = find(reports, now=NOW)
    assert [alarm.kind for alarm in found] == ["dark", "dropped", "broker-dropped", "late"]
    assert judge(reports, found) == (
        "critical", "Faces of home/door were lost; home is late; home/door is dark; and 1 more to know of.",
    )  # fmt: skip


@given(
    st.datetimes(timezones=st.just(UTC)),
    st.floats(0, 2**53),
    st.datetimes(timezones=st.just(UTC)),
    st.dictionaries(st.from_regex(r"\A[a-z0-9-]{1,40}\Z"), st.integers(0, 2**53), max_size=5),
)
def test_an_edge_may_say_what_it_likes(
    time: datetime, seconds: float, dark: datetime, why: dict[str, int]
) -> None:
    account = Account(captured=2**53, dropped=2**53, refused=1, dark_since=dark, reasons=why)
    ill = report(account, time=time, silent_s=seconds, oldest_s=seconds)
    for heard in (ago(5), ago(90), None):
        for alarm in find([ill._replace(heard=heard)], now=NOW):
            assert alarm.words.isprintable()


def test_every_reason_is_said_in_words() -> None:
    for reason in reasons.KNOWN.values():
        assert reason.words
        assert bool(reason.todo) or reason.column == "unsent"
    assert reasons.explain("something-new") == (
        "refused",
        "for another reason (something-new)",
        "See the store's log.",
    )
    assert reasons.explain("gate-new").column == reasons.explain("posted-large").column == "unsent"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 seconds"), (119, "119 seconds"), (120, "2 minutes"), (7200, "2 hours"), (-9, "0 seconds")],
)
def test_how_long_ago_for_people(seconds: float, said: str) -> None:
    assert alarms.age(ago(seconds), NOW) == said
