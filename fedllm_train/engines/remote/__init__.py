"""The same run on several machines, over any pipe that carries bytes: frames, requests, and the two ends of a line.

`frames.py` cuts a stream of bytes into headers and bodies; `requests.py`, `answers.py` and `visit_texts.py` are what
stands in them, every field checked; `line.py` is the pipe as the server sees it, `socket_line.py` one over sockets.
`remote_engine.py` is the server's end, an engine as any other; `worker.py` the end of an organisation, which has the
rows. `site_roster.py` is what the server knows of clients it cannot see. Nothing here knows which product carries it.
"""
