"""Bring the catalogues up to date: `python -m fedllm_data.wording.update` (needs Babel).

Extracts the messages of all three packages (`words`, `plural_words` and `marked` in Python; those and `{% trans %}` in
templates) and the texts of the axes of heterogeneity, merges them into `ja.po`, drops what nobody says any more,
sorts, and compiles `ja.mo`. With `--check` it writes nothing and fails where the files would change. What has no
translation yet is listed.
"""

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fedllm_data.wording.catalogue import CATALOGUES, LANGUAGES

__all__ = ["compiled", "extract_messages", "main", "merged"]

ROOT = Path(__file__).parents[2]
PACKAGES = ("fedllm_data", "fedllm_eval", "fedllm_train")
KEYWORDS: dict[str, Any] = {
    "words": None,
    "marked": None,
    "plural_words": (1, 2),
    "gettext": None,
    "ngettext": (1, 2),
    "trans": None,
}
JINJA = {
    "newstyle_gettext": "true",
    "trimmed": "true",
    "silent": "false",
    "trim_blocks": "true",
    "lstrip_blocks": "true",
}
HEADER = """\
# Japanese for the pages of fedllm-commons.
# Edit the translations here, then run `python -m fedllm_data.wording.update`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the catalogues again and list what is not translated; return 1 if anything is missing or out of date."""
    purpose = str(__doc__).partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m fedllm_data.wording.update", description=purpose)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file would change")
    arguments = parser.parse_args(argv)
    is_current, missing = True, []
    for language in list(LANGUAGES)[1:]:
        catalogue, po, mo = merged(language)
        for path, content in ((CATALOGUES / f"{language}.po", po), (CATALOGUES / f"{language}.mo", mo)):
            is_same = path.is_file() and path.read_bytes() == content
            is_current &= is_same
            if not is_same and not arguments.check:
                path.write_bytes(content)
                print(f"written: {path}")
            elif not is_same:
                print(f"out of date: {path}; run `python -m fedllm_data.wording.update`")
        missing += [(language, message.id) for message in catalogue if message.id and not _is_said(message)]
    for language, message in missing:
        print(f"{language} lacks: {message!r}")
    return 1 if missing or (arguments.check and not is_current) else 0


def extract_messages() -> dict[Any, list[str]]:
    """Return every message (a text, or a pair for a plural) -> the files that say it."""
    from babel.messages.extract import extract_from_dir

    found: dict[Any, list[str]] = {}
    for package in PACKAGES:
        for name, _, message, _, _ in extract_from_dir(
            ROOT / package,
            method_map=[("**.py", "python"), ("**.jinja", "jinja2.ext:babel_extract")],
            options_map={"**.jinja": JINJA},
            keywords=KEYWORDS,
        ):
            found.setdefault(message, []).append(f"{package}/{name}")
    for text, name in _axis_texts():
        found.setdefault(text, []).append(name)
    return {message: sorted(set(names)) for message, names in found.items() if message}


def merged(language: str) -> tuple[Any, bytes, bytes]:
    """Return a language's catalogue with all messages and no others, and the bytes of its two files."""
    from babel.messages.catalog import Catalog
    from babel.messages.pofile import read_po, write_po

    path = CATALOGUES / f"{language}.po"
    earlier = Catalog(locale=language)
    if path.is_file():
        with path.open("rb") as file:
            earlier = read_po(file, locale=language)
    plurals = Catalog(locale=language)
    headers = [
        ("Language", language),
        ("MIME-Version", "1.0"),
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Transfer-Encoding", "8bit"),
        ("Plural-Forms", f"nplurals={plurals.num_plurals}; plural={plurals.plural_expr};"),
    ]

    class SameBytes(Catalog):
        """A catalogue whose header holds neither date nor version: the same messages give the same bytes."""

        mime_headers = property(lambda self: headers, lambda self, given: None)

    catalogue = SameBytes(locale=language, charset="utf-8", fuzzy=False, header_comment=HEADER)
    for message, names in extract_messages().items():
        known = earlier.get(message[0] if isinstance(message, tuple) else message)
        said: Any = (
            known.string if known is not None and isinstance(known.id, tuple) == isinstance(message, tuple) else ""
        )
        if isinstance(message, tuple) and not said:
            said = ("",)
        catalogue.add(message, said, locations=[(name, 0) for name in names])
    text = io.BytesIO()
    write_po(text, catalogue, width=119, sort_output=True, include_lineno=False)
    return catalogue, text.getvalue(), compiled(catalogue)


def compiled(catalogue: Any) -> bytes:
    """Return the bytes of the .mo file of a catalogue."""
    from babel.messages.mofile import write_mo

    file = io.BytesIO()
    write_mo(file, catalogue)
    return file.getvalue()


def _is_said(message: Any) -> bool:
    said = message.string if isinstance(message.string, tuple | list) else [message.string]
    return all(said) and not message.fuzzy


def _axis_texts() -> Iterator[tuple[str, str]]:
    """What the axes say of themselves in their own files: questions, titles, units, readings."""
    from fedllm_data.heterogeneity.axes import AXES
    from fedllm_data.heterogeneity.axis import Reading
    from fedllm_data.heterogeneity.quality import SHIPPED

    generic = Reading()
    for scorer in SHIPPED:
        title = scorer.name.replace("_", " ")
        for what in ("mean", "std", "scored fraction", "low client mean", "high client mean"):
            yield f"{title} {what}", "fedllm_data/heterogeneity/quality.py"
    for name, axis in AXES.items():
        place = f"fedllm_data/heterogeneity/{name}.py"
        texts = [name, name.capitalize(), axis.question, axis.null]
        for measure in axis.measures.values():
            texts += [measure.title, measure.unit, measure.meaning, measure.undefined]
        for reading in (axis.reading, generic):
            texts += [reading.means, reading.alike, reading.unknown, reading.absent]
        for tile in axis.reading.tiles:
            texts.append(tile.label)
        yield from ((text, place) for text in texts if text)


if __name__ == "__main__":
    sys.exit(main())
