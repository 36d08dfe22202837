"""Training: photos in memory, the antialiased shrink, and one schedule for each kind of network."""
