"""People who sign in: what is kept of them, how a session begins and when it ends, and what is never told."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from called import Ended, called
from console import EVIL, FORM_TYPE, PASSWORD, House, ask, words
from test_backup import Vault
from world import World

from hetki.cli.main import EXIT
from hetki.engine.advance import advance
from hetki.engine.backup import SECRETS_DAYS
from hetki.engine.restoring import look_over
from hetki.errors import Conflict, Forbidden, Invalid, NotFound
from hetki.server import access as access_room
from hetki.server.access import OPERATOR, Access, Visitor
from hetki.server.site import COOKIE, NAME_COOKIE
from hetki.server.status import Busy
from hetki.settings import SECOND
from hetki.simulation.world import MemoryDisk, SeededChance, SimulatedClock
from hetki.store import passwords
from hetki.store import staff as staff_room
from hetki.store.staff import NAME_CHARS_MAX, Staff, has_staff
from hetki.store.system import SystemChance, SystemDisk

NOW = 1_772_366_400 * SECOND


class Shop:
    """A project's access alone: people, tokens and sessions, on a disk in memory."""

    def __init__(self) -> None:
        self.disk = MemoryDisk()
        self.clock = SimulatedClock(NOW)
        self.access = Access(self.disk, self.clock, SeededChance(1))
        self.staff = Staff(self.disk, SeededChance(2))
        self.staff.add("Sami", "agent", PASSWORD, NOW)

    def enter(self) -> str:
        return self.access.enter("Sami", PASSWORD)


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords that cost little to check, where not the cost is tested."""
    monkeypatch.setattr(passwords, "MEMORY_KIB", 8)
    monkeypatch.setattr(passwords, "PASSES", 1)
    monkeypatch.setattr(passwords, "_PRESENT", "$argon2id$v=19$m=8,t=1,p=1$")


# -- passwords


def test_a_password_is_kept_at_the_cost_that_owasp_asks_for() -> None:
    kept = passwords.kept_form(PASSWORD, b"0123456789abcdef")
    assert kept.startswith("$argon2id$v=19$m=19456,t=2,p=1$") and not passwords.is_dated(kept)
    assert passwords.fits(PASSWORD, kept) and not passwords.fits(PASSWORD + " ", kept)
    # From the tests of the reference program: "password", "somesalt", 2 passes over 64 MiB in one thread.
    published = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
    assert passwords.fits("password", published) and not passwords.fits("Password", published)


@pytest.mark.parametrize(
    "password", ["", "fourteen chars", "aaaaaaaaaaaaaaaaaaaa", "abababababababababab", "x" * 257, " " * 20]
)
def test_what_is_easily_guessed_is_no_password_and_is_not_said_back(password: str) -> None:
    with pytest.raises(Invalid) as refused:
        passwords.check_password(password, "Sami")
    assert len(password) < 5 or password not in str(refused.value)


def test_the_name_is_no_password() -> None:
    with pytest.raises(Invalid, match="something else than the name"):
        passwords.check_password("Virpi-Maija Wiklund", "virpi-maija wiklund")


def test_a_password_is_the_same_from_every_keyboard(cheap: None) -> None:
    composed, apart = "kolme sanaa \u00e4\u00e4ness\u00e4", "kolme sanaa a\u0308a\u0308nessa\u0308"
    assert composed != apart
    assert passwords.fits(apart, passwords.kept_form(composed, b"0123456789abcdef"))


# -- people


def test_a_name_is_one_however_it_is_written(cheap: None) -> None:
    shop = Shop()
    for name in ("sami", " SAMI ", "\uff33ami"):
        with pytest.raises(Conflict):
            shop.staff.add(name, "admin", PASSWORD, NOW)
        known = shop.staff.known(name)
        assert known is not None and (known.name, known.role) == ("Sami", "agent")
    for name in ("", " ", "x" * (NAME_CHARS_MAX + 1), "a\x00b", "a\u202eb"):
        with pytest.raises(Invalid):
            shop.staff.add(name, "viewer", PASSWORD, NOW)
    for act in (shop.staff.remove, lambda name: shop.staff.set_role(name, "admin", NOW)):
        with pytest.raises(NotFound, match="did you mean 'Sami'"):
            act("Samy")
    assert [each.name for each in shop.staff.everybody()] == ["Sami"]


@pytest.mark.parametrize(
    "change",
    [
        lambda staff: staff.set_password("sami", PASSWORD, NOW),
        lambda staff: staff.set_role("sami", "agent", NOW),
        lambda staff: staff.remove("sami"),
        lambda staff: (staff.remove("sami"), staff.add("Sami", "agent", PASSWORD, NOW)),
    ],
    ids=["password", "role", "removed", "removed and added again"],
)
def test_any_change_of_a_person_ends_the_sessions_at_once(
    cheap: None, change: Callable[[Staff], object]
) -> None:
    shop = Shop()
    session, operator = shop.enter(), shop.access.sign_in(shop.access.new_token())
    assert shop.access.who(session) == Visitor("Sami", "agent")
    change(Staff(shop.disk, SeededChance(3)))  # as the command line does, in a process of its own
    assert shop.access.who(session) is None
    assert Access(shop.disk, shop.clock, SeededChance(4)).who(session) is None, "nor after a restart"
    assert shop.access.who(operator) == OPERATOR


def test_a_change_while_the_password_is_checked_wins(cheap: None, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop()

    def slow(password: str, kept: str) -> bool:
        Staff(shop.disk, SeededChance(3)).remove("Sami")
        return passwords.fits(password, kept)

    monkeypatch.setattr(staff_room, "fits", slow)
    assert shop.access.who(shop.enter()) is None


def test_another_cost_is_taken_up_at_the_next_sign_in_and_brings_nobody_back(
    cheap: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop()
    before = kept_of(shop)
    session = shop.enter()
    assert kept_of(shop) == before, "the same cost: nothing is written"
    monkeypatch.setattr(passwords, "PASSES", 2)
    monkeypatch.setattr(passwords, "_PRESENT", "$argon2id$v=19$m=8,t=2,p=1$")
    with pytest.raises(Forbidden):
        shop.access.enter("Sami", PASSWORD + "x")
    assert kept_of(shop) == before, "a wrong password changes nothing"
    assert shop.access.who(shop.enter()) and shop.access.who(session), "it is no change of the person"
    assert kept_of(shop) != before and kept_of(shop).startswith("$argon2id$v=19$m=8,t=2,p=1$")
    assert shop.access.who(shop.enter())

    monkeypatch.setattr(passwords, "_PRESENT", "another cost")
    honest = staff_room.kept_form

    def slow(password: str, salt: bytes) -> str:
        monkeypatch.setattr(staff_room, "kept_form", honest)
        other = Staff(shop.disk, SeededChance(3))
        other.remove("Sami")
        other.add("Sami", "viewer", "another secret of five words", NOW)
        return honest(password, salt)

    monkeypatch.setattr(staff_room, "kept_form", slow)
    assert shop.access.who(shop.enter()) is None
    with pytest.raises(Forbidden):
        shop.enter()
    found = Visitor("Sami", "viewer")
    assert shop.access.who(shop.access.enter("Sami", "another secret of five words")) == found


def kept_of(shop: Shop) -> str:
    (kept,) = shop.disk.connect(staff_room.FILE).execute("SELECT password FROM staff").fetchone()
    assert isinstance(kept, str)
    return kept


def test_an_unknown_name_costs_what_a_known_one_does(cheap: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: how often Argon2id runs, and at which cost."""
    shop = Shop()
    ran: list[tuple[int, int, int]] = []
    real = passwords.Argon2id

    class Counted:
        def __new__(cls, **given: int) -> object:
            ran.append((given["memory_cost"], given["iterations"], given["lanes"]))
            return real(**given)  # type: ignore[arg-type]

        @staticmethod
        def verify_phc_encoded(password: bytes, kept: str) -> None:
            memory, passes, lanes = re.findall(r"m=(\d+),t=(\d+),p=(\d+)", kept)[0]
            ran.append((int(memory), int(passes), int(lanes)))
            real.verify_phc_encoded(password, kept)

    monkeypatch.setattr(passwords, "Argon2id", Counted)
    told = []
    for name in ("Sami", "nobody", ""):
        ran.clear()
        with pytest.raises(Forbidden) as refused:
            shop.access.enter(name, "not the right one at all")
        told.append((ran.copy(), str(refused.value)))
    assert told[0][0] == [(8, 1, 1)] and told == [told[0]] * 3


# -- sessions


def test_the_oldest_session_of_a_person_gives_way_to_their_own(
    cheap: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_room, "SESSIONS_OF_ONE_MAX", 3)
    shop = Shop()
    shop.staff.add("Tuula", "viewer", PASSWORD, NOW)
    other = shop.access.enter("Tuula", PASSWORD)
    mine = [shop.enter() for _ in range(5)]
    assert [shop.access.who(each) is not None for each in mine] == [False, False, True, True, True]
    assert shop.access.who(other) == Visitor("Tuula", "viewer")
    assert len(set(mine)) == 5


def test_two_passwords_are_checked_at_once_a_few_wait_and_more_are_refused(
    cheap: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop()
    going, let_go = threading.Semaphore(0), threading.Event()
    running: list[int] = []

    def slow(password: str, kept: str) -> bool:
        running.append(1)
        going.release()
        let_go.wait(60)
        running.pop()
        return False

    monkeypatch.setattr(staff_room, "fits", slow)
    refused: list[type] = []

    def enter() -> None:
        try:
            shop.enter()
        except (Busy, Forbidden) as error:
            refused.append(type(error))

    n_places = access_room.CHECKS_MAX + access_room.CHECKS_WAITING_MAX
    threads = [threading.Thread(target=enter) for _ in range(n_places)]
    for each in threads:
        each.start()
    for _ in range(access_room.CHECKS_MAX):
        assert going.acquire(timeout=60)
    while shop.access._n_checks < n_places:
        threading.Event().wait(0.001)
    assert len(running) == access_room.CHECKS_MAX == 2
    enter()
    assert refused == [Busy]
    let_go.set()
    for each in threads:
        each.join(60)
    assert refused == [Busy, *[Forbidden] * n_places] and shop.access._n_checks == 0


def test_nothing_that_is_stored_opens(tmp_path: Path, cheap: None) -> None:
    disk = SystemDisk(tmp_path)
    staff, access = Staff(disk, SystemChance()), Access(disk, SimulatedClock(NOW), SystemChance())
    staff.add("Sami", "admin", PASSWORD, NOW)
    session = access.enter("Sami", PASSWORD)
    staff.add("Gone", "viewer", "another secret of five words", NOW)
    db = disk.connect(staff_room.FILE)
    (gone,) = db.execute("SELECT password FROM staff WHERE name = 'Gone'").fetchone()
    staff.remove("Gone")
    files = [each for each in tmp_path.rglob("*") if each.is_file()]
    assert {"staff.db", "sessions.json"} <= {each.name for each in files}
    for each in files:
        kept = each.read_bytes()
        assert not any(secret.encode() in kept for secret in (session, PASSWORD, "another secret")), each
        assert gone.encode() not in kept, "not even the hash stays of who was removed"
        assert each.stat().st_mode & 0o077 == 0, each


# -- the console


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "MEMORY_KIB", 8)
        patch.setattr(passwords, "PASSES", 1)
        patch.setattr(passwords, "_PRESENT", "$argon2id$v=19$m=8,t=1,p=1$")
        yield House(tmp_path_factory.mktemp("staff"))


def enter(house: House, name: str, password: str, session: str = "", **headers: str) -> httpx.Response:
    body = str(httpx.QueryParams({"name": name, "password": password}))
    given = {"content-type": FORM_TYPE, "origin": "http://hetki", **headers}
    return ask(house.app, "/sign-in", session, "POST", body, given)


def test_a_name_and_its_password_open_the_console_and_end_the_session_before(house: House) -> None:
    before = house.signed_in("Aino", "viewer")
    answer = enter(house, "aino", PASSWORD, before)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    session = re.findall(rf"{COOKIE}=(\w+)", cookie)[0]
    assert house.get("/", session).status_code == 200 and session != before
    assert house.get("/", before).status_code == 303, "one browser, one session"
    assert "Aino viewer" in words(house.get("/", session))
    assert house.get("/sign-in", session).headers["location"] == "/"
    assert house.post("/sign-out", session).status_code == 303
    assert house.get("/", session).status_code == 303


def test_a_refused_sign_in_tells_nothing_of_who_is_known(house: House) -> None:
    house.signed_in("Bertta", "admin")
    told = []
    for name in ("Bertta", "Nobody"):
        answer = enter(house, name, "not the right one at all")
        assert answer.status_code == 401 and "set-cookie" not in answer.headers
        told.append(answer.text.replace(name, "NAME"))
    assert told[0] == told[1] and "do not belong together" in told[0]
    hostile = enter(house, f'"{EVIL}', PASSWORD)
    assert EVIL not in hostile.text and "&lt;script&gt;" in hostile.text
    assert PASSWORD not in hostile.text


def test_another_site_signs_nobody_in(house: House) -> None:
    house.signed_in("Celia", "agent")
    for origin in ("http://evil.example", "null", "http://hetki:81"):
        answer = enter(house, "Celia", PASSWORD, origin=origin)
        assert answer.status_code == 403 and "set-cookie" not in answer.headers


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x", "text/plain"])
def test_only_a_form_signs_in(house: House, kind: str) -> None:
    answer = enter(house, "x", PASSWORD, **{"content-type": kind})
    assert answer.status_code == 400 and "set-cookie" not in answer.headers


def test_the_console_answers_while_passwords_are_checked(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    checking, let_go = threading.Event(), threading.Event()

    def slow(self: Staff, name: str, password: str) -> None:
        checking.set()
        assert let_go.wait(60), "the console did not answer meanwhile"

    monkeypatch.setattr(Staff, "proved", slow)

    async def both() -> list[int]:
        transport = httpx.ASGITransport(house.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://hetki") as client:
            data = {"name": "x", "password": "y"}
            entering = asyncio.ensure_future(client.post("/sign-in", data=data))
            while not checking.is_set():
                await asyncio.sleep(0)
            seen = await client.get("/style.css")
            let_go.set()
            return [seen.status_code, (await entering).status_code]

    assert asyncio.run(both()) == [200, 401]


def test_what_somebody_with_an_account_says_is_said_in_their_name(house: House) -> None:
    session = house.signed_in("Dora Ö", "agent")
    for user in ("one", "two"):
        house.identify(userId=user)
    advance(house.engine)
    page = f"/customers/{house.customer('user_id', 'one')}/identities"
    text = house.get(page, session).text
    assert "You say so: <strong>Dora Ö</strong>" in text and 'name="said_by"' not in text
    assert 'name="said_by"' in house.get(page).text, "the operator has no account"
    merge = page.replace("identities", "merge")
    done = house.post(merge, session, other="two", despite_unique="yes", said_by="Somebody Else")
    assert done.status_code == 303 and NAME_COOKIE not in done.headers.get("set-cookie", "")
    advance(house.engine)
    said = house.engine.db.execute("SELECT DISTINCT said_by FROM links WHERE kind = 'merge'").fetchall()
    assert said == [("Dora Ö",)]


def test_a_feed_ends_with_the_session(house: House) -> None:
    session = house.signed_in("Eila", "agent")
    Staff(house.disk, house.engine.chance).set_role("Eila", "viewer", NOW)
    assert house.get("/feed", session).status_code == 303
    again = house.access.enter("Eila", PASSWORD)
    assert house.get("/feed", again).status_code == 403
    assert "feed.js" not in house.get("/", again).text, "a page asks for nothing that it may not have"


# -- the command line


def test_the_command_adds_lists_changes_and_removes(
    tmp_path: Path, cheap: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "shop"

    def hetki(*given: str, typed: str | bytes = "") -> Ended:
        return called([*given, "-C", folder], monkeypatch, capsys, typed)

    assert called(["init", folder], monkeypatch, capsys).code == 0
    assert "nobody; hetki staff add" in hetki("staff")[1] and not (folder / "data").exists()
    assert hetki("staff", "add", "Sami", "--role", "agent", typed=PASSWORD + "\r\nmore\n")[0] == 0
    assert re.fullmatch(r"Sami  agent  since 20\S+ \S+Z\n", hetki("staff")[1])
    staff = Staff(SystemDisk(folder / "data"), SystemChance())
    assert staff.proved("Sami", PASSWORD) and not staff.proved("Sami", "")
    refused = hetki("staff", "add", "Oma", "--role", "agent", typed="short\n")
    assert refused[0] == EXIT["invalid"] and "15 to 256 characters" in refused[2]
    for typed in (PASSWORD + "\udce9", PASSWORD.encode() + b"\xe9"):
        refused = hetki("staff", "add", "Oma", "--role", "agent", typed=typed)
        assert refused[0] == EXIT["invalid"] and "text in UTF-8" in refused[2], "no browser could send it"
    assert hetki("staff", "add", "SAMI", "--role", "agent", typed=PASSWORD)[0] == EXIT["conflict"]
    unknown = hetki("staff", "add", "Oma", "--role", "agnet", typed=PASSWORD)
    assert unknown[0] == EXIT["invalid"] and "did you mean 'agent'" in unknown[2]
    assert hetki("staff", "role", "sami", "admin")[0] == 0
    assert hetki("staff", "passwd", "sami", typed="another secret of five words\n")[0] == 0
    found = staff.proved("Sami", "another secret of five words")
    assert found is not None and found.role == "admin" and not staff.proved("Sami", PASSWORD)
    assert hetki("staff", "remove", "Samy")[0] == EXIT["not_found"]
    assert hetki("staff", "remove", "sami")[0] == 0 and staff.everybody() == []
    (folder / "hetki.toml").write_text((folder / "hetki.toml").read_text() + "colour = 1\n")
    assert hetki("staff")[0] == 0, "also while the declarations have faults"


# -- backups


def test_people_come_back_from_a_backup_and_whoever_was_removed_since_does_not(cheap: None) -> None:
    """The newest copy of the secrets says who may sign in, also with an older backup."""
    world, vault = World(), Vault()
    world.live("09:00 web u=anna Help Searched n_results=0")
    chance = SeededChance(3)
    staff, access = Staff(world.disk, chance), Access(world.disk, world.clock, chance)
    for name, role in (("Sami", "agent"), ("Aino", "admin"), ("Onni", "viewer")):
        staff.add(name, role, PASSWORD, world.clock.now())
    session, token = access.enter("Sami", PASSWORD), access.new_token()
    first = vault.take(world)
    staff.remove("Aino")
    staff.set_role("Onni", "agent", world.clock.now())
    staff.set_password("Sami", "another one, for today", world.clock.now())
    world.clock.sleep(1)
    vault.take(world)
    data = MemoryDisk()
    _, done = vault.restore(world, first.backup, data)
    assert done.n_people == 2
    again = Access(data, world.clock, SeededChance(4))
    assert again.who(again.enter("Sami", "another one, for today")) == Visitor("Sami", "agent")
    assert again.who(again.enter("onni", PASSWORD)) == Visitor("Onni", "agent")
    for name in ("Aino", "Sami"):
        with pytest.raises(Forbidden):
            again.enter(name, PASSWORD)
    with pytest.raises(Forbidden):
        again.sign_in(token)
    assert again.who(session) is None


def test_no_session_comes_back_even_if_its_file_is_brought_along(cheap: None) -> None:
    """Who copies files out of the broken folder signs nobody in: all have another stamp."""
    world, vault, data = World(), Vault(), MemoryDisk()
    Staff(world.disk, SeededChance(2)).add("Sami", "agent", PASSWORD, world.clock.now())
    session = Access(world.disk, world.clock, SeededChance(1)).enter("Sami", PASSWORD)
    vault.take(world)
    vault.restore(world, data=data)
    data.write(access_room.SESSIONS_FILE, world.disk.read(access_room.SESSIONS_FILE))
    assert Access(data, world.clock, SeededChance(4)).who(session) is None


def test_a_copy_of_secrets_has_people_and_a_backup_none(cheap: None) -> None:
    world, vault = World(), Vault()
    vault.take(world)
    assert not has_staff(world.disk), "a backup makes no accounts"
    Staff(world.disk, SeededChance(2)).add("Sami Aalto", "agent", PASSWORD, world.clock.now())
    world.clock.sleep(1)
    done = vault.take(world)
    (part,) = vault.secrets.names("*/staff/*")
    good = vault.secrets.read(part)
    assert b"Sami Aalto" in good
    assert not [each for each in vault.backups.names("**/*") if b"Sami" in vault.backups.read(each)]
    vault.secrets.write(part, good.replace(b"agent", b"admin"))
    with pytest.raises(Invalid, match="another hash"):
        look_over(vault.secrets, done.secrets)
    with pytest.raises(Invalid, match="another hash"):
        vault.restore(world)


def test_people_lie_in_a_copy_no_longer_than_it_is_kept(cheap: None) -> None:
    world, vault = World(), Vault()
    staff = Staff(world.disk, SeededChance(2))
    staff.add("Sami Aalto", "agent", PASSWORD, world.clock.now())
    vault.take(world)
    staff.remove("Sami Aalto")
    world.clock.sleep(SECRETS_DAYS * 86_400 + 1)
    vault.take(world)
    assert not [each for each in vault.secrets.names("**/*") if b"Sami" in vault.secrets.read(each)]
