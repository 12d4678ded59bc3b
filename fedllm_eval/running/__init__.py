"""The parts of `fedllm-eval run`: what is scored, kept, compared and summed up."""
