"""Secure sums: the server learns what clients' vectors add up to, and no single one (Bonawitz et al. 2017).

`shamir.py` shares secrets, `masks.py` holds the keys and streams, `fixed_point.py` the ring of whole numbers,
`skellam.py` noise that the clients share; `client_side.py` and `server_side.py` are the two ends of the protocol, in
terms of the messages of `exchanges.py` alone: no engine, model or method is known here. `sum_settings.py` has the
settings. It protects against a server that follows the protocol and is curious, and against nothing more.
"""
