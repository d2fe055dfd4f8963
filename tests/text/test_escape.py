"""Each medium against its own parser: a text comes back as it was, or in its documented visible form."""

import csv
import html
import io
import json
import re
import shlex
import subprocess
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest
from hostile import HOSTILE, NAMES
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from nestnet.analysis.plotting import plain_text
from nestnet.text import escape

MARKUP = [
    "<b>",
    "&lt;",
    "|",
    "`",
    "``",
    "**",
    "_",
    "[x](y)",
    "\\",
    "$",
    "$$",
    "~~",
    "\n",
    "\r",
    "\x1b[31m",
    "\x00",
    '"',
    "'",
]
MARKUP += [
    "www.a.bc",
    "http://a.bc",
    "a@b.cd",
    "  ",
    "=1+1",
    "--",
    "\\xe9",
    "\\ud800",
    "\udce9",
    "\ud800",
    "\u202e",
    "\uffff",
]
TEXTS = st.lists(st.sampled_from(MARKUP) | st.text(st.characters(), max_size=4), max_size=6).map("".join)
"""Markup of all media among arbitrary characters, surrogates and control characters included."""


def each_text(test):
    """Run a test on all hostile names and on texts at random."""
    for name in NAMES:
        test = example(name)(test)
    return settings(max_examples=40, deadline=None)(given(TEXTS)(test))


@each_text
def test_a_terminal_gets_one_line_of_printable_characters(text):
    shown = escape.for_terminal(text)
    assert len(shown.splitlines()) <= 1
    assert shown.encode().decode() == shown  # UTF-8 has them all
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2028\u2029\ufeff]", shown)
    assert escape.for_terminal(shown) == shown


def test_a_byte_and_the_character_of_its_number_are_shown_apart():
    shown = [escape.for_terminal(text) for text in ("\udc85", "\x85", "\udcad", "\xad", "\x1b", "\u2028", "\U000e0001")]
    assert shown == ["\\x85", "\\u0085", "\\xad", "\\u00ad", "\\x1b", "\\u2028", "\\U000e0001"]


class Read(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, attributes))

    def handle_data(self, data):
        self.words.append(data)


@each_text
def test_html(text):
    shown = escape.for_html(text)
    page = Read(f'<p title="{shown}">{shown}</p>')
    assert page.tags == [("p", [("title", escape.for_terminal(text))])]
    assert "".join(page.words) == escape.for_terminal(text)


RENDERER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
"""As GitHub and Hugging Face render: with tables and with HTML."""


@each_text
def test_markdown_in_a_heading_a_paragraph_and_a_table(text):
    shown, code = escape.for_markdown(text), escape.markdown_code(text)
    page = f"# A {shown}.\n\nA {shown}. A {code}.\n\n| a | {shown} |\n|---|---|\n| {code} | {shown} |\n"
    read = Read(RENDERER.render(page))
    words = escape.for_terminal(text)
    cells = [tag for tag, _ in read.tags]
    assert (
        cells
        == ["h1", "p", "code", "table", "thead", "tr", "th", "th", "tbody", "tr", "td", "code", "td"][: len(cells)]
    )
    assert len(cells) == 13 if words else 11
    said = "".join(read.words)
    assert said.startswith(f"A {words}.\nA {words}. A {words}.\n") or not words
    assert said.split("\n", 3)[-1].split() == ["a", *words.split(), *words.split(), *words.split()]


def test_markdown_leaves_usual_names_as_they_are():
    for name in ("golden_retriever", "n02123045-tabby", "vit_tiny_patch16_224", "St. Bernard (dog)", "cat/dog", "a: b"):
        assert escape.for_markdown(name) == name


@each_text
def test_a_block_of_markdown(text):
    lines = f"x = {escape.for_python(text)}\n{escape.for_terminal(text)}\n"
    tokens = RENDERER.parse(f"{escape.markdown_block(lines, 'python')}\n\nafter\n")
    assert [token.type for token in tokens] == ["fence", "paragraph_open", "inline", "paragraph_close"]
    assert (tokens[0].info, tokens[0].content) == ("python", lines)


def as_bytes(read):
    """Undo `for_data`."""
    return re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), read.encode())


@each_text
def test_csv(text):
    row = [text, "a", 1, text, 0.5]
    read = next(csv.reader(io.StringIO(f"{escape.csv_row(row)}\r\n".encode().decode(), newline="")))
    assert read == [escape.for_data(cell) for cell in row]
    assert (read[0] == text) == (escape.is_utf8(text) and not re.search(r"\\x[0-9a-f]{2}|\\ud[89a-f][0-9a-f]{2}", text))


@each_text
def test_json(text):
    assert json.loads(json.dumps(escape.for_data(text)).encode()) == escape.for_data(text)
    if not re.search("[\ud800-\udc7f\udd00-\udfff]|\\\\ud[89a-f]", text):  # no name of a file has such surrogates
        assert as_bytes(escape.for_data(text)) == text.encode("utf-8", "surrogateescape")


@given(TEXTS, TEXTS)
@settings(max_examples=60, deadline=None)
@example("\udce9", "\\xe9")
@example("\ud800", "\\ud800")
@example("\\x5cxe9", "\\\\xe9")
def test_two_names_are_never_the_same_data(one, other):
    assert (escape.for_data(one) == escape.for_data(other)) == (one == other)


@each_text
def test_latex(text):
    names = {"backslash": "\\", "asciitilde": "~", "asciicircum": "^", "bar": "|", "less": "<", "greater": ">"}
    names["asciigrave"] = "`"
    named = {rf"\text{name}{{}}": character for name, character in names.items()}
    named |= {f"\\{character}": character for character in "&%$#_{}"} | {
        f"{{{character}}}": character for character in "[]*"
    }
    named |= {"-{}": "-", r"$\pm$": "±", r"\ldots{}": "…"}
    tokens = re.compile("|".join(map(re.escape, sorted(named, key=len, reverse=True))) + r"|[^\\&%$#_{}~^]", re.DOTALL)
    shown = escape.for_latex(text)
    assert "".join(tokens.findall(shown)) == shown  # no special is left bare
    assert "--" not in shown
    assert "".join(named.get(token, token) for token in tokens.findall(shown)) == escape.for_terminal(text)


def test_a_shell_reads_back_every_path(tmp_path):
    paths = [name.replace("\x00", "") for name in NAMES]
    line = " ".join(["printf", r"'%s\0'", *map(escape.for_shell, paths)])
    assert len(line.splitlines()) == 1
    assert escape.for_terminal(line) == line
    read = subprocess.run(["bash", "-c", line], capture_output=True, check=True, cwd=tmp_path).stdout.split(b"\0")[:-1]
    expected = [path.encode("utf-8", "surrogateescape") for path in paths]
    assert [word.removeprefix(b"./") for word in read] == expected
    assert not any(word.startswith((b"-", b"~")) for word in read)
    assert list(tmp_path.iterdir()) == []


@each_text
def test_a_path_that_is_printable_needs_no_bash(text):
    if escape.for_terminal(text) == text:
        assert shlex.split(escape.for_shell(text)) == [f"./{text}" if text.startswith(("-", "~")) else text]


@each_text
def test_python(text):
    literal = escape.for_python(text)
    assert eval(literal) == text
    assert escape.for_terminal(literal) == literal


def test_figures_are_well_formed_and_show_the_text(recwarn):
    with plain_text():
        figure = Figure(layout="constrained")
        axes = figure.subplots()
        for place, name in enumerate(NAMES):
            axes.text(0.5, place, escape.for_figure(name))
        axes.set_ylim(0, len(NAMES))
        content = io.BytesIO()
        figure.savefig(content, format="svg")
    texts = [escape.for_figure(name) for name in NAMES]
    assert ElementTree.fromstring(content.getvalue()) is not None
    assert max(map(len, texts)) == 60
    assert not recwarn.list


@each_text
def test_a_figure_s_text_is_short_and_xml(text):
    shown = escape.for_figure(text, 14)
    assert len(shown) <= 14
    assert ElementTree.fromstring(f"<text>{html.escape(shown)}</text>").text in (shown, None)


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_hostile_names_are_names_of_files(name):
    assert "/" not in name
    assert "\x00" not in name
    assert 0 < len(name.encode("utf-8", "surrogateescape")) <= 255
    assert escape.is_utf8(name) == ("\udce9" not in name)
