"""`python -m hetki`: the same as the command `hetki`."""

from __future__ import annotations

from hetki.cli import main

if __name__ == "__main__":
    main()
