"""Reads numbers back out of bqplot's marks, from the geometry that Chromium has drawn."""

import re

from playwright.sync_api import Locator

# An axis says what a pixel is worth: two of its ticks give the line from position to value.
BARS = """figure => {
  const at = node => new DOMMatrix(getComputedStyle(node).transform);
  const axes = [...figure.querySelectorAll("g.axis")].map(axis =>
    [...axis.querySelectorAll("g.tick")].map(tick => {
      const t = tick.transform.baseVal.consolidate().matrix;
      return {x: t.e, y: t.f, text: tick.textContent.replace("−", "-")};
    }));
  const vertical = axes.find(ticks => ticks.length > 1 && ticks[0].y !== ticks[1].y);
  const horizontal = axes.find(ticks => ticks.length && ticks !== vertical);
  const [low, high] = [vertical[0], vertical[vertical.length - 1]];
  const slope = (Number(high.text) - Number(low.text)) / (high.y - low.y);
  const value = y => Number(low.text) + slope * (y - low.y);
  const groups = [...figure.querySelectorAll("g.bargroup")];
  return {
    names: horizontal.map(tick => tick.text),
    bars: groups.map(group => [...group.querySelectorAll("rect.bar")].map(bar => {
      const [y, height] = [Number(bar.getAttribute("y")), Number(bar.getAttribute("height"))];
      const [top, bottom] = [value(y), value(y + height)];
      return {
        value: Math.abs(top) > Math.abs(bottom) ? top : bottom,
        colour: getComputedStyle(bar).fill,
        left: bar.getBoundingClientRect().left,
      };
    })),
  };
}"""


def bars(figure: Locator) -> tuple[list[str], list[list[dict]]]:
    """Names on the x axis, and for each of them its bars from left to right: value and colour."""
    drawn = figure.evaluate(BARS)
    return drawn["names"], [sorted(group, key=lambda bar: bar["left"]) for group in drawn["bars"]]


def rgb(colour: str) -> str:
    """#rrggbb as getComputedStyle writes it.

    >>> rgb("#0072B2")
    'rgb(0, 114, 178)'
    """
    return f"rgb({', '.join(str(int(part, 16)) for part in re.findall('..', colour[1:]))})"
