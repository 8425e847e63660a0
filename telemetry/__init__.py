"""What the programs say of themselves: log lines, metrics and traces, joined by one request id."""
