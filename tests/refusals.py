"""What must be refused, and with what words."""

import pytest


def assert_refused(call, *words):
    """Run what must be refused, and find all the words in what is said."""
    with pytest.raises(ValueError) as refused:  # noqa: PT011 (the words are the match)
        call()
    said = str(refused.value)
    assert [word for word in words if word not in said] == [], said
