"""docs/api.md says what the docstrings of the public names say."""

import tierscale
from docs import generate_api


def test_the_page_is_up_to_date():
    assert generate_api.PAGE.read_text() == generate_api.page(), "run make docs"


def test_the_page_has_every_public_name_and_nothing_of_this_run():
    page = generate_api.page()
    assert all(f"### `{name}`" in page for name in tierscale.__all__)
    assert " at 0x" not in page and "<factory>" not in page


def test_a_long_signature_has_a_line_for_each_parameter():
    def call(first: int, *, second: str = "x" * 90) -> float: ...

    short = generate_api.signature("call", lambda first: first)
    assert short == "call(first)"
    long = generate_api.signature("call", call).splitlines()
    assert long[:3] == ["call(", "    first: int,", "    *,"] and long[-1] == ") -> float"
