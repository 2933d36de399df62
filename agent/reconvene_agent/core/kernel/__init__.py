"""What the kernel and the firmware tell in small files that both processes read; nothing here writes, waits or fails."""
