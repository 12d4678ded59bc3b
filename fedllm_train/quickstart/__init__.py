"""The quickstart: the whole way by the commands a user would type, and the page that says what came of it.

`commands.py` names the commands, `steps.py` runs them, `summary.py` writes the page from what their folder holds
(`evidence.py` reads it, `words.py`, `plots.py` and `answers.py` say it). Nothing else in the package imports from
here.
"""
