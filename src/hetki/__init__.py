"""Hetki: an open customer-experience engine.

Start reading at `hetki.events.event` (what arrives), then `hetki.moments.fold` (what is made of it),
then `hetki.engine.advance` (where the two meet the disk).
"""

__version__ = "0.1.0"
