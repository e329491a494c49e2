"""Into the destination: checked, loaded, and put right after a crash."""
