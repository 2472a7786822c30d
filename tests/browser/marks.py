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
        opacity: Number(getComputedStyle(bar).opacity),
        left: bar.getBoundingClientRect().left,
      };
    })),
  };
}"""


def bars(figure: Locator) -> tuple[list[str], list[list[dict]]]:
    """Names on the x axis, and for each of them its bars from left to right: value,
    colour and opacity."""
    drawn = figure.evaluate(BARS)
    return drawn["names"], [sorted(group, key=lambda bar: bar["left"]) for group in drawn["bars"]]


def table(widget: Locator) -> dict[str, list[str]]:
    """The cells of the widget's table by the header of their row."""
    rows = widget.locator("tr:has(th[scope=row])").evaluate_all(
        """rows => rows.map(row => [row.querySelector("th").textContent.trim(),
          [...row.querySelectorAll("td")].map(cell => cell.textContent)])"""
    )
    return dict(rows)


def rgb(colour: str) -> str:
    """#rrggbb as getComputedStyle writes it.

    >>> rgb("#0072B2")
    'rgb(0, 114, 178)'
    """
    return f"rgb({', '.join(str(int(part, 16)) for part in re.findall('..', colour[1:]))})"


# What a position in the figure is worth, from two ticks of each axis. A colour axis has ticks too,
# right of the figure's own; with log scales equal distances are equal ratios.
PLACES = """(figure, log) => {
  const number = text => Number(text.replace("−", "-").replace("%", ""))
    / (text.endsWith("%") ? 100 : 1);
  const middle = (node, side) => {
    const box = node.getBoundingClientRect();
    return side === "x" ? (box.left + box.right) / 2 : (box.top + box.bottom) / 2;
  };
  const axes = [...figure.querySelectorAll("g.axis")].map(axis =>
    [...axis.querySelectorAll("g.tick")].filter(tick => tick.textContent)
      .map(tick => ({value: number(tick.textContent), line: tick.querySelector("line")})))
    .filter(ticks => ticks.length > 1);
  const place = side => {
    const apart = ticks => Math.abs(middle(ticks[0].line, side) - middle(ticks[1].line, side)) > 1;
    const [ticks] = axes.filter(apart)
      .sort((one, other) => middle(one[0].line, "x") - middle(other[0].line, "x"));
    const [bend, back] = log.includes(side) ? [Math.log, Math.exp] : [v => v, v => v];
    const [low, high] = [ticks[0], ticks.at(-1)];
    const [from, to] = [middle(low.line, side), middle(high.line, side)];
    const worth = (bend(high.value) - bend(low.value)) / (to - from);
    return pixel => back(bend(low.value) + worth * (pixel - from));
  };
  return {x: place("x"), y: place("y"), middle};
}"""


def lines(figure: Locator, log: str = "") -> dict[str, list[tuple[float, float]]]:
    """The points (x, y) of each visible line, in the axes' units, by its colour; the longest where
    several have one colour. log: the axes, of "x" and "y", that are logarithmic."""
    drawn = figure.evaluate(
        f"""(figure, log) => {{
          const {{x, y}} = ({PLACES})(figure, log);
          return [...figure.querySelectorAll("path.line")]
            .filter(line => line.getAttribute("d") && getComputedStyle(line).opacity !== "0")
            .map(line => {{
              const onScreen = line.getScreenCTM();
              return [getComputedStyle(line).stroke, line.getAttribute("d").replace(/^M|Z$/g, "")
                .split("L").map(pair => {{
                  const point = new DOMPoint(...pair.split(",").map(Number));
                  const at = point.matrixTransform(onScreen);
                  return [x(at.x), y(at.y)];
                }})];
            }});
        }}""",
        log,
    )
    found: dict[str, list[tuple[float, float]]] = {}
    for colour, points in drawn:
        found[colour] = max(found.get(colour, []), [tuple(p) for p in points], key=len)
    return found


def isolines(figure: Locator) -> list[list[tuple[float, float]]]:
    """The points (x, y) of all lines of each level of a contour mark, in the axes' units."""
    return figure.evaluate(
        f"""figure => {{
          const {{x, y}} = ({PLACES})(figure, "");
          const levels = [...figure.querySelectorAll("path:not([class])")]
            .filter(path => path.getAttribute("d") && path.getAttribute("fill") === "none");
          return levels.map(level => {{
            const onScreen = level.getScreenCTM();
            return level.getAttribute("d").split(/[ML]/).filter(Boolean).map(pair => {{
              const at = new DOMPoint(...pair.split(",").map(Number)).matrixTransform(onScreen);
              return [x(at.x), y(at.y)];
            }});
          }});
        }}"""
    )


def points(figure: Locator, log: str = "") -> dict[str, tuple[float, float]]:
    """Where each visible scatter point lies, in the axes' units, by its colour; `log` as above."""
    drawn = figure.evaluate(
        f"""(figure, log) => {{
          const {{x, y, middle}} = ({PLACES})(figure, log);
          return [...figure.querySelectorAll("path.dot")]
            .filter(dot => getComputedStyle(dot).opacity !== "0")
            .map(dot => [getComputedStyle(dot).fill, [x(middle(dot, "x")), y(middle(dot, "y"))]]);
        }}""",
        log,
    )
    return {colour: tuple(point) for colour, point in drawn}


def colour_axis(figure: Locator) -> list[float]:
    """The numbers at the colour axis, the rightmost one, in increasing order."""
    texts = figure.evaluate(
        """figure => {
          const axes = [...figure.querySelectorAll("g.axis")]
            .map(axis => [...axis.querySelectorAll("g.tick")].filter(tick => tick.textContent))
            .filter(ticks => ticks.length);
          const right = ticks => ticks[0].getBoundingClientRect().left;
          return axes.sort((one, other) => right(other) - right(one))[0].map(t => t.textContent);
        }"""
    )
    return sorted(float(text.replace("−", "-")) for text in texts)


def heat_map(figure: Locator, columns: int, rows: int) -> list[list[tuple[int, int, int]]]:
    """The colour (red, green, blue) in the middle of each cell, rows from the top."""
    drawn = figure.evaluate(
        """async (figure, [columns, rows]) => {
          const heat = figure.querySelector("image.heatmap"), picture = new Image();
          picture.src = heat.getAttribute("href");
          await picture.decode();
          const canvas = new OffscreenCanvas(picture.width, picture.height);
          const paper = canvas.getContext("2d");
          paper.drawImage(picture, 0, 0);
          const {data, width, height} = paper.getImageData(0, 0, picture.width, picture.height);
          const at = (row, column) => 4 * (width * Math.floor((row + 0.5) * height / rows)
            + Math.floor((column + 0.5) * width / columns));
          return Array.from({length: rows}, (_, row) => Array.from({length: columns},
            (_, column) => [...data.slice(at(row, column), at(row, column) + 3)]));
        }""",
        [columns, rows],
    )
    return [[tuple(cell) for cell in row] for row in drawn]


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
