"""Accessible names: what a screen reader says of sliders and figures.

ipywidgets 8 gives the handle of a slider no name, and speaks a log slider's exponent in place of
its value; bqplot gives its figures none. This invisible widget runs in the page and writes them.
It also leaves plain keys to the control that has the focus: JupyterLab would take arrows and
letters for commands of its own ("m" in a dropdown made the cell Markdown). Ctrl-S still saves.
"""

import anywidget
import traitlets

# The widget is mounted inside the instrument it serves (class "kdlab"), and looks no further.
_IN_THE_PAGE = """
function put(node, name, value) {
  if (node && node.getAttribute(name) !== value) node.setAttribute(name, value);
}
function nameAll(root, figures) {
  for (const slider of root.querySelectorAll(".widget-slider")) {
    const words = slider.querySelector(".widget-label")?.textContent ?? "";
    const readout = slider.querySelector(".widget-readout");
    for (const handle of slider.querySelectorAll(".noUi-handle")) {
      put(handle, "aria-label", words);
      if (readout) put(handle, "aria-valuetext", readout.textContent);
    }
    put(readout, "role", "textbox");
    put(readout, "aria-label", words + ", typed");
  }
  for (const [kind, words] of Object.entries(figures)) {
    const figure = root.querySelector("." + kind);
    put(figure, "role", "img");
    put(figure, "aria-label", words);
  }
}
function keepKeys(event) {
  if (!event.target.closest?.(".kdlab")) return;
  const command = event.ctrlKey || event.metaKey || event.altKey;
  event.target.toggleAttribute("data-lm-suppress-shortcuts", !command);
}
function render({ model, el }) {
  // JupyterLab listens at the document; the window comes before it. Added twice, it is there once.
  window.addEventListener("keydown", keepKeys, true);
  let waiting = 0;
  const watcher = new MutationObserver(soon);
  function soon() {
    if (!waiting) waiting = requestAnimationFrame(work);
  }
  function work() {
    waiting = 0;
    const root = el.closest(".kdlab");
    if (!root) return soon();  // not in the page yet
    nameAll(root, model.get("figures"));
    watcher.observe(root, { childList: true, subtree: true });
    for (const handle of root.querySelectorAll(".noUi-handle"))
      watcher.observe(handle, { attributes: true, attributeFilter: ["aria-valuenow"] });
  }
  el.style.display = "none";
  model.on("change:figures", soon);
  soon();
  return () => { watcher.disconnect(); cancelAnimationFrame(waiting); };
}
export default { render };
"""


class AccessibleNames(anywidget.AnyWidget):
    """Names every slider of the instrument around it by its description, and its figures.

    figures: {CSS class of a figure: what it shows, in words}. Draws nothing itself.
    """

    _esm = _IN_THE_PAGE
    figures = traitlets.Dict(value_trait=traitlets.Unicode()).tag(sync=True)
