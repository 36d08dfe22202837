"""What the tests of jobs share."""

import pytest

from tests.jobs.nights import picture


@pytest.fixture
def archive(tmp_path):
    """A folder with an archive of two images below it."""
    folder = tmp_path / "archive"
    (folder / "deep").mkdir(parents=True)
    picture(folder / "a.png", 40)
    picture(folder / "deep/b.png", 60)
    return tmp_path
