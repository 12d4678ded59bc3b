"""`fedllm-train plan`: what runs would cost, before anything is trained."""
