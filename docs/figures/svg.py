"""Pictures as SVG: a card that is light or dark, as its viewer prefers, and what is on it.

Written by hand rather than by a library for plots, so that the same figures give the same
file everywhere, and text stays text.
"""

from __future__ import annotations

from html import escape

#: Colours by name, for a light card and for a dark one. Of Okabe and Ito, which most people
#: who see few colours can tell apart; lighter ones on the dark card.
COLOURS = {
    "card": ("#ffffff", "#161b22"),
    "edge": ("#d0d7de", "#3d444d"),
    "ink": ("#1f2328", "#e6edf3"),
    "soft": ("#59636e", "#a5adb8"),
    "box": ("#eef2f6", "#262d36"),
    "data": ("#d55e00", "#ff9a4d"),
    "ours": ("#0072b2", "#56b4e9"),
    "grey": ("#8c959f", "#8b949e"),
    "yellow": ("#c98500", "#e6b53c"),
    "green": ("#008a63", "#3cc79b"),
    "pink": ("#b5588f", "#e08cc0"),
    "red": ("#c43c00", "#ff7b54"),
}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"


class Picture:
    """Shapes on a card.

    Parameters
    ----------
    width, height
        In pixels; it is scaled to where it stands.
    title
        What it shows, for who cannot see it.
    """

    def __init__(self, width: int, height: int, title: str):
        self._size = width, height
        self._title = title
        self._shapes: list[str] = []

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: int = 14,
        colour: str = "ink",
        anchor: str = "start",
        bold: bool = False,
    ) -> None:
        """One line, whose baseline is at `y`."""
        weight = ' font-weight="600"' if bold else ""
        self._shapes.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}"'
            f'{weight} class="{colour}">{escape(text, quote=False)}</text>'
        )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        colour: str = "box",
        round: float = 6,
        edge: str = "",
    ) -> None:
        """A rectangle."""
        stroke = f" {edge}-line" if edge else ""
        self._shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" '
            f'rx="{round:g}" class="{colour}{stroke}"/>'
        )

    def line(
        self,
        points: list[tuple[float, float]],
        *,
        colour: str = "soft",
        width: float = 1.5,
        dashed: bool = False,
        arrow: bool = False,
    ) -> None:
        """A line through points."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        head = f' marker-end="url(#{colour}-head)"' if arrow else ""
        self._shapes.append(
            f'<polyline points="{path}" fill="none" stroke-width="{width:g}"'
            f'{dash}{head} class="{colour}-line"/>'
        )

    def dot(self, x: float, y: float, radius: float, colour: str) -> None:
        """A filled circle."""
        self._shapes.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" class="{colour}"/>'
        )

    def __str__(self) -> str:
        width, height = self._size
        light, dark = (_rules(which) for which in (0, 1))
        heads = "".join(
            f'<marker id="{name}-head" viewBox="0 0 8 8" refX="7" refY="4" '
            'markerUnits="userSpaceOnUse" markerWidth="11" markerHeight="11" '
            f'orient="auto"><path d="M0,0 L8,4 L0,8 z" class="{name}"/></marker>'
            for name in COLOURS
            if f"#{name}-head" in "".join(self._shapes)
        )
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} '
                f'{height}" width="{width}" height="{height}" role="img" '
                f'font-family="{FONT}">',
                f"<title>{escape(self._title)}</title>",
                f"<style>{light}\n@media (prefers-color-scheme: dark) {{{dark}}}"
                "</style>",
                f"<defs>{heads}</defs>",
                f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" '
                'rx="8" class="card edge-line"/>',
                *self._shapes,
                "</svg>\n",
            ]
        )


def _rules(which: int) -> str:
    return "".join(
        f".{name}{{fill:{pair[which]}}}.{name}-line{{stroke:{pair[which]}}}"
        for name, pair in COLOURS.items()
    )
