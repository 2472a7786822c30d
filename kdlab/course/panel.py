"""How verdicts and scores look in a notebook: a coloured edge, a mark, words."""

import html

# Okabe and Ito's colours; the mark says the same to those who don't see them.
PASSED, HINT, QUIET = "#009E73", "#E69F00", "#767676"


def panel(colour: str, mark: str, title: str, words: str) -> str:
    """One line of HTML that takes its text colour from the page, light or dark.

    >>> panel(HINT, "…", "3.1 Title", "is 1 < 2?")  # doctest: +ELLIPSIS
    '<div role="status" style="border-left:4px solid #E69F00;...<b>3.1 Title</b> is 1 &lt; 2?</div>'
    """
    title, words = html.escape(title), html.escape(words)
    return (
        f'<div role="status" style="border-left:4px solid {colour};padding:.2em .8em">'
        f'<span aria-hidden="true" style="color:{colour}">{mark}</span> '
        f"<b>{title}</b> {words}</div>"
    )
