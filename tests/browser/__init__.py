"""Real servers, a real Chromium: what a reader of the course clicks, the tests click."""

import pytest

# Helpers that assert: have pytest say what was compared.
pytest.register_assert_rewrite("tests.browser.beta", "tests.browser.controls")
