"""At a site: forwards a message to the worker beside it, and the worker's answer back. It keeps nothing."""

import json
import socket

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from fedrelay import frames

app = ClientApp()


def packed(header, body):
    """Return a message's content; arrays travel in pieces, so that no length is too long."""
    parts = {"head": ConfigRecord({"json": json.dumps(header)})}
    if body:
        parts["body"] = ArrayRecord({"m": Array(dtype="uint8", shape=(len(body),), stype="bytes", data=body)})
    return RecordDict(parts)


def unpacked(content):
    """Return the header and the body of a message's content."""
    body = content["body"]["m"].data if "body" in content else b""
    return json.loads(content["head"]["json"]), body


@app.query()
def relay(message, context):
    """Ask the worker whose socket this node was started with."""
    header, body = unpacked(message.content)
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(context.node_config["worker"])
        frames.send(line, header, body)
        header, body = frames.receive(line)
    return Message(packed(header, body), reply_to=message)
