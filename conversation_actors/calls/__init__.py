"""What happened in a conversation's calls, told from its entries: pure, and the same whenever it is told."""
