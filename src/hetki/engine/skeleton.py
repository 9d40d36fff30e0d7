"""Skeleton: the small CX project that `hetki init` writes. It passes `hetki check` as it stands."""

from __future__ import annotations


def skeleton(name: str = "My company") -> dict[str, str]:
    """The files of a new project: path -> text. `name` stands in `hetki.toml` and may be any one line."""
    quoted = "".join(each for each in name if each.isprintable()).replace("\\", "\\\\").replace('"', '\\"')
    return {path: text.replace("PROJECT_NAME", quoted) for path, text in _FILES.items()}


_TOML = """\
# A CX project. `hetki check` says everything that is wrong with it, and each moment in plain words.

[hetki]
name = "PROJECT_NAME"
data = "data"                    # journal, ledger and lake: never under version control
lateness_s = 10                  # how long silence waits for events that are still under way
time_zone = "UTC"                # of customers whose own zone is not known

[purposes.service]
title = "Helping you with what you came for"
basis = "contract"

[purposes.marketing]
title = "News and offers"
basis = "consent"
gpc = true                       # a browser's Sec-GPC signal refuses it
dpv = "DirectMarketing"          # what it is in the W3C's vocabulary: to this one may always object

[destinations.app]
kind = "webhook"
url = "http://localhost:8089/messages"
inside = ["localhost"]           # this machine: otherwise only public addresses are reached
secret = "env:APP_SECRET"        # read from the environment when a message is sent

[destinations.mail]
kind = "email"
server = "localhost:1025"
inside = ["localhost"]
sender = "hello@example.com"

[contact]
quiet_hours = "21:00-08:00"      # in the customer's own time
cap = "3 per 7 days"
"""

_WEB = """\
source: web
title: Web site and shop
channel: web
write_keys: []                   # hetki key web makes one; a sender appends with it and reads nothing
purposes: [service, marketing]
retention: 24 months
"""

_DESK = """\
source: desk
title: Contact centre
channel: contact_centre
write_keys: []
purposes: [service]              # what people tell an agent is not for marketing
retention: 12 months
"""

_INITIATIVE = """\
initiative: better_help
title: Help that is found
owner: service_team
horizon: mainstream
"""

_SEGMENT = """\
segment: help_fails
title: Help has failed them lately
purpose: service
who: aggregate.n_in_vain >= 3
aggregates:
  n_in_vain: count of Help Searched where n_results = 0, over 30 days
"""

_MOMENT = """\
moment: searched_in_vain
title: Searches help twice, finds nothing, and asks nobody
owner: service_team
initiative: better_help
purpose: service
identify:
  need: "Who can tell me?"
  steps:
    - searched: Help Searched where n_results = 0
    - again: Help Searched where n_results = 0
    - no helped: Contact Started or Chat Started or Help Viewed, for 10 minutes after again
  within: 1 hour
  repeat: once per 7 days
  expires: 30 minutes
design:
  answers: [offer_chat, send_guide]          # doing nothing is always a candidate
secure:
  process: docs/help.md
analyse:
  solved: Help Viewed or Chat Started within 1 day
  business: Order Completed within 30 days
  guardrails: [Unsubscribed, Complaint Opened]
  holdout: 10%
"""

_CHAT = """\
action: offer_chat
title: Offer a chat while the question is fresh
purpose: service
destination: app
template: offer_chat
value: {customer: 4, business: 1}            # what it is worth, in points
cost: 0.5
eligible: again.device = 'mobile'
cap: 1 per 1 day
"""

_GUIDE = """\
action: send_guide
title: Send the guide by e-mail
purpose: service
destination: mail
template: send_guide
value: {customer: 2}
cost: 0.5
"""

_CASES = """\
moment: searched_in_vain
cases:
  - name: fires after ten silent minutes
    events:
      - {at: 0 minutes, name: Help Searched, query: gift card, n_results: 0}
      - {at: 2 minutes, name: Help Searched, query: voucher, n_results: 0}
    fires: [12 minutes]
  - name: must not fire when the customer starts a chat
    events:
      - {at: 0 minutes, name: Help Searched, query: gift card, n_results: 0}
      - {at: 2 minutes, name: Help Searched, query: voucher, n_results: 0}
      - {at: 5 minutes, name: Chat Started}
    fires: []
  - name: must not fire when the second search finds something
    events:
      - {at: 0 minutes, name: Help Searched, query: gift card, n_results: 0}
      - {at: 2 minutes, name: Help Searched, query: gift cards, n_results: 3}
    fires: []
"""

_FILES = {
    ".gitignore": "data/\n",
    "hetki.toml": _TOML,
    "sources/web.yaml": _WEB,
    "sources/desk.yaml": _DESK,
    "initiatives/better_help.yaml": _INITIATIVE,
    "segments/help_fails.yaml": _SEGMENT,
    "moments/searched_in_vain.yaml": _MOMENT,
    "actions/offer_chat.yaml": _CHAT,
    "actions/send_guide.yaml": _GUIDE,
    "templates/offer_chat.liquid": (
        'You looked for "{{ again.query | default: "help" }}" and we had no answer. Shall we talk?\n'
    ),
    "templates/offer_chat.fi.liquid": (
        'Etsit: "{{ again.query | default: "apua" }}", eikä meillä ollut vastausta. Jutellaanko?\n'
    ),
    "templates/send_guide.liquid": (
        "Subject: What you looked for\n\n"
        'Hello {{ customer.first_name | default: "there" }},\n\n'
        'you searched our help for "{{ searched.query | default: "an answer" }}" and found nothing.\n'
        "Reply to this message, and a person will answer.\n"
    ),
    "templates/send_guide.fi.liquid": (
        "Subject: Mitä etsit\n\n"
        'Hei {{ customer.first_name | default: "sinä" }},\n\n'
        'etsit ohjeistamme: "{{ searched.query | default: "vastausta" }}", etkä löytänyt mitään.\n'
        "Vastaa tähän viestiin, niin ihminen vastaa sinulle.\n"
    ),
    "docs/help.md": "# When help is not found\n\nWho writes the missing article, and by when.\n",
    "tests/searched_in_vain.yaml": _CASES,
}
