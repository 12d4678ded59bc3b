"""Behind `fedllm-eval decide`: from results folders to a recommendation, its reasons, its doubts and its price.

`scored_candidates.py` reads what is given, `effects.py` measures who gains, `partner_costs.py` what it took at the
lines and prices of `stated_lines.py`, `deciding_rules.py` recommends, `evidence_needed.py` says what would settle an
open question, `decision.py` puts it together as data. Words and pages are made from that data alone. Imports no torch.
"""
