"""At the server: carries frames between the engine's socket and the nodes. It keeps nothing but who owes an answer."""

import select
import socket

from flwr.app import Message
from flwr.serverapp import ServerApp

from fedrelay import frames
from fedrelay.client_app import packed, unpacked

app = ServerApp()


@app.main()
def main(grid, context):
    """Forward until the engine leaves."""
    owed = {}
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(context.run_config["engine-socket"])
        frames.send(line, {"op": "hello", "run_id": str(context.run_id)})
        while True:
            if select.select([line], [], [], 0.25 if owed else 1.0)[0]:
                try:
                    header, body = frames.receive(line)
                except EOFError:
                    return
                if header["op"] == "nodes":
                    frames.send(line, {"op": "nodes", "nodes": [told(node) for node in grid.get_nodes()]})
                else:
                    push(grid, line, owed, header, body)
            elif owed:
                pull(grid, line, owed)


def told(node):
    """Return what the engine may know of a node; its number is longer than a float holds."""
    return {"id": str(node.node_id), "key": node.public_key.hex(), "status": node.status}


def push(grid, line, owed, header, body):
    """Hand one request over to a node."""
    content = packed(header["header"], body)
    message = Message(content, int(header["node"]), "query", ttl=header["seconds"])
    (number,) = grid.push_messages([message])
    if number is None:
        frames.send(line, {"op": "problem", "key": header["key"], "problem": "the node is not registered"})
    else:
        owed[number] = header["key"]


def pull(grid, line, owed):
    """Forward the answers that have come."""
    for reply in grid.pull_messages(list(owed)):
        key = owed.pop(reply.metadata.reply_to_message_id, None)
        if key is None:
            continue
        if reply.has_error():
            reason = f"{reply.error.code}: {reply.error.reason}"
            frames.send(line, {"op": "problem", "key": key, "problem": reason})
        else:
            header, body = unpacked(reply.content)
            frames.send(line, {"op": "answer", "key": key, "header": header}, body)
