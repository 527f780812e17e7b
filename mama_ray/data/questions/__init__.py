"""Questions about videos: the contract, the official files, answer lists, and which questions share a batch."""
