"""`fedllm-train plan`: what runs would cost, before anything is trained. Imports no torch.

`plan_flags.py` reads what is asked, `plan_all.py` plans every candidate and `plan_one.py` one of them: it runs the
rule of participation and the simulated clock over clients that train nothing (`hollow_run.py`), whose messages have
the lengths of `method_messages.py`. `plan_costs.py` has times, memory, energy and privacy; `plan_text.py` and
`plan_page.py` show it all.
"""
