"""The words of all pages in every language they are shown in: sentences, numbers, lists, and the glossary.

English sentences stand in the code and the templates; `ja.po` holds the Japanese ones and `ja.mo` is what the standard
library's gettext reads. `catalogue.py` says a sentence in the language of the page, `recorded.py` says again what a
file holds in English, `forms.py` knows lists, shares and intervals, `glossary.py` the terms, `update.py` extracts and
compiles (Babel, in the `dev` and `test` extras only). The standard library only; nothing here knows of a page.
"""
