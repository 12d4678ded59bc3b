"""Publishing on the Hub: one commit, then a tag; gates; what names people; one line for whatever goes wrong.

`publish.py` knows client repos, `push.py` any folder.
"""

from fedllm_data.hub.push import PushResult, push_folder, resolve_revision

__all__ = ["PushResult", "push_folder", "resolve_revision"]
