"""The report as one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 60rem; margin: 2rem auto;
  padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
p, figcaption, .facts { color: #555; }
.cards { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.5rem 0; }
.card { background: #f4f6f8; border-radius: .6rem; padding: .8rem 1.4rem; min-width: 8rem; }
.card b { display: block; font-size: 2.2rem; line-height: 1.2; font-weight: 600; }
table { border-collapse: collapse; } th, td { padding: .25rem 1.1rem .25rem 0; text-align: right; }
th { font-weight: 600; border-bottom: 1px solid #ccc; } th:first-child, td:first-child { text-align: left; }
td { border-bottom: 1px solid #eee; font-variant-numeric: tabular-nums; }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1.2rem; margin: 0; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; display: block; }
"""


def number(value: float) -> str:
    """A figure with three decimals, or a dash where there is none."""
    return '–' if math.isnan(value) else f'{value:.3f}'  # noqa: RUF001


def cards(values: dict[str, float]) -> str:
    """The headline figures."""
    inner = ''.join(f'<div class="card"><b>{number(value)}</b>{escape(label)}</div>' for label, value in values.items())
    return f'<div class="cards">{inner}</div>'


def facts(values: dict[str, str]) -> str:
    """Names and what they are."""
    inner = ''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in values.items())
    return f'<dl class="facts">{inner}</dl>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names the rows."""
    top = ''.join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = ''.join('<tr>' + ''.join(f'<td>{escape(cell)}</td>' for cell in row) + '</tr>' for row in rows)
    return f'<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'


def paragraph(text: str) -> str:
    """A sentence or some."""
    return f'<p>{escape(text)}</p>'


def picture(data: bytes, kind: str, alt: str, caption: str = '') -> str:
    """An image inside the page.

    Args:
        data: the encoded image.
        kind: ``png`` or ``jpeg``.
        alt: what it shows, for those who can't see it.
        caption: what stands below it.
    """
    below = f'<figcaption>{escape(caption)}</figcaption>' if caption else ''
    source = f'data:image/{kind};base64,{base64.b64encode(data).decode()}'
    return f'<figure><img src="{source}" alt="{escape(alt)}">{below}</figure>'


def page(title: str, sections: Mapping[str, Sequence[str]]) -> str:
    """The whole page: sections by heading, the first one's heading being the title's own."""
    parts = [f'<h1>{escape(title)}</h1>']
    for heading, content in sections.items():
        if heading:
            parts.append(f'<h2>{escape(heading)}</h2>')
        parts.extend(content)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><style>{STYLE}</style></head><body>' + '\n'.join(parts) + '</body></html>\n'
    )
