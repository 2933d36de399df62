"""What this board is and how it fares, read from the kernel's files; nothing here writes, waits or fails."""
