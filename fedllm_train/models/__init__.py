"""What is trained: the base model with its adapter, quantised or not, and small models made here."""
