"""What the sandbox knows: pure, without an await; the time is always an argument."""
