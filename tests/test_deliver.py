"""Deliver: one message per decision, looked at again in the claim, sent until heard, never twice."""

from __future__ import annotations

import msgspec
import pytest
from world import FILES, SECRET, TOML, World, action, at, bodies, clock, moment, project

from hetki.dialogues.retry import JITTER_SHARE, PAUSE_S_MIN, SCHEDULE_S
from hetki.dialogues.webhook import verify
from hetki.engine.deliver import CLAIM_S
from hetki.errors import Forbidden, Unavailable
from hetki.events.event import Event
from hetki.settings import SECOND
from hetki.store.journal import Kind
from hetki.store.ports import Sent

LONG = moment("help", "a: Help Searched where n_results = 0", more="expires: 2 days")
SEARCH = "10:00 web u={} Help Searched n_results=0"
DOWN, BUSY, GONE = (
    Sent(False, 503, "down"),
    Sent(False, 429, "busy", retry_after_s=900),
    Sent(False, 410, "gone"),
)


def waiting(n: int = 1) -> World:
    """A world with unsent messages that may be tried for two days."""
    world = World(project(LONG))
    for number in range(n):
        world.live(SEARCH.format(f"user{number}"))
    assert [line.split(": ")[1] for line in world.outbox()] == ["waiting"] * n
    return world


def told(world: World) -> list[Event]:
    """The engine's own events in the journal."""
    stored = world.engine.journal.read(0, 10_000)
    events = [
        msgspec.msgpack.decode(each.body, type=Event)
        for each in stored
        if each.kind == Kind.EVENT and each.body
    ]
    return [each for each in events if each.source == "hetki"]


def attempts(world: World) -> list[str]:
    rows = world.rows("SELECT n_attempt, attempted_at, ok, status FROM attempts ORDER BY 2, 1")
    return [f"{row[0]} {clock(int(str(row[1])))} {'ok' if row[2] else 'failed'} {row[3]}" for row in rows]


def test_a_message_is_sent_once_and_signed() -> None:
    world = waiting()
    assert world.deliver().n_sent == 1 and world.deliver().n_sent == 0
    world.reopen()
    world.advance()
    assert world.deliver().n_sent == 0
    ((headers, body),) = world.posts
    (record,) = world.records()
    now_s = world.clock.now() // SECOND
    message_id = verify(SECRET, headers, body, now_s)
    (data,) = bodies(world.posts)
    assert data["message_id"] == message_id == world.rows("SELECT message_id FROM outbox")[0][0]
    assert (data["decision_id"], data["recipient"], data["body"]) == (
        record.decision_id,
        "user0",
        "Hello, call.",
    )
    assert headers["content-type"] == "application/json"
    with pytest.raises(Forbidden):
        verify(SECRET, headers, body.replace(b"user0", b"user1"), now_s)
    assert attempts(world) == ["1 10:00 ok 200"] and world.outbox() == ["10:00 call to user0: sent"]


def test_a_sent_message_comes_back_as_one_event_of_its_customer() -> None:
    world = waiting()
    world.deliver()
    world.advance()
    (event,) = told(world)
    assert (event.name, event.identifiers) == ("Message Sent", {"user_id": "user0"})
    properties = msgspec.json.decode(event.properties)
    assert properties["decision_id"] == world.records()[0].decision_id
    assert (properties["action"], properties["channel"], properties["moment"]) == ("call", "app", "help")
    assert world.customers() == ["user0"]
    world.assert_rebuilds()


def test_a_moment_may_wait_for_the_message_of_another() -> None:
    after = moment(
        "after", "m: Message Sent where action = 'call' | no a: Order Tracked, for 5 minutes", "note"
    )
    world = World(project(LONG | after | action("note")))
    world.live(SEARCH.format("anna"))
    world.deliver()
    world.until("10:06")
    assert world.occurrences("after") == ["10:05 after anna: 10:00"]


def test_failures_are_tried_again_after_the_schedule() -> None:
    world = waiting()
    world.answers = [DOWN, Sent(False, 0, "no answer"), Sent(True, 200)]
    assert world.deliver().n_waiting == 1
    first = world.clock.now()
    for n, wait_s in enumerate(SCHEDULE_S[:2]):
        (due_at,) = world.rows("SELECT due_at FROM outbox")[0]
        assert isinstance(due_at, int)
        assert wait_s <= (due_at - first) / SECOND <= wait_s * (1 + JITTER_SHARE)
        world.clock.move(due_at - 1)
        assert world.deliver().n_sent == 0 and len(attempts(world)) == n + 1, "not before it is due"
        world.clock.move(due_at)
        first = due_at
        world.deliver()
    assert [line.split()[2:] for line in attempts(world)] == [
        ["failed", "503"],
        ["failed", "0"],
        ["ok", "200"],
    ]
    assert len({headers["webhook-id"] for headers, _ in world.posts}) == 1, "every attempt has the same id"
    assert len({body for _, body in world.posts}) == 1
    world.advance()
    assert [each.name for each in told(world)] == ["Message Sent"]


def test_a_destination_may_ask_for_patience() -> None:
    world = waiting()
    world.answers = [BUSY]
    world.deliver()
    assert world.outbox()[0].startswith("10:15 call"), "a quarter of an hour, as it asked"


def test_a_permanent_refusal_ends_it_and_is_told() -> None:
    world = waiting()
    world.answers = [GONE]
    assert world.deliver().n_failed == 1
    assert world.outbox()[0].endswith("failed gone")
    world.advance()
    world.until("23:00")
    assert world.deliver().n_sent == 0 and len(world.posts) == 1
    assert [each.name for each in told(world)] == ["Message Failed"]


def test_a_message_is_given_up_when_its_next_attempt_would_be_too_late() -> None:
    world = World(project(moment("help", "a: Help Searched", more="expires: 2 minutes")))
    world.live(SEARCH.format("anna"))
    world.answers = [DOWN] * 9
    world.deliver()
    world.clock.sleep(7)
    assert world.deliver().n_failed == 1
    assert "expired" in world.outbox()[0] and len(world.posts) == 2
    world.advance()
    assert [each.name for each in told(world)] == ["Message Failed"]


def test_a_message_that_expired_while_it_waited_is_not_sent() -> None:
    world = waiting()
    world.until("3/10:00")
    (expires_at,) = world.rows("SELECT expires_at FROM outbox")[0]
    assert expires_at == at("3/10:00") == world.clock.now()
    world.clock.sleep(0.000001)
    assert world.deliver().n_cancelled == 1 and world.posts == []
    assert world.outbox() == ["10:00 call to user0: expired expired"]


def test_a_breaker_opens_probes_and_closes() -> None:
    world = waiting(9)
    world.answers = [DOWN] * 6
    world.deliver()
    assert len(world.posts) == 5, "five failures in a row are enough"
    world.deliver()
    assert len(world.posts) == 5
    world.clock.sleep(PAUSE_S_MIN)
    world.deliver()
    assert len(world.posts) == 6, "one message tries"
    world.clock.sleep(PAUSE_S_MIN)
    world.deliver()
    assert len(world.posts) == 6, "and fails: the pause is longer now"
    world.clock.sleep(PAUSE_S_MIN)
    world.reopen()
    assert world.deliver().n_sent >= 4, "it works again, and all that is due goes out"
    world.clock.sleep(3600)
    world.deliver()
    assert [line.split(": ")[1] for line in world.outbox()] == ["sent"] * 9


def test_a_permanent_refusal_does_not_open_the_breaker() -> None:
    world = waiting(8)
    world.answers = [GONE] * 7
    world.deliver()
    assert len(world.posts) == 8
    assert sorted(line.split(": ")[1] for line in world.outbox()) == ["failed gone"] * 7 + ["sent"]


def test_one_destination_that_is_down_does_not_hold_up_another() -> None:
    seen = moment("seen", "a: Order Tracked", "letter", more="expires: 2 days")
    world = World(project(LONG | seen | action("letter", destination="mail")))
    world.live("09:00 web u=anna mail=anna@kauppa.fi Customer Identified email=anna@kauppa.fi")
    for hour in ("10:00", "10:01", "10:02", "10:03", "10:04", "10:05"):
        world.live(f"{hour} web u=anna Help Searched n_results=0\n{hour} web u=anna Order Tracked")
    world.answers = [DOWN] * 5
    world.deliver("app")
    assert world.deliver("app").n_sent == 0
    assert world.deliver("mail").n_sent == 6
    (recipient, letter), *_ = world.mails
    assert recipient == "anna@kauppa.fi" and b"Subject: letter" in letter and b"Hello, letter." in letter


def test_a_crash_between_sending_and_the_receipt_sends_again_under_the_same_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = waiting()
    with monkeypatch.context() as patch:
        patch.setattr(type(world.engine.acceptor), "accept", _crash)
        with pytest.raises(ZeroDivisionError):
            world.deliver()
    assert [line.split(": ")[1] for line in world.outbox()] == ["claimed"]
    world.reopen()
    world.advance()
    assert world.deliver().n_sent == 0, "someone may still be sending it"
    world.clock.sleep(CLAIM_S)
    world.advance()
    assert world.deliver().n_sent == 1
    (one, _), (other, _) = world.posts
    assert one["webhook-id"] == other["webhook-id"]
    world.advance()
    assert [each.name for each in told(world)] == ["Message Sent"]


def _crash(*given: object) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(("answer", "status"), [(GONE, "failed"), (Sent(True, 200), "sent")])
@pytest.mark.parametrize("is_folded", [False, True])
def test_what_was_told_before_a_crash_is_the_receipt(
    monkeypatch: pytest.MonkeyPatch, answer: Sent, status: str, is_folded: bool
) -> None:
    """Else one message could be told to have failed, and then to have been sent."""
    world = waiting()
    world.answers = [answer]
    with monkeypatch.context() as patch:
        patch.setattr(type(world.engine.ledger), "add_attempt", _crash)
        with pytest.raises(ZeroDivisionError):
            world.deliver()
    world.reopen()
    if is_folded:
        world.advance()
    world.clock.sleep(CLAIM_S)
    assert world.deliver().n_sent == 0 and len(world.posts) == 1
    ((_, detail),) = world.rows("SELECT status, detail FROM outbox WHERE status = ?", status)
    assert detail == ("" if status == "sent" else "as it was told; the receipt was lost")
    assert attempts(world) == [f"1 10:00 {'ok' if status == 'sent' else 'failed'} 0"]
    world.advance()
    assert [each.name for each in told(world)] == [f"Message {status.title()}"]


def test_what_was_retracted_after_a_crash_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.live("10:00 web u=anna Help Searched n_results=0")
    world.until("10:12")
    with monkeypatch.context() as patch:
        patch.setattr(type(world.engine.acceptor), "accept", _crash)
        with pytest.raises(ZeroDivisionError):
            world.deliver()
    world.reopen()
    world.live("10:05>10:13 web u=anna Chat Started")
    assert world.revisions() == ["retracted help: late event; decided: call, message is claimed"]
    world.clock.sleep(CLAIM_S)
    assert world.deliver().n_cancelled == 1 and len(world.posts) == 1
    ((status, detail),) = world.rows("SELECT status, detail FROM outbox")
    assert (status, detail) == ("cancelled", "retracted; an attempt without a receipt may have gone out")


def test_what_is_retracted_while_an_attempt_fails_is_not_tried_again() -> None:
    world = World()
    world.live("10:00 web u=anna Help Searched n_results=0")
    world.until("10:12")

    def posted(url: str, headers: dict[str, str], body: bytes) -> Sent:
        world.live("10:05>10:13 web u=anna Chat Started")
        return DOWN

    world.net._post = posted
    assert world.deliver().n_waiting == 1
    world.clock.sleep(CLAIM_S)
    assert world.deliver().n_cancelled == 1 and world.net.n_posts == 1
    assert world.outbox()[0].endswith("cancelled retracted")


def test_two_workers_do_not_send_one_message_twice() -> None:
    one = waiting(5)
    other = World(one.engine.project, disk=one.disk, starts="10:00")
    claimed: list[str] = []

    def posted(url: str, headers: dict[str, str], body: bytes) -> Sent:
        claimed.append(headers["webhook-id"])
        if len(claimed) == 1:
            other.deliver()  # while the first is under way, the other worker looks for work
        return Sent(True, 200)

    one.net._post = posted
    one.deliver()
    other_ids = [headers["webhook-id"] for headers, _ in other.posts]
    assert len(claimed) == 1 and len(other_ids) == 4 and len({*claimed, *other_ids}) == 5


def test_a_secret_that_is_not_set_yet_waits() -> None:
    toml = TOML.replace(SECRET, "env:APP_SECRET")
    world = World(project(LONG | {"hetki.toml": toml}))
    world.live(SEARCH.format("anna"))
    assert world.deliver().n_waiting == 1 and world.posts == []
    assert "APP_SECRET" in world.outbox()[0] and "waiting" in world.outbox()[0]
    world.environment["APP_SECRET"] = SECRET
    world.clock.sleep(10)
    assert world.deliver().n_sent == 1


def test_a_purpose_that_is_no_longer_declared_closes_its_messages() -> None:
    world = waiting()
    renamed = {
        name: text.replace("purpose: service", "purpose: helping").replace("service", "helping")
        for name, text in {**FILES, **LONG}.items()
    }
    world.reopen(project(renamed))
    world.advance()
    assert world.deliver().n_cancelled == 1 and world.posts == []
    assert world.outbox() == ["10:00 call to user0: cancelled purpose service is no longer declared"]


def test_the_recipient_is_who_acted_not_whom_an_alias_mentioned() -> None:
    world = World(project(LONG))
    world.live("09:00 web a=0-first Page Viewed\n09:01 web u=zoe p=0-first Customer Aliased")
    world.live(SEARCH.format("zoe"))
    world.deliver()
    assert [each["recipient"] for each in bodies(world.posts)] == ["zoe"]
    world.advance()
    assert told(world)[0].identifiers == {"user_id": "zoe"}


def test_after_an_unmerge_nothing_goes_to_the_wrong_one() -> None:
    for names in (("anna", "bertta"), ("bertta", "anna")):
        world = World(project(LONG))
        world.live("09:00 web u=anna Page Viewed\n09:00 web u=bertta Page Viewed")
        world.merge("anna", "bertta")
        world.live(SEARCH.format(names[0]))
        (line,) = world.outbox()
        world.unmerge()
        world.advance()
        assert world.occurrences() == [f"10:00 help {names[0]}: 10:00"]
        delivered = world.deliver()
        if f"to {names[0]}:" in line:
            assert delivered.n_sent == 1
        else:
            assert delivered.n_cancelled == 1 and world.posts == []
            assert world.outbox()[0].endswith("cancelled the recipient is no longer this customer's")


def test_after_an_unmerge_each_ones_own_refusal_counts_in_the_claim() -> None:
    for refused in ("anna", "bertta"):
        world = World(project(LONG))
        world.live("09:00 web u=anna Page Viewed\n09:00 web u=bertta Page Viewed")
        world.merge("anna", "bertta")
        world.live(SEARCH.format("anna"))
        world.unmerge()
        world.live(f"10:05 web u={refused} Consent Refused purpose=service")
        assert world.deliver().n_sent == (0 if refused == "anna" else 1)


def test_nothing_is_sent_while_the_store_cannot_be_written() -> None:
    world = waiting()
    world.engine.db.execute("PRAGMA query_only = ON")
    with pytest.raises(Unavailable):
        world.deliver()
    assert world.posts == []
    world.engine.db.execute("PRAGMA query_only = OFF")
    assert world.deliver().n_sent == 1
