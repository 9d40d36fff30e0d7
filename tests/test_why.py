"""Why a moment was caught, and why it was not: in words, for each way in which a try ends."""

from __future__ import annotations

from world import World, moment, project

from hetki.dialogues.tracing import why_words
from hetki.engine.telling import why_moment
from hetki.events.event import LeafId


def asked(world: World, name: str, who: str = "anna") -> list[str]:
    """What `hetki explain --moment NAME --customer anna` prints, without the moment's sentence."""
    customers = world.engine.state.customers_of([world.node(who)])
    customer = LeafId(bytes(customers[world.node(who)]))  # type: ignore[index]
    told = why_moment(world.engine, customer, name)
    words = why_words(told, world.engine.project.moments[name], {}, "UTC")
    assert words[0] == f"'{name}' ({name})" and words[1].startswith("  For a")
    return [line.replace("Mon 2 Mar 2026, ", "") for line in words[3:]]


def test_a_caught_occurrence_and_a_broken_silence() -> None:
    world = World()
    world.live(
        """
        10:00 web u=anna Help Searched n_results=0
        11:00 web u=anna Help Searched n_results=0
        11:05 web u=anna Chat Started
        """
    )
    world.until("12:00")
    assert asked(world, "help") == lines_of(
        """
        It listens to 3 events of this customer.
        It was caught once, of 2 starts.

        Started 11:00:00
          11:00:00  searched: Help Searched
          ended, seen at 11:05:00: Chat Started came, and chat asks for none

        Started 10:00:00
          10:00:00  searched: Help Searched
          10:10:00  caught
        """
    )


def test_a_try_of_several_rounds_that_were_all_told_before_is_repeated() -> None:
    waiting = moment(
        "waiting", "a: Chat Started | b: STEP", more="within: 1 minute\nrepeat: once per a.order_id"
    )
    group = '{"b": "STEP"}', '{again: [{"no b": "Chat Ended, for 1 minute"}]}'
    world = World(project({name: text.replace(*group) for name, text in waiting.items()}))
    world.tell("10:00 web u=anna Chat Started order_id=o1\n10:10 web u=anna Chat Started order_id=o1")
    world.until("12:00")
    customers = [LeafId(each[0]) for each in world.rows("SELECT customer FROM customers")]  # type: ignore[arg-type]
    found = why_moment(world.engine, customers[0], "waiting")
    assert len(found.occurrences) == 1
    assert [each.end for each in found.tries] == ["caught", "repeated"]


def test_a_condition_that_was_not_true_says_what_was() -> None:
    world = World()
    world.live("10:00 web u=anna Help Searched n_results=3\n10:01 web u=anna Help Searched")
    assert asked(world, "help") == lines_of(
        """
        It listens to 2 events of this customer.
        It was never caught, of 0 starts.

        2 events did not open a try; the newest:
          10:01:00  Help Searched for searched: must be that number of results is 0, but number of results was missing
          10:00:00  Help Searched for searched: must be that number of results is 0, but number of results was 3
        """  # noqa: E501
    )


def test_a_try_that_is_open_says_what_it_waits_for_and_what_did_not_fit() -> None:
    world = World()
    world.live(
        """
        09:00 web u=anna Consent Granted purpose=marketing
        10:00 web u=anna Product Viewed product_id=p1
        10:30 web u=anna Product Viewed product_id=p2
        """
    )
    told = asked(world, "again")
    assert told[3:] == lines_of(
        """
        Started 10:30:00
          10:30:00  one: Product Viewed
          still open until 12:30:00, waiting for two

        Started 10:00:00
          10:00:00  one: Product Viewed
          still open until 12:00:00, waiting for two
          what came for a step and did not fit, newest first:
            10:30:00  Product Viewed for two: must be that product id is that of 'one', but product id was 'p2' and product id of 'one' was 'p1'
        """  # noqa: E501
    )


def test_a_deadline_that_passed() -> None:
    world = World()
    world.live(
        """
        09:00 web u=anna Consent Granted purpose=marketing
        10:00 web u=anna Product Viewed product_id=p1
        13:00 web u=anna Product Viewed product_id=p1
        """
    )
    assert "  ended, seen at 13:00:00: two had not come within 2 hours of the start" in asked(world, "again")


def test_a_purpose_that_was_not_in_force_and_one_that_was_withdrawn() -> None:
    world = World()
    world.live("10:00 web u=anna Product Viewed product_id=p1")
    told = asked(world, "again")
    assert told[0] == (
        "It listens to 1 event of this customer; 1 it could not see, as its purpose was not in force."
    )
    world.live(
        """
        11:00 web u=anna Consent Granted purpose=marketing
        11:10 web u=anna Product Viewed product_id=p1
        11:20 web u=anna Consent Withdrawn purpose=marketing
        """
    )
    ended = "  ended, seen at 11:20:00: its purpose was withdrawn, so what was half matched was dropped"
    assert ended in asked(world, "again")


def test_each_of_several_occurrences_is_told_and_what_they_share_once() -> None:
    steps = "searched: Help Searched | read: any Help Viewed | called: Contact Started"
    files = moment("read_first", steps, more="within: 1 hour\nmatch: all")
    world = World(project(files))
    world.live(
        """
        10:00 web u=anna Help Searched n_results=3
        10:01 web u=anna Help Viewed
        10:02 web u=anna Help Viewed
        10:05 web u=anna Contact Started
        """
    )
    told = asked(world, "read_first")
    assert told[1] == "It was caught 2 times, of 1 start."
    assert told[3:] == lines_of(
        """
        Started 10:00:00
          10:00:00  searched: Help Searched
          10:01:00  read: Help Viewed
          10:02:00  read: Help Viewed
          10:05:00  called: Contact Started
          10:05:00  caught
          10:05:00  caught
        """
    )


def test_what_is_the_same_again_is_said() -> None:
    world = World()
    world.live(
        """
        09:00 web u=anna Consent Granted purpose=marketing
        10:00 web u=anna Product Added
        10:05 web u=anna Product Added
        """
    )
    world.until("12:00")
    told = asked(world, "basket")
    assert "  10:35:00  complete, but the same again: repeat is once per 1 hour" in told
    assert told[1] == "It was caught once, of 2 starts."


def test_every_other_end() -> None:
    """Of a step's own time, of what came between, of too few, of a missing time, and of who is meant."""
    steps = {
        "limit": ("a: Help Searched | b: Chat Started within 5 minutes", "within: 1 hour"),
        "next": ("a: Help Searched | b: next Chat Started | c: Contact Started", "within: 1 hour"),
        "until": ("a: 2 times Help Searched until Chat Started | b: Contact Started", "within: 1 hour"),
        "nodue": ("a: Delivery Delayed | no b: Chat Started, by a.promised_at", "repeat: every time"),
        "whom": ("a: Help Searched | b: Chat Started", "within: 1 hour\nwho: customer.plan = 'private'"),
        "quiet": ("no z: Chat Started, for 1 hour before a | a: Help Searched", "repeat: every time"),
        "single": ("a: Help Searched | b: Chat Started", "within: 1 hour\nmatch: one_open"),
    }
    files: dict[str, str | None] = {}
    for name, (text, more) in steps.items():
        files |= moment(name, text.replace(", by", "; by").replace(", for", "; for"), more=more)
    files = {
        name: (text or "").replace("; by", ", by").replace("; for", ", for") for name, text in files.items()
    }
    world = World(project({**files, "events/customer_identified.yaml": PLAN}))
    world.live(
        """
        09:50 web u=anna Chat Started
        10:00 web u=anna Help Searched
        10:01 web u=anna Help Searched
        10:10 web u=anna Contact Started
        10:11 web u=anna Chat Started
        10:20 web u=anna Delivery Delayed
        """
    )
    said = {name: "\n".join(asked(world, name)) for name in steps}
    assert "b had not come within 5 minutes" in said["limit"]
    assert "Contact Started came, and next allows nothing in between" in said["next"]
    assert "Chat Started came before a had enough" in said["until"]
    assert "the event does not say the time that b needs" in said["nodue"]
    assert "the customer is not one of who: must be that the customer's plan is private" in said["whom"]
    assert "what z forbids had come shortly before" in said["quiet"]
    assert "a try was open already" in said["single"]


def test_an_unmerged_history_and_a_merged_one_are_the_customers_own() -> None:
    world = World()
    world.live("10:00 web u=anna Help Searched n_results=0\n10:05 web u=bert Chat Started")
    world.merge("anna", "bert")
    world.until("12:00")
    assert asked(world, "help")[1] == "It was never caught, of 1 start."
    world.unmerge()
    world.until("13:00")
    assert "It was caught once, of 1 start." in asked(world, "help")


PLAN = "event: Customer Identified\nfields: {plan: text}\n"


def lines_of(text: str) -> list[str]:
    """An indented block as its lines."""
    given = text.strip("\n").splitlines()[:-1]
    return [line[8:] for line in given]
