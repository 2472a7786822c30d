"""Links to headings mean the same on the site as in JupyterLab."""


def jupyterlab(title: str) -> str:
    """JupyterLab's anchor of a heading: the title, with hyphens for spaces.

    >>> jupyterlab("What it knows")
    'What-it-knows'
    """
    return title.strip().replace(" ", "-")
