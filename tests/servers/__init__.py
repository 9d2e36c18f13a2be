"""Real servers for tests, from installed wheels: no container, no download, gone when the tests are."""
