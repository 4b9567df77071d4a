"""What a command wrote on a terminal → an SVG picture."""

import io
import re

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

#: As rich's own, without the fonts that it would have a browser fetch from elsewhere.
_PICTURE = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
    <style>
    .{unique_id}-matrix {{
        font-family: "DejaVu Sans Mono", "Noto Sans Mono CJK KR", "D2Coding", monospace;
        font-size: {char_height}px;
        line-height: {line_height}px;
        font-variant-east-asian: full-width;
    }}
    .{unique_id}-title {{
        font-size: 18px;
        font-weight: bold;
        font-family: sans-serif;
    }}
    {styles}
    </style>
    <defs>
    <clipPath id="{unique_id}-clip-terminal">
      <rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
    </clipPath>
    {lines}
    </defs>
    {chrome}
    <g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
    {backgrounds}
    <g class="{unique_id}-matrix" xml:space="preserve">
    {matrix}
    </g>
    </g>
</svg>
"""
_MARGIN = re.compile(r"[ \t]+$", re.MULTILINE)


def picture(name: str, command: str, shown: str, *, columns: int) -> str:
    """Draw `command` and what it has shown (text with ANSI colours) as an SVG that is `columns` wide."""
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text("$ ", style="bold green").append(command, style="bold"), soft_wrap=True)
    console.print(Text.from_ansi(shown.rstrip("\n")))
    drawn = console.export_svg(title="kcg-cache", theme=MONOKAI, code_format=_PICTURE, unique_id=f"kcg-{name}")
    return _MARGIN.sub("", drawn)
