"""A Flower app that forwards frames; see `fedllm_train/engines/flower/`."""
