"""Reads numbers back out of bqplot's marks, from the geometry that Chromium has drawn."""

import re

from playwright.sync_api import Locator

# An axis says what a pixel is worth: two of its ticks give the line from position to value.
BARS = """figure => {
  const axes = [...figure.querySelectorAll("g.axis")].map(axis =>
    [...axis.querySelectorAll("g.tick")].map(tick => {
      const t = tick.transform.baseVal.consolidate().matrix;
      return {x: t.e, y: t.f, text: tick.textContent.replace("−", "-")};
    }));
  const vertical = axes.find(ticks => ticks.length > 1 && ticks[0].y !== ticks[1].y);
  const horizontal = axes.find(ticks => ticks.length && ticks !== vertical);
  const [low, high] = [vertical[0], vertical[vertical.length - 1]];
  const worth = (Number(high.text) - Number(low.text)) / (high.y - low.y);
  const zero = low.y - 0.5 - Number(low.text) / worth;  // d3 shifts ticks by half a pixel
  const groups = [...figure.querySelectorAll("g.bargroup")];
  return {
    names: horizontal.map(tick => tick.text),
    bars: groups.map(group => [...group.querySelectorAll("rect.bar")].map(bar => {
      const [y, height] = [Number(bar.getAttribute("y")), Number(bar.getAttribute("height"))];
      const side = Math.abs(y + height - zero) < Math.abs(y - zero) ? 1 : -1;
      return {
        value: side * height * Math.abs(worth),
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


def lines(figure: Locator) -> dict[str, list[float]]:
    """The y values of each visible line, by its colour."""
    drawn = figure.evaluate(
        """figure => {
          const value = text => Number(text.replace("−", "-").replace("%", ""))
            / (text.endsWith("%") ? 100 : 1);
          const at = tick => tick.transform.baseVal.consolidate().matrix.f - 0.5;
          const ticks = [...figure.querySelectorAll("g.axis")]
            .map(axis => [...axis.querySelectorAll("g.tick")])
            .find(ticks => ticks.length > 1 && at(ticks[0]) !== at(ticks[1]));
          const [low, high] = [ticks[0], ticks.at(-1)];
          const worth = (value(high.textContent) - value(low.textContent)) / (at(high) - at(low));
          return [...figure.querySelectorAll("path.line")]
            .filter(line => line.getAttribute("d") && getComputedStyle(line).opacity !== "0")
            .map(line => [getComputedStyle(line).stroke, line.getAttribute("d").slice(1)
              .split("L").map(pair => value(low.textContent)
                + worth * (Number(pair.split(",")[1]) - at(low)))]);
        }"""
    )
    return dict(drawn)


def points(figure: Locator) -> dict[str, tuple[float, float]]:
    """Where each visible scatter point lies, in the axes' units, by its colour."""
    drawn = figure.evaluate(
        """figure => {
          const middle = (node, side) => {
            const box = node.getBoundingClientRect();
            return side === "x" ? (box.left + box.right) / 2 : (box.top + box.bottom) / 2;
          };
          const place = (ticks, side) => {
            const value = tick => Number(tick.textContent.replace("−", "-"));
            const at = tick => middle(tick.querySelector("line"), side);
            const [low, high] = [ticks[0], ticks.at(-1)];
            const worth = (value(high) - value(low)) / (at(high) - at(low));
            return pixel => value(low) + worth * (pixel - at(low));
          };
          const axes = [...figure.querySelectorAll("g.axis")]
            .map(axis => [...axis.querySelectorAll("g.tick")]).filter(ticks => ticks.length > 1);
          // A colour axis has ticks too; it stands right of the one that is meant.
          const apart = (ticks, side) => Math.abs(middle(ticks[0].querySelector("line"), side)
            - middle(ticks[1].querySelector("line"), side)) > 1;
          const x = axes.find(ticks => apart(ticks, "x"));
          const [y] = axes.filter(ticks => apart(ticks, "y"))
            .sort((one, other) => middle(one[0], "x") - middle(other[0], "x"));
          return [...figure.querySelectorAll("path.dot")]
            .filter(dot => getComputedStyle(dot).opacity !== "0")
            .map(dot => [getComputedStyle(dot).fill,
              [place(x, "x")(middle(dot, "x")), place(y, "y")(middle(dot, "y"))]]);
        }"""
    )
    return {colour: tuple(point) for colour, point in drawn}


def picture(figure: Locator) -> list[list[float]]:
    """A heat map's rows from the top: how dark each cell is, 0 (white) to 1 (black)."""
    return figure.evaluate(
        """figure => {
          const cells = [...figure.querySelectorAll(".heatmapcell")].map(cell => {
            const box = cell.getBoundingClientRect();
            const [red] = getComputedStyle(cell).fill.match(/[\\d.]+/g).map(Number);
            return {top: Math.round(box.top), left: box.left, dark: 1 - red / 255};
          });
          const tops = [...new Set(cells.map(cell => cell.top))].sort((a, b) => a - b);
          return tops.map(top => cells.filter(cell => cell.top === top)
            .sort((a, b) => a.left - b.left).map(cell => cell.dark));
        }"""
    )
