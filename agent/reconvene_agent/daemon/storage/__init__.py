"""What the agent keeps on disk: journal, spool, releases, settings, and notes that hold over a restart."""
