"""`make federation`: a training between three organisations on one machine, from keys to a page.

`steps.py` runs the commands that server and sites would run and ends every process whatever happens; `page.py` writes
what came of it, in English.
"""
