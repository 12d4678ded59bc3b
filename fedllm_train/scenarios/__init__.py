"""Scenarios: whole cases, each one command, from its clients' machines to a page with a recommendation.

A template (`*.yaml` here) says who the clients are, which machines they have, what could be run, at what prices and by
which rules it is decided; `template.py` reads it. `scenario_steps.py` names the commands of a case, `case_plans.py`
plans them, `case_running.py` runs them, `agreement.py` holds plan and run against each other, `recommended.py` picks
a candidate and `case_page.py` shows everything. Nothing else in the package imports from here but the command.
"""
