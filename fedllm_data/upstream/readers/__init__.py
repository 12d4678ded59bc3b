"""One file a format: each reader yields, for every row of a file, a `Record` or one `Rejected`."""
