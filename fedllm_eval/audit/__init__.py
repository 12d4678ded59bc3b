"""What a trained policy gives away about its clients: membership, planted canaries, and a lower bound on epsilon."""

from fedllm_eval.audit.canaries import Canary, make_canaries, plant, read_secrets, write_secrets
from fedllm_eval.audit.membership_audit import audit_membership
from fedllm_eval.audit.memorisation import audit_canaries

__all__ = [
    "Canary",
    "audit_canaries",
    "audit_membership",
    "make_canaries",
    "plant",
    "read_secrets",
    "write_secrets",
]
