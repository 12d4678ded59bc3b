"""The quickstart: the whole way by the commands a user would type, and the page that says what came of it.

`steps.py` runs the commands, `summary.py` writes the page from what their folder holds (`evidence.py` reads it,
`words.py`, `plots.py` and `answers.py` say it). Nothing else in the package imports from here.
"""
