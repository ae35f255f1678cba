"""What reads and purges the history; the sync twin is generated."""
