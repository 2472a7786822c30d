"""What people do to a widget, and what a screen reader or a narrow page makes of it."""

import math
import re
import time
from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect

ROLES = ("slider", "combobox", "checkbox", "radio", "button", "textbox", "spinbutton", "listbox")
BETA = "β (inverse temperature)"  # the slider that all instruments for one loss have


def eventually(check: Callable[[], None], seconds: float = 30) -> None:
    """Retry until the check's assertions hold: a page follows its kernel a little later."""
    end = time.monotonic() + seconds
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def drag(handle: Locator, pixels: float, steps: int = 10) -> None:
    """Take a slider's handle with the mouse and move it sideways."""
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse = handle.page.mouse
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + pixels, y, steps=steps)
    mouse.up()


def handle(widget: Locator, name: str) -> Locator:
    """A slider's handle."""
    return widget.get_by_role("slider", name=name, exact=True)


def reading(slider: Locator) -> float:
    """The value that the slider shows, once its handle reports the same to a screen reader."""
    in_slider = "handle => handle.closest('.widget-slider').querySelector('.widget-readout')"
    shown = ""

    def agree() -> None:
        nonlocal shown
        shown = slider.evaluate(f"handle => ({in_slider})(handle).textContent")
        assert slider.get_attribute("aria-valuetext") == shown

    eventually(agree)
    return float(shown.replace("−", "-"))


def beta_of(widget: Locator, a_doubling: int = 4) -> float:
    """β as it is, not as rounded for the reader: its slider takes so many steps to a doubling."""
    return 2 ** (round(a_doubling * math.log2(reading(handle(widget, BETA)))) / a_doubling)


def expect_says(slider: Locator, text: str) -> None:
    """Wait until the slider's handle reports this value."""

    def says() -> None:
        assert slider.get_attribute("aria-valuetext") == text

    eventually(says)


def expect_text(widget: Locator, words: str, seconds: float = 30) -> None:
    """Wait until the widget shows these words."""

    def shows() -> None:
        assert words in widget.inner_text()

    eventually(shows, seconds)


def number(widget: Locator, pattern: str) -> float:
    """The number in the widget's text that the pattern's group captures."""
    found = re.search(pattern, widget.inner_text())
    assert found, widget.inner_text()
    return float(found.group(1).replace("−", "-"))


def moved(slider: Locator, move: Callable[[], None]) -> float:
    """The slider's new value, once the move has changed it."""
    before = reading(slider)
    move()

    def has_moved() -> None:
        assert reading(slider) != before

    eventually(has_moved)
    return reading(slider)


def write(widget: Locator, name: str, text: str) -> None:
    """Write over what is in a field, and press Enter."""
    field = widget.get_by_role("textbox", name=name, exact=True)
    field.press("ControlOrMeta+a")
    field.press_sequentially(text)
    field.press("Enter")


def spin(widget: Locator, name: str, times: int = 1) -> None:
    """Click on the upper one of a number field's two arrows, which come when the mouse does."""
    field = widget.get_by_role("spinbutton", name=name, exact=True)
    field.hover()
    box = field.bounding_box()
    for _ in range(times):
        field.page.mouse.click(box["x"] + box["width"] - 8, box["y"] + 0.3 * box["height"])


def click(widget: Locator, name: str) -> None:
    """A button, by mouse."""
    widget.get_by_role("button", name=name, exact=True).click()


def enter(widget: Locator, name: str) -> None:
    """A button, by keyboard, once it is enabled: before, it cannot have the focus."""
    button = widget.get_by_role("button", name=name, exact=True)
    expect(button).to_be_enabled()
    button.press("Enter")


def accessible_controls(widget: Locator) -> list[tuple[str, str]]:
    """(role, name) of every control that can be used, from Chromium's accessibility tree."""
    devtools = widget.page.context.new_cdp_session(widget.page)
    devtools.send("Accessibility.enable")
    mark = "data-kdlab-asked"
    widget.evaluate("(node, mark) => node.setAttribute(mark, '')", mark)
    root = devtools.send("DOM.getDocument")["root"]["nodeId"]
    node = devtools.send("DOM.querySelector", {"nodeId": root, "selector": f"[{mark}]"})["nodeId"]
    widget.evaluate("(node, mark) => node.removeAttribute(mark)", mark)
    found = []
    for role in ROLES:
        answer = devtools.send("Accessibility.queryAXTree", {"nodeId": node, "role": role})
        found += [
            (role, entry.get("name", {}).get("value", "").strip())
            for entry in answer["nodes"]
            if not entry["ignored"] and not _disabled(entry)
        ]
    devtools.detach()
    return found


def _disabled(entry: dict) -> bool:
    return any(p["name"] == "disabled" and p["value"]["value"] for p in entry["properties"])


def tab_stops(widget: Locator, most: int = 60) -> set[str]:
    """Names of what Tab reaches in the widget, from before it to the first stop after it."""
    page = widget.page
    widget.evaluate(
        """node => {
          const before = document.createElement("span");
          before.tabIndex = -1;
          node.before(before);
          before.focus();
        }"""
    )
    names: list[str | None] = []
    for _ in range(most):
        page.keyboard.press("Tab")
        name = widget.evaluate(
            """node => {
              const at = document.activeElement;
              if (!node.contains(at)) return null;
              return (at.getAttribute("aria-label") || at.labels?.[0]?.textContent
                || at.textContent).trim();
            }"""
        )
        if name is None and names:
            break
        if name is not None:
            names.append(name)
    return set(names)


def overflow(widget: Locator) -> list[str]:
    """What sticks out of the widget sideways, or would have to be scrolled to."""
    return widget.evaluate(
        """node => {
          const edge = node.getBoundingClientRect(), margin = 5;  // ipywidgets' own margins
          const shown = item => item.getClientRects().length && !item.closest("defs, clipPath");
          return [node, ...node.querySelectorAll("*")].filter(shown).filter(item => {
            const box = item.getBoundingClientRect();
            const scrolls = getComputedStyle(item).overflowX !== "visible"
              && item.scrollWidth > item.clientWidth + margin && item instanceof HTMLElement;
            // A figure is drawn anew, some time later, for a new width; its marks are clipped.
            const area = item.matches(".plotarea_events") && item.ownerSVGElement;
            const cut = area && box.right > area.getBoundingClientRect().right;
            const out = box.right > edge.right + margin || box.left < edge.left - margin;
            return scrolls || cut || out;
          }).map(item => {
            const box = item.getBoundingClientRect();
            const name = `${item.tagName}.${item.getAttribute("class")}`;
            return `${name}: ${box.left} to ${box.right} in ${edge.left} to ${edge.right}, ` +
              `${item.scrollWidth} in ${item.clientWidth}`;
          });
        }"""
    )


def check_legible_at_700_pixels(
    page: Page, widget: Locator, name: str, use_theme: Callable[[str], None], artifact: Callable
) -> None:
    """In both of JupyterLab's themes: nothing sticks out, and text has WCAG's contrast of 4.5."""

    def fits() -> None:
        assert widget.bounding_box()["width"] <= 700
        assert overflow(widget) == []

    before = page.viewport_size
    page.set_viewport_size({"width": 700, "height": 1000})
    try:
        for theme in ("Light", "Dark"):
            use_theme(f"JupyterLab {theme}")
            widget.scroll_into_view_if_needed()
            try:
                eventually(fits)
            finally:
                widget.screenshot(path=artifact(f"{name}-{theme.lower()}.png"))
            assert [(text, ratio) for text, ratio in contrasts(widget) if ratio < 4.5] == []
    finally:
        use_theme("JupyterLab Light")
        page.set_viewport_size(before)


def contrasts(widget: Locator) -> list[tuple[str, float]]:
    """(text, contrast with what is behind it) of every visible text, as WCAG 2.2 defines it."""
    return widget.evaluate(
        """widget => {
          const channels = colour => {
            const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
            return {rgb: [r, g, b], a};
          };
          const luminance = rgb => rgb.map(c => c / 255)
            .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
            .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
          const behind = node => {
            for (let at = node; at; at = at.parentElement) {
              const {rgb, a} = channels(getComputedStyle(at).backgroundColor);
              if (a > 0.5) return rgb;
            }
            return [255, 255, 255];
          };
          const results = [];
          const texts = document.createTreeWalker(widget, NodeFilter.SHOW_TEXT);
          while (texts.nextNode()) {
            const node = texts.currentNode.parentElement;
            const text = texts.currentNode.textContent.trim();
            const style = getComputedStyle(node);
            if (!text || !node.getClientRects().length || style.visibility === "hidden") continue;
            if (node.closest(":disabled, option, style, script")) continue;
            // What lies on marks has their colours behind it: for the eye, in the screenshots.
            if (node.closest("svg.svg-figure")) continue;
            const colour = node instanceof SVGElement ? style.fill : style.color;
            const {rgb, a} = channels(colour), ground = behind(node);
            const mixed = rgb.map((c, i) => a * c + (1 - a) * ground[i]);
            const [low, high] = [luminance(mixed), luminance(ground)].sort((x, y) => x - y);
            results.push([text, (high + 0.05) / (low + 0.05)]);
          }
          return results;
        }"""
    )
