"""Flower as the pipe between a server and organisations: its programs run in an environment of their own.

`relay/` is a Flower app of two small files that forward frames between unix sockets; nothing else here imports flwr,
and nothing outside this folder knows of it. `flower_line.py` is the line as the server sees it, `deployment.py` the
folder with authority, certificates and a kit for each site, `processes.py` starts and ends Flower's programs, and
`deploy_command.py` is the command.
"""
