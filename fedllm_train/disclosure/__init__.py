"""What a run gives away, and to whom: the server, the other partners, and the public once it is published."""
