"""Datasets whose clients are real people: build, read, measure and publish them."""

from fedllm_data.clients import ClientDataset, load_client, load_clients

__all__ = ["ClientDataset", "load_client", "load_clients"]
