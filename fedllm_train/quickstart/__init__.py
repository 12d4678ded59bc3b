"""The quickstart: the whole way by the commands a user would type, and the page that shows the outcome.

`commands.py` names the commands, `steps.py` runs them, `summary.py` writes the page from what their folder holds
(`evidence.py` reads it; `summary_words.py`, `summary_plots.py` and `answers.py` show it). Nothing else in the package
imports from here.
"""
