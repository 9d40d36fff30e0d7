"""An e-mail as bytes (RFC 5322): plain text, one recipient, nothing that a value could add a header with."""

from __future__ import annotations

from email.charset import QP, Charset
from email.generator import BytesGenerator
from email.header import Header
from email.message import Message
from email.policy import compat32
from email.utils import format_datetime
from io import BytesIO

from hetki.dialogues.destination import is_address
from hetki.errors import Fault, Invalid
from hetki.events.event import utc

#: Longer words than this cannot be folded into lines that every server takes, unless they are encoded.
PLAIN_CHARS_MAX = 200


def compose(message_id: str, sent_at: int, sender: str, recipient: str, subject: str, body: str) -> bytes:
    """One complete message with CRLF line ends; the same arguments give the same bytes.

    Raises `Invalid` if an address is not one plain address, or the subject is empty.
    """
    faults = [
        Fault(where, "another text", "one plain e-mail address")  # unseen: it is personal, and this is kept
        for where, address in (("sender", sender), ("recipient", recipient))
        if not is_address(address)
    ]
    subject = " ".join("".join(each if each.isprintable() else " " for each in subject).split())
    if not subject:
        faults.append(
            Fault("subject", "nothing", "some words", "start the template with a line Subject: ...")
        )
    if faults:
        raise Invalid(*faults)
    letter = Message(policy=compat32)
    letter["Message-ID"] = f"<{message_id}@{sender.rpartition('@')[2]}>"
    letter["Date"] = format_datetime(utc(sent_at))
    letter["From"] = sender
    letter["To"] = recipient
    letter["Subject"] = _safe_header(subject)
    letter["Auto-Submitted"] = "auto-generated"
    letter["MIME-Version"] = "1.0"
    charset = Charset("utf-8")
    charset.body_encoding = QP
    text = "\n".join(body.encode("utf-8", "replace").decode().splitlines()) + "\n"
    letter.set_payload(text, charset)
    written = BytesIO()
    BytesGenerator(written, mangle_from_=False, policy=compat32.clone(linesep="\r\n")).flatten(letter)
    return written.getvalue()


def _safe_header(text: str) -> str:
    """Plain ASCII as it is; anything else, or what reads like an encoded word, as encoded words.

    The modern classes of the library would decode `=?utf-8?q?=0A?=` in a value and write the line break
    (CVE-2024-6923); these do not.
    """
    plain = text.isascii() and "=?" not in text and len(text) <= PLAIN_CHARS_MAX
    return Header(text, "us-ascii" if plain else "utf-8", header_name="Subject").encode()
