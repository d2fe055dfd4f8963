"""The frame and the style of a report's page, for light and dark screens, phones, and paper."""

from string import Template

# The colours of the modes are darker than those of the figures on a light page, and lighter on a dark one: text needs a
# contrast of 4.5 with its background to be readable (WCAG 2.2, 1.4.3).
COLOURS = """
:root { color-scheme: light dark; --text: #1b1e23; --dim: #5b6270; --line: #d5d9e0; --background: #ffffff;
  --shade: #f4f6f9; --base: #2f6294; --motivated: #c03a4c; --warning: #8a5a00; }
@media screen and (prefers-color-scheme: dark) {
  :root { --text: #e6e8ec; --dim: #a0a7b4; --line: #3a404b; --background: #15181d;
    --shade: #1e2229; --base: #86b4e0; --motivated: #f4929f; --warning: #e8b964; } }
.base { color: var(--base); }
.motivated { color: var(--motivated); }
"""

# Names without spaces may be longer than a line, so words may break anywhere.
TEXT = """
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 1rem clamp(0.8rem, 3vw, 2rem);
  background: var(--background); color: var(--text); overflow-wrap: anywhere;
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: 1.6rem; margin: 0.5rem 0; }
h2 { font-size: 1.35rem; margin: 2.5rem 0 0.3rem; }
h3 { font-size: 1.1rem; margin: 2rem 0 0.5rem; }
h4 { font-size: 1rem; margin: 1.5rem 0 0.2rem; }
section + section { border-top: 1px solid var(--line); }
p { max-width: 48rem; margin: 0.4rem 0; }
.lead { font-size: 1.05rem; }
.note, figcaption, footer, small { color: var(--dim); }
.note, figcaption, footer { font-size: 0.875rem; }
.warning { border-left: 4px solid var(--warning); padding-left: 0.8rem; }
a { color: var(--base); }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 0.2rem 1.2rem; }
details { margin: 2rem 0 1rem; }
summary { cursor: pointer; font-weight: 600; }
pre { background: var(--shade); padding: 0.8rem; font-size: 0.8rem; line-height: 1.4; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 0.6rem; }
"""

# Tables scroll horizontally on a phone, and digits have equal widths, so that columns can be compared.
TABLES = """
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 0.8rem 0; font-size: 0.925rem; overflow-wrap: normal; }
th, td { padding: 0.3rem 0.9rem 0.3rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
thead th { color: var(--dim); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 400; min-width: 9rem; }
.numbers td { white-space: nowrap; font-variant-numeric: tabular-nums; }
.words { white-space: normal; min-width: 8rem; }
.compared { font-size: 0.875rem; }
.compared th, .compared td { padding-right: 0.7rem; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(13rem, 45%), 1fr));
  gap: 0.7rem 1.5rem; margin: 1rem 0; }
dt { color: var(--dim); font-size: 0.875rem; }
dd { margin: 0; font-variant-numeric: tabular-nums; }
"""

# Figures are side by side if the screen is wide enough. The pixels of a confusion matrix stay sharp.
FIGURES = """
.figures { display: grid; gap: 1.2rem 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); }
.three { grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); }
figure { margin: 0; }
figure.wide { grid-column: 1 / -1; max-width: 60rem; }
figure.half { max-width: 33rem; }
figure.third { max-width: 27rem; }
figure svg { display: block; width: 100%; height: auto; }
figure.wide svg { min-width: 36rem; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
.matrix svg image { image-rendering: pixelated; }
.gallery { list-style: none; padding: 0; display: grid; gap: 0.8rem;
  grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); }
.gallery li { display: flex; flex-direction: column; font-size: 0.875rem; line-height: 1.35;
  break-inside: avoid; }
.gallery img { margin-bottom: 0.3rem; border-radius: 3px; background: var(--shade); object-fit: contain; }
.pixels { image-rendering: pixelated; }
"""

# On paper nothing scrolls, each run begins on a new page, and figures and rows are not split between pages.
PRINT = """
@media print {
  * { print-color-adjust: exact; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .scroll { overflow: visible; }
  nav { display: none; }
  section + section { break-before: page; }
  figure, tr, dl div { break-inside: avoid; }
  h2, h3, h4, .note { break-after: avoid; }
  figure.wide svg { min-width: 0; }
  .figures { grid-template-columns: 1fr 1fr; }
  .three { grid-template-columns: 1fr 1fr 1fr; } }
"""

# Later rules override earlier ones.
STYLE = COLOURS + TEXT + TABLES + FIGURES + PRINT

# The policy forbids scripts, forms and requests, even if malicious text should get into the page. Inline styles are
# allowed for the style sheet, and for attributes in the figures, which cannot be allowed by a hash.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

PAGE = Template(f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
$body
</body>
</html>
""")
