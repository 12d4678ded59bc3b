"""The clients' lines and devices: what is known of them, and what a visit takes there.

`machine.py` is one client's line and device and how long a visit takes there; `client_table.py` says which machine
each client has, by a file (`table_entries.py`, `window_text.py`) or by named profiles (`profiles.py`,
`profile_mix.py`). `flops.py`, `memory.py`, `energy.py` and `money.py` are the formulas of what training costs, on a
`model_shape.py`, which `decoder_shape.py` makes from a model's sizes. Imports no torch.
"""
