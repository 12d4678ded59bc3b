"""An OpenAI-compatible endpoint on loopback that misbehaves on demand and counts who asked what."""

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class JudgeServer:
    """Answers `Rating: [[7]]`, or does what `script` says for the n-th call about a user message.

    `script(user, nth)` gives None for a good answer, text for that answer, `(status, headers)` for an error, or one of
    "nonsense" (a web page), "cut" (half a body), "drop" (no answer at all), "block" (nothing until `release` is set)
    and "redirect". A dictionary is a choice of a completion as it stands, and None in a list of one no choice at all.
    `models` is what a list of models says, or such an action; without it there is no list.
    """

    def __init__(self, script=lambda user, nth: None, usage=(100, 10), models=None):
        self.script, self.usage, self.models = script, usage, models
        self.num_listed = 0
        self.calls = Counter()
        self.bodies, self.headers = [], []
        self.most_at_once = self.at_once = 0
        self.release = threading.Event()
        self.blocked = threading.Event()
        self.lock = threading.Lock()

    def __enter__(self):
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                owner.answer(self)

            def do_GET(self):
                owner.list_models(self)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exception):
        self.release.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def list_models(self, handler):
        with self.lock:
            self.headers.append(dict(handler.headers))
            nth, self.num_listed = self.num_listed, self.num_listed + 1
        models = self.models(nth) if callable(self.models) else self.models
        if models is None or handler.path != "/v1/models":
            self.send(handler, 404, b"{}", {})
        elif isinstance(models, list):
            entries = [{"object": "model", **({"id": each} if isinstance(each, str) else each)} for each in models]
            self.send(handler, 200, json.dumps({"object": "list", "data": entries}).encode(), {})
        else:
            self.act(handler, models, "any")

    def answer(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        user = body["messages"][-1]["content"]
        with self.lock:
            self.bodies.append((handler.path, body))
            self.headers.append(dict(handler.headers))
            nth = self.calls[user]
            self.calls[user] += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self.act(handler, self.script(user, nth), body["model"])
        except OSError:
            pass  # the client hung up, which is what some tests want
        finally:
            with self.lock:
                self.at_once -= 1

    def act(self, handler, action, model):
        if action == "drop":
            handler.close_connection = True
            return
        if action == "block":
            self.blocked.set()
            self.release.wait(30)
            action = None
        if action == "redirect":
            self.send(handler, 302, b"", {"Location": self.url + "/elsewhere"})
        elif isinstance(action, tuple):
            self.send(handler, action[0], b'{"error": {"message": "said no"}}', action[1])
        elif action == "nonsense":
            self.send(handler, 200, b"<html>welcome</html>", {})
        else:
            prompt_tokens, completion_tokens = self.usage or (0, 0)
            reply = {
                "model": f"{model}-0613",
                "choices": [{"message": {"content": "Rating: [[7]]"}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens},
            }
            if isinstance(action, dict):
                reply["choices"] = [action]
            if action == [None]:
                reply["choices"] = []
            if self.usage is None:
                del reply["usage"]
            if isinstance(action, str) and action != "cut":
                reply["choices"][0]["message"]["content"] = action
            self.send(handler, 200, json.dumps(reply).encode(), {}, half=action == "cut")

    def send(self, handler, status, body, headers, half=False):
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Connection": "close", **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2] if half else body)
        handler.close_connection = True
