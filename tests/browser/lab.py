"""A page of JupyterLab or Notebook 7 with one notebook open: run it, and ask what came of it."""

from typing import Any

from playwright.sync_api import ConsoleMessage, Locator, Page

# Seen on a machine with ten times the work that it could do: anywidget complains after two
# seconds. If names were then missing, the tests of names would say so.
HARMLESS = ("[anywidget] Failed to initialize model.",)

# --expose-app-in-browser puts the application into the page: JupyterLab draws only the cells that
# are in view, so whether all have run is asked of its model, not of the page.
FINISHED = """() => {
  const panel = window.jupyterapp?.shell.currentWidget;
  const cells = [...(panel?.content?.model?.cells ?? [])].filter(
    cell => cell.type === "code" && cell.sharedModel.source.trim());
  const kernel = panel?.context.sessionContext.session?.kernel;
  return cells.length > 0 && kernel?.status === "idle" && cells.every(
    cell => cell.executionState === "idle" && cell.executionCount > 0);
}"""
CELLS = """() => [...window.jupyterapp.shell.currentWidget.content.model.cells]
  .filter(cell => cell.type === "code")
  .map(cell => ({
    id: cell.id,
    count: cell.executionCount,
    tags: cell.getMetadata("tags") ?? [],
    outputs: cell.outputs.toJSON(),
  }))"""
IDLE = "() => window.jupyterapp?.shell.currentWidget?.context?.sessionContext" + (
    "?.session?.kernel?.status === 'idle'"
)


def listen(page: Page, harmless: tuple[str, ...]) -> list[str]:
    """A list that grows with every error of the page's scripts or console, but for those that
    hold one of the `harmless` strings."""
    problems: list[str] = []

    def note(said: str) -> None:
        if not any(noise in said for noise in harmless):
            problems.append(said)

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            note(f"console: {message.text} ({message.location.get('url', '')})")

    page.on("console", on_console)
    page.on("pageerror", lambda error: note(f"page error: {error}"))
    return problems


class NotebookPage:
    """One notebook in one browser page. `problems` collects what the console reports as errors."""

    def __init__(self, page: Page, server: str) -> None:
        self.page, self.server = page, server
        self.problems = listen(page, HARMLESS)

    def open(self, notebook: str, view: str = "lab/tree") -> None:
        """Open it and wait for its kernel. view: "lab/tree" (JupyterLab), "doc/tree" (its
        single-document mode), "notebooks" (Notebook 7)."""
        reset = "" if view == "notebooks" else "?reset"
        self.page.goto(f"{self.server}/{view}/{notebook}{reset}")
        self.page.wait_for_function(IDLE, timeout=60_000)

    def run_all(self, seconds: float = 600) -> list[dict[str, Any]]:
        """Run > Run All Cells, as a reader would; the code cells with outputs when all have run."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        self.page.wait_for_function(FINISHED, timeout=1000 * seconds)
        return self.page.evaluate(CELLS)

    def run(self, source: str) -> None:
        """Have the notebook's kernel run a line, as a cell of the reader's own would."""
        self.page.evaluate(
            """async code => {
              const context = window.jupyterapp.shell.currentWidget.context.sessionContext;
              const future = context.session.kernel.requestExecute({code});
              const reply = await future.done;
              if (reply.content.status !== "ok") throw new Error(reply.content.evalue);
            }""",
            source,
        )

    def widget(self, css_class: str) -> Locator:
        """The widget with this class, scrolled into view and drawn."""
        widget = self.page.locator(f".{css_class}")
        widget.wait_for(timeout=20_000)
        widget.scroll_into_view_if_needed()
        widget.locator("svg.svg-figure").first.wait_for()
        return widget

    def use_theme(self, theme: str) -> None:
        self.page.evaluate(
            "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme
        )
        light = str("Dark" not in theme).lower()
        self.page.locator(f"body[data-jp-theme-light='{light}']").wait_for(state="attached")
        # JupyterLab's splash fades over the page for a moment.
        self.page.locator("#jupyterlab-splash").wait_for(state="detached")

    def close(self) -> None:
        """End the kernel and close the page."""
        self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.context.sessionContext.shutdown()"
        )
        self.page.close()
