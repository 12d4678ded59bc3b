"""What travels, in either direction, and how long it is.

`wire.py` is the server's and the client's end, with `uploads.py`, `downloads.py` and `download_parts.py`;
`wire_settings.py` has its settings. `wire_names.py` reads the text of a wire, `pipeline.py` packs one vector by its
stages, `packed_length.py` says how long that becomes without packing anything. `codec.py` makes bytes of tensors.
"""
