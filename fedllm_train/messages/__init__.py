"""What travels, and what it costs: encoding, packing, checks, the ledger."""
