"""How a run is watched: progress, trackers, scores on held-out rows."""
