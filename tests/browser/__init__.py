"""Real servers, a real Chromium: what a reader of the course clicks, the tests click."""
