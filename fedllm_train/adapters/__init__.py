"""Adapters as tensors: arithmetic, the algebra of LoRA factors, what stands beside a weight."""
