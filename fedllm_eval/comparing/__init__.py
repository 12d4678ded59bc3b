"""Behind `fedllm-eval compare`: which runs are one method, what may be compared, gates, history and the page.

`method_costs.py` says what each method cost, `fronts.py` which ones no other beats, `protocols.py` and `robustness.py`
hold the three standard protocols, and `trade_offs.py` puts them together as data. Imports no torch.
"""
