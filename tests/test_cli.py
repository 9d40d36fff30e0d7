"""The command line: what each command says, how it ends, and that no error shows its entrails."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from called import Ended, called

from hetki.cli.main import COMMANDS, EXIT
from hetki.errors import HetkiError

EXAMPLE = Path(__file__).parent.parent / "examples/restaurants"
FAULT = re.compile(r"^[^\s].*: got .+, must be .+\.$")


class Hetki:
    """The command line in this process, on one project."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder = folder
        self.project = folder / "project"
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *words: object, typed: str = "") -> Ended:
        """`hetki WORDS` as it is; a Python error of any kind fails the test."""
        return called(words, self._monkeypatch, self._capsys, typed)

    def on(self, *words: object) -> str:
        """The same on the project; it must end well. What it printed."""
        ended = self(*words, "-C", self.project)
        assert (ended.code, ended.err) == (0, "")
        return ended.out

    def refused(self, code: str, *words: object) -> list[str]:
        """The same, and it must be refused with the status of this code, in our form, without output."""
        ended = self(*words, "-C", self.project)
        assert (ended.code, ended.out) == (EXIT[code], "")
        lines = ended.err.splitlines()
        assert lines and all(FAULT.match(line) for line in lines), ended.err
        return lines

    def put(self, name: str, text: str | bytes) -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    def project_file(self, name: str, text: str) -> None:
        self.put(f"project/{name}", text)


@pytest.fixture
def hetki(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Hetki:
    return Hetki(tmp_path, monkeypatch, capsys)


def test_segments_are_counted_and_said_who(hetki: Hetki) -> None:
    hetki("init", hetki.project)
    hetki.project_file("segments/help_fails.yaml", SEGMENT)
    rows, mapped = hetki.put("rows.csv", IN_VAIN), hetki.put("map.yaml", MAP)
    hetki.on("import", rows, "--map", mapped)
    counted = "help_fails: 2 of 2 customers  (Help has failed them lately)"
    assert hetki.on("segments") == f"{counted}\n"
    (first, second, more) = hetki.on("segments", "help_fails", "--for", "1").splitlines()
    assert first == counted and second.split()[1] in ("anna", "bert")
    assert more == "  and 1 more"
    assert "  segment  help_fails  Help has failed them lately\n" in hetki.on("customer", "anna")
    assert "did you mean 'help_fails'" in hetki.refused("not_found", "segments", "help_fail")[0]
    (Path(hetki.project) / "segments/help_fails.yaml").unlink()
    hetki.on("advance")
    assert hetki.on("segments") == "no segment is declared\n"


SHARED = """number,what,at,customer,browser
1,sign,2026-03-02T10:00:00Z,anna,kiosk
2,sign,2026-03-02T10:05:00Z,bert,kiosk
3,look,2026-03-02T10:06:00Z,,kiosk
"""


LENIENT = "\n[identity.anonymous_id]\nunique_ids_max = 2\n"


def test_identity_is_told_and_tried_before_it_is_changed(hetki: Hetki) -> None:
    hetki("init", hetki.project)
    toml = (hetki.project / "hetki.toml").read_text("utf-8")
    hetki.project_file("hetki.toml", toml + LENIENT)
    rows = hetki.put("rows.csv", SHARED)
    hetki.on("import", rows, "--map", hetki.put("map.yaml", MAP.partition("properties")[0]))
    told = hetki.on("identity")
    assert told.startswith("3 identifiers are 2 customers\n  user_id: 1 per customer, for ever\n")
    assert "refused: 1 link two_unique_ids" in told
    assert "user_id bert" in hetki.on("identity", "--refused", "two_unique_ids").splitlines()[0]
    assert hetki.on("identity", "--refused", "crowd") == "0 links refused: crowd\n"
    assert "did you mean 'crowd'" in hetki.refused("not_found", "identity", "--refused", "crowds")[0]
    hetki.project_file("hetki.toml", toml)
    assert "another policy is in force" in hetki.on("identity")
    tried = hetki.on("identity", "--dry-run").splitlines()
    assert tried[0] == "0 merges, 1 split; nothing is written"
    assert re.fullmatch("would become 2 customers: [0-9a-f]{32} anna", tried[1])
    assert tried[2:] == ["refused two_unique_ids: 1 link now, 2 then"]
    hetki.on("advance")
    told = hetki.on("identity")
    assert told.startswith("3 identifiers are 3 customers") and "another policy" not in told
    third = SHARED.splitlines()[0] + "\n4,sign,2026-03-02T10:07:00Z,cilla,kiosk\n"
    map_file = hetki.put("map.yaml", MAP.partition("properties")[0])
    hetki.on("import", hetki.put("third.csv", third), "--map", map_file)
    assert "quarantine: anonymous_id kiosk  shared_value  3 links" in hetki.on("identity")
    assert "anonymous_id  kiosk" not in hetki.on("customer", "anna")
    hetki.project_file("hetki.toml", toml + "\n[identity.Card]\nper_customer = -1\nwithin = 'soon'\n")
    faults = hetki.refused("invalid", "identity")
    assert len(faults) == 3 and all(fault.startswith("hetki.toml:[identity.Card]") for fault in faults)


def test_who_somebody_was_held_to_be(hetki: Hetki) -> None:
    hetki("init", hetki.project)
    hetki.project_file("hetki.toml", (hetki.project / "hetki.toml").read_text("utf-8") + LENIENT)
    hetki.on(
        "import",
        hetki.put("rows.csv", SHARED),
        "--map",
        hetki.put("map.yaml", MAP.partition("properties")[0]),
    )
    now = re.search("as known at", hetki.on("customer", "anna", "--known-at", "2100-01-01"))
    assert now
    known = hetki.on("customer", "anna", "--known-at", "2100-01-01T00:00:00Z").splitlines()
    assert known[1:] == ["  anonymous_id  kiosk", "  user_id  anna"]
    assert "nobody known" in hetki.refused("not_found", "customer", "anna", "--known-at", "2020-01-01")[0]
    assert "ISO 8601" in hetki.refused("invalid", "customer", "anna", "--known-at", "then")[0]
    hetki.refused("not_found", "customer", "anna", "--known-at", "0001-01-01T00:00+14:00")


IN_VAIN = "number,what,at,customer,browser,hits,words\n" + "".join(
    f"{number},search,2026-03-02T10:{number:02}:00Z,{'anna' if number % 2 else 'bert'},,0,gift card\n"
    for number in range(1, 9)
)
SEGMENT = """
segment: help_fails
title: Help has failed them lately
purpose: service
who: aggregate.n_in_vain >= 3
aggregates:
  n_in_vain: count of Help Searched where n_results = 0, over 90 years
"""
MAP = """
import: help_desk
source: web
event: {column: what, names: {search: Help Searched, look: Help Viewed, sign: Signed In}}
occurred_at: at
message_id: [number]
user_id: customer
anonymous_id: browser
properties: {n_results: {column: hits, type: integer}, query: words}
"""
#: anna searches twice in vain and is caught; bert finds help; row 6 has no time; row 7 is of a browser.
CSV = """number,what,at,customer,browser,hits,words
1,search,2026-03-02T10:00:00Z,anna,,0,gift card
2,search,2026-03-02T10:05:00Z,anna,,0,voucher
3,search,2026-03-02T11:00:00Z,bert,,0,gift card
4,search,2026-03-02T11:01:00Z,bert,,0,gift cards
5,look,2026-03-02T11:02:00Z,bert,,,
6,search,yesterday,carl,,0,opening hours
7,search,2026-03-02T12:00:00Z,,b1,0,lost card
"""


def test_a_day_with_the_command_line(hetki: Hetki) -> None:
    """From an empty folder to a repaired, merged, unmerged and rebuilt history."""
    made = hetki("init", hetki.project, "--name", 'Kahvila "Äijä"')
    assert (made.code, made.err) == (0, "") and f"Next: hetki check -C {hetki.project}" in made.out
    checked = hetki.on("check")
    assert "searched_in_vain: For any customer: after 'searched'" in checked
    assert checked.endswith("1 segment, 1 moment, 3 examples, no fault\n")

    rows, mapped = hetki.put("rows.csv", CSV), hetki.put("map.yaml", MAP)
    dry = hetki("import", rows, "--map", mapped, "--dry-run", "-C", hetki.project)
    assert dry.code == 1 and "yesterday" in dry.out and "Help Searched" in dry.out
    assert hetki.on("advance") == "0 entries folded, 0 occurrences, 0 decided\n", "a dry run stores nothing"

    imported = hetki.on("import", rows, "--map", mapped)
    assert imported.splitlines()[0] == "7 rows: 6 accepted, 1 rejected"
    assert "7 entries folded" in imported
    again = hetki.on("import", rows, "--map", mapped)
    assert "7 done before" in again and "0 entries folded" in again

    fired = hetki.on("backtest", "searched_in_vain", "--since", "2026-03-01", "--until", "2026-03-31")
    assert (
        "lake: 6 events" in fired and "searched_in_vain: once for 1 customer, first 2026-03-02 10:15" in fired
    )
    assert "never" in hetki.on("backtest", "--since", "2026-04-01", "--until", "2026-04-30")

    versions(hetki)

    report = hetki.on("report")
    assert "searched_in_vain" in report and "not enough data" in report
    effects = msgspec.json.decode(hetki.on("report", "--json"))
    assert {each["moment"] for each in effects} == {"", "searched_in_vain"}
    repair(hetki)
    people(hetki)
    upkeep(hetki)


def repair(hetki: Hetki) -> None:
    """The row without a time is shown, mended and replayed; it is an event then, and no longer listed."""
    listed = hetki.on("rejected").splitlines()
    assert len(listed) == 2 and "yesterday" in listed[0] and listed[1].startswith("1 rejected")
    rejected_id = listed[0].split()[0]
    shown = hetki.on("rejected", "show", rejected_id)
    assert "opening hours" in shown
    still = hetki("rejected", "replay", "-C", hetki.project)
    assert still.code == 1 and "0 accepted, 1 still rejected" in still.out
    event = msgspec.json.decode(shown)
    event |= {"type": "track", "timestamp": "2026-03-02T13:00:00Z"}
    mended = hetki.put("mended.json", msgspec.json.encode(event))
    replayed = hetki.on("rejected", "replay", rejected_id, "--with", mended)
    assert replayed == "1 accepted, 0 still rejected\n"
    assert hetki.on("rejected") == "0 rejected\n"
    assert "customer " in hetki.on("customer", "carl")


def people(hetki: Hetki) -> None:
    """anna's occurrence is long past and was missed; she is merged with a browser, and unmerged."""
    anna = hetki.on("customer", "anna")
    assert "user_id  anna" in anna and "searched_in_vain" in anna and "missed" in anna
    alone = anna.splitlines()[0]
    assert "is now the customer of both" in hetki.on("merge", "anna", "b1", "--by", "desk")
    merged = hetki.on("customer", "anna")
    assert "anonymous_id  b1" in merged and "stands" in merged
    assert hetki.on("customer", "b1") == merged
    assert "both are" in hetki.refused("conflict", "merge", "anna", "b1", "--by", "desk")[0]
    link = re.search(r"link ([0-9a-f]+)  merge", merged)
    assert link is not None
    assert hetki.on("unmerge", link[1], "--by", "desk").count(" and ") == 1
    after = hetki.on("customer", "anna")
    assert after.splitlines()[0] == alone and "anonymous_id" not in after and "revoked" in after


def upkeep(hetki: Hetki) -> None:
    assert re.fullmatch(r"\d+ rows, \d+ decisions? .*: unbroken\n", hetki.on("verify"))
    assert "the same as before" in hetki.on("rebuild")
    assert "lake: 7 events" in hetki.on("lake", "rebuild")
    assert "lake: 7 events" in hetki.on("lake", "refresh")
    assert re.fullmatch(r"/sign-in\?token=[0-9a-f]{64}\n", hetki.on("token"))
    assert '"MomentSpec"' in hetki("schema", "moment").out
    journal = sqlite3.connect(hetki.project / "data" / "journal.db", isolation_level=None)
    body: bytes = journal.execute("SELECT body FROM journal WHERE position = 2").fetchone()[0]
    journal.execute("UPDATE journal SET body = ? WHERE position = 2", (body[:-1] + bytes([body[-1] ^ 1]),))
    journal.close()
    broken = hetki.refused("invalid", "verify")
    assert broken == [
        "journal.db: row 2: got bytes that do not fit the hash chain, must be what was once committed."
        " Hint: restore journal.db from a backup; rows before this one are intact."
    ]


def test_every_decision_explains_itself(hetki: Hetki) -> None:
    """A live occurrence is decided, and the decision is told by its id and by its occurrence's."""
    hetki("init", hetki.project)
    moment = (hetki.project / "moments/searched_in_vain.yaml").read_text()
    hetki.project_file(
        "moments/searched_in_vain.yaml",
        re.sub(r"    - no helped:.*\n", "", moment).replace("30 minutes\n", "100 years\n"),
    )
    hetki.project_file("tests/searched_in_vain.yaml", "moment: searched_in_vain\ncases: []\n")
    rows, mapped = hetki.put("rows.csv", CSV), hetki.put("map.yaml", MAP)
    hetki.on("import", rows, "--map", mapped)
    told = re.findall(r"searched_in_vain  (\w+)  ([0-9a-f]{32})", hetki.on("customer", "bert"))
    assert len(told) == 1
    chosen, decision_id = told[0]
    words = hetki.on("explain", decision_id)
    for name in (
        "data of user id bert",
        "Offer a chat",
        "Send the guide",
        "device of 'again' is mobile",
        "What would have changed it",
    ):
        assert name.lower() in words.lower(), words
    assert chosen in ("offer_chat", "send_guide", "nothing")
    why = hetki.on("explain", "--moment", "searched_in_vain", "--customer", "bert")
    assert "It was caught once" in why and "caught\n" in why, why
    assert hetki.refused("invalid", "explain", "--moment", "searched_in_vain")
    assert hetki.refused("invalid", "explain", decision_id, "--moment", "m", "--customer", "bert")
    assert hetki.refused("not_found", "explain", "--moment", "searchd", "--customer", "bert")


def test_errors_end_with_the_status_of_their_code_and_say_what_where_and_why(hetki: Hetki) -> None:
    assert hetki.refused("not_found", "check") == hetki.refused("not_found", "advance")
    assert "hetki init makes one" in hetki.refused("not_found", "serve", "--port", "0")[0]
    hetki("init", hetki.project)
    assert hetki("init", hetki.project).code == EXIT["conflict"]
    assert hetki("init", hetki.put("file", "x")).code == EXIT["conflict"]
    assert hetki("schema", "momnt").err.endswith("Hint: did you mean 'moment'.\n")
    for words in (
        ("explain", "x"),
        ("customer", "nobody"),
        ("merge", "nobody", "else", "--by", "me"),
        ("unmerge", "xyz", "--by", "me"),
        ("unmerge", "00" * 16, "--by", "me"),
        ("rejected", "show", "x"),
        ("rejected", "replay", "x"),
        ("rejected", "replay", "x", "--with", hetki.folder / "absent"),
        ("rejected", "replay", "x", "--with", hetki.folder),
        ("import", hetki.folder / "absent.csv", "--map", hetki.put("map.yaml", MAP)),
        ("import", hetki.put("rows.csv", CSV), "--map", hetki.folder / "absent.yaml"),
        ("import", hetki.folder, "--map", hetki.folder),
    ):
        hetki.refused("not_found", *words)
    for words in (("erase", "anna", "--dry-run", "--by", "me"), ("erase", "--receipts", "--source", "web")):
        assert "with --from and --until" in hetki.refused("invalid", *words)[0], "it would be done in full"
    unknown = hetki("backtest", "serched_in_vain", "-C", hetki.project)
    assert unknown.code == EXIT["not_found"] and "did you mean 'searched_in_vain'" in unknown.err
    hetki.refused("conflict", "rebuild")
    for words in (("customer", "\udcff"), ("rejected", "show", "\udcff"), ("explain", "\udcff")):
        assert "not UTF-8" in hetki.refused("invalid", *words)[0]
    hetki.refused("conflict", "serve", "--host", "no.such.host.invalid")
    assert "an address of this machine" in hetki.refused("invalid", "serve", "--host", "")[0], (
        "not all of them"
    )
    hetki.put("project/data/state.db", b"no database at all, whatever its name says " * 100)
    for words in (("advance",), ("status",), ("report",), ("serve", "--port", "0")):
        assert "state.db: got file is not a database" in hetki.refused("unavailable", *words)[0]


def test_the_folder_may_stand_before_what_is_to_be_done(
    hetki: Hetki, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the word would be done, without a word, to the project that one stands in."""
    here = hetki.folder / "here"
    for folder in (here, hetki.project):
        hetki("init", folder)
    monkeypatch.chdir(here)
    words = ("staff", "-C", hetki.project, "add", "Eve", "--role", "agent")
    assert hetki(*words, typed="five words that nobody says\n").code == 0
    assert hetki("staff").out.startswith("nobody") and hetki.on("staff").startswith("Eve")
    hetki.put("project/hetki.toml", "colour = 1\n")
    assert hetki("rejected", "-C", hetki.project, "show", "x").code == EXIT["invalid"]
    assert hetki("rejected", "-C", hetki.project, "show", "x", "-C", here).code == EXIT["not_found"]


def test_a_name_by_which_two_are_known_is_nobody_s(hetki: Hetki) -> None:
    """One customer's user id may be another's number: the first that fits would be erased for ever."""
    hetki("init", hetki.project)
    rows = "who,browser,at\n77,,2026-03-02 10:00\n,77,2026-03-02 11:00\nanna,b1,2026-03-02 12:00\n"
    names = (
        "import: x\nsource: web\nevent: Help Viewed\noccurred_at: at\nuser_id: who\nanonymous_id: browser\n"
    )
    hetki.on("import", hetki.put("rows.csv", rows), "--map", hetki.put("map.yaml", names))
    for words in (("customer", "77"), ("export", "77", "--to", hetki.folder / "x.zip")):
        (told,) = hetki.refused("conflict", *words)
    (told,) = hetki.refused("conflict", "erase", "77", "--by", "desk")
    assert "by which more than one is known" in told
    first, second = re.findall(r"[0-9a-f]{32}", told)
    assert "user_id  77" in hetki.on("customer", first) and "anonymous_id  77" in hetki.on("customer", second)
    assert "user_id  anna" in hetki.on("customer", "b1"), "by whichever name one is known"
    assert "1 name" in hetki.on("erase", second, "--by", "desk")
    assert "user_id  77" in hetki.on("customer", "77")


def versions(hetki: Hetki) -> None:
    """Another version beside it, compared; a fault in it, told by status."""
    other = hetki.folder / "other"
    shutil.copytree(hetki.project, other, ignore=shutil.ignore_patterns("data"))
    moment = other / "moments/searched_in_vain.yaml"
    moment.write_text(moment.read_text().replace("for 10 minutes after again", "for 5 minutes after again"))
    compared = hetki.on("backtest", "--against", other, "--for", "1")
    assert "searched_in_vain: 0 in both, 0 new, 0 gone, 1 moved\n" in compared
    assert "from 2026-03-02 10:10 to 2026-03-02 10:15" in compared
    assert hetki.refused("not_found", "backtest", "--against", hetki.folder)[0].startswith(str(hetki.folder))
    assert hetki.on("status").splitlines()[-1] == "folder: what is in force"
    told = msgspec.json.decode(hetki.on("status", "--json"))
    assert told["folder"] == told["progress"]["program"] and told["n_customers"] > 0
    moment = hetki.project / "moments/searched_in_vain.yaml"
    sound = moment.read_text()
    moment.write_text(sound.replace("Help Searched", "Help Serched"))
    ended = hetki("status", "-C", hetki.project)
    assert ended.code == 1 and "moments/searched_in_vain.yaml:" in ended.out and "did you mean" in ended.out
    moment.write_text(sound)


def test_every_code_has_a_status_of_its_own() -> None:
    assert set(EXIT) == {each.code for each in HetkiError.__subclasses__()}
    assert len({*EXIT.values(), 0, 2}) == len(EXIT) + 2, "0 is well, 2 is a wrong word on the command line"


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["check", "--nope"],
        ["import"],
        ["backtest", "--since", "x"],
        ["serve", "--port", "99999"],
        ["demo", "--days", "0"],
    ],
)
def test_wrong_words_show_how_it_is_used(hetki: Hetki, words: list[str]) -> None:
    ended = hetki(*words)
    assert ended.code == 2 and "Usage: hetki" in ended.err


def test_help_names_every_command(hetki: Hetki) -> None:
    told = hetki("--help")
    assert told.code == 0
    assert set(re.findall(r"^│ (\w+) ", told.out, re.MULTILINE)) == set(COMMANDS)
    assert hetki("--version").out.count(".") == 2
    for command, (_, does) in COMMANDS.items():
        words = " ".join(hetki(command, "--help").out.split())
        assert words.startswith(f"Usage: hetki {command} ")
        assert f" {does} ╭" in words, "the table says what the command says of itself"


WRONG_SHAPES = """\
moment: late
title: 7
owner: [team]
purpose: {a: b}
colour: blue
identify:
  need: "When?"
  wihtin: 1 day
  steps: late
  expires: 5
design: [x]
secure: yes
analyse:
  solved: 1
  guardrails: Unsubscribed
"""
WRONG_MEANINGS = """\
moment: late_order
title: Late
owner: team
initiative: no_such
purpose: marketng
identify:
  need: "When?"
  steps:
    - late: Delivery Delayd where n_minutes >= 15
    - searched: Help Searched where n_results = = 0
    - no helped: Help Viewed, for ten minutes
    - third: Help Searched where qery = 7
  within: 1 dya
  repeat: once per foo.bar
  expires: soon
design:
  answers: [tell_new_time, offer_chat]
secure: {process: docs/absent.md}
analyse:
  solved: no Contact Startd within 1 day
  business: Order Completed within 60 dys
  guardrails: [Unsubscribd]
  expect: better
  holdout: 110%
"""


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (WRONG_SHAPES, [2, 3, 4, 5, 8, 9, 10, 11, 12, 14, 15]),
        (WRONG_MEANINGS, [1, 4, 5, 9, 10, 11, 12, 13, 14, 15, 17, 18, 20, 21, 22, 23, 24]),
    ],
    ids=["shapes", "meanings"],
)
def test_ten_faults_and_more_are_as_many_lines_each_with_its_place(
    hetki: Hetki, text: str, lines: list[int]
) -> None:
    """Of what has the wrong shape nothing more is asked; of what has the right one, everything."""
    hetki("init", hetki.project)
    hetki.project_file("moments/late.yaml", text)
    ended = hetki("check", "-C", hetki.project)
    assert ended.code == 1 and len(lines) > 10
    found = [line for line in ended.out.splitlines() if line.startswith("moments/late.yaml")]
    places = [re.match(r"moments/late\.yaml:(\d+):(\d+): got .+, must be .+\.$", line) for line in found]
    assert [int(place[1]) if place else 0 for place in places] == lines
    assert hetki.refused("invalid", "advance"), "what is broken does not run"


def test_a_parquet_cut_in_half_is_refused_and_harms_nothing(hetki: Hetki) -> None:
    hetki("init", hetki.project)
    mapped = hetki.put("map.yaml", MAP)
    hetki.on("import", hetki.put("rows.csv", CSV), "--map", mapped)
    whole = hetki.folder / "rows.parquet"
    columns = {
        "number": list(range(100, 600)),
        "what": ["search"] * 500,
        "at": ["2026-03-03T10:00:00Z"] * 500,
    }
    columns |= {name: ["x"] * 500 for name in ("customer", "browser", "words")} | {"hits": [0] * 500}
    pq.write_table(pa.table(columns), whole)
    half = hetki.put("half.parquet", whole.read_bytes()[: whole.stat().st_size // 2])
    assert "half.parquet" in hetki.refused("invalid", "import", half, "--map", mapped)[0]
    assert "half.parquet" in hetki.refused("invalid", "import", half, "--map", mapped, "--dry-run")[0]
    assert "the same as before" in hetki.on("rebuild") and "unbroken" in hetki.on("verify")
    assert "500 accepted" in hetki.on("import", whole, "--map", mapped)


def test_light_commands_do_not_load_the_statistics() -> None:
    """Starting up is most of the time that a light command takes."""
    seen = """
import sys
from hetki.cli.main import program
for command in ("--help", "init", "check", "advance", "rejected", "customer", "import", "token"):
    program([command])
print([name for name in ("tea_tasting", "scipy", "uvicorn", "jinja2") if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("[]\n", "")


@pytest.mark.parametrize(
    "words", ["--version", "init project", "check -C project", "check", "chekc"], ids=str.split
)
def test_what_is_installed_does_what_is_forked_for_the_other_tests(words: str, tmp_path: Path) -> None:
    """The entry point itself, started as a user does; the pages call `bin/hetki` (see `warm.py`)."""
    ended = []
    for program in (Path(sys.executable).parent / "hetki", Path(__file__).parent / "bin/hetki"):
        folder = tmp_path / str(len(ended))
        folder.mkdir()
        if words.startswith("check -C"):
            shutil.copytree(EXAMPLE, folder / "project")
        ran = subprocess.run([program, *words.split()], cwd=folder, capture_output=True, text=True)
        made = sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))
        ended.append((ran.returncode, ran.stdout, ran.stderr, made))
    assert ended[0] == ended[1]


def test_the_lake_is_shared_without_personal_data(hetki: Hetki) -> None:
    hetki("init", hetki.project)
    rows, mapped = hetki.put("rows.csv", IN_VAIN), hetki.put("map.yaml", MAP)
    hetki.on("import", rows, "--map", mapped)
    to = hetki.folder / "shared"
    said = hetki.on("lake", "share", to)
    assert re.search(r"^\d+ events without personal data in ", said, re.MULTILINE)
    assert list(to.glob("events/month=*/part.parquet"))
    again = hetki("lake", "share", to, "-C", hetki.project)
    assert again.code == EXIT["conflict"] and "an empty or a new folder" in again.err
