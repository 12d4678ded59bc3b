"""What the three console commands share in how they are called: spelling, help, files of flags, completion.

Imports the standard library only, so that `--help` and every refusal of a flag answer at once.
"""
