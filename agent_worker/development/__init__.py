"""What a developer talks to an agent with: the page in the browser, the terminal, a scripted call."""
