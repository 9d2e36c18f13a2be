"""What every page that we write has in common: one file, complete in itself. It fetches nothing, and runs nothing that came
in with its data."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from html import escape

BASE_STYLE = """
:root { color-scheme: light dark; --page: #fff; --text: #1c1e21; --faint: #5a6068; --rule: #dfe2e6; --track: #f1f3f5;
  --reached: #1a7f4b; --missed: #8f6000; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --page: #16181b; --text: #e4e6e9; --faint: #a0a7af; --rule: #33373c;
  --track: #22262a; --reached: #63c08b; --missed: #d9ab4a; --bad: #f28b82; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; padding: 0 1rem; color: var(--text);
  background: var(--page); overflow-wrap: anywhere; }
.small { color: var(--faint); font-size: 13px; }
.scroll { overflow-x: auto; }
"""
"""Colours for light and dark, and the text. Names that pages share: `--bad` is what failed, `--reached` what did not."""


def document(title: str, style: str, body: Iterable[str], *, script: str = "") -> str:
    """The whole page. `title` is text; `style`, `body` and `script` are ours, and `body` has escaped what is not."""
    # Whatever a name or a message brings along: only a script with this digest runs, and nothing is fetched.
    runs = f"; script-src 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" if script else ""
    policy = f"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'{runs}"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        f"<title>{text(title)}</title><style>{BASE_STYLE}{style}</style></head><body>",
        *body,
        *([f"<script>{script}</script>"] if script else []),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def text(words: object) -> str:
    """Other people's text, so that it is nothing but text: also where it turns the line around, or is no character at all."""
    return escape("".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in str(words)))


def data(name: str, value: object) -> str:
    """JSON that travels with the page, for machines; nothing in it can end its block or begin a script."""
    raw = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    for character in "<>&":
        raw = raw.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{text(name)}">{raw}</script>'
