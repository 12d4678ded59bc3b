"""Policies: how they are found, loaded, made to answer, and what probability they give to answers."""
