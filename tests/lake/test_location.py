from __future__ import annotations

from pathlib import Path

import pytest

from mainstay.errors import Misuse
from mainstay.lake.location import check_name, find_location


def test_a_folder_is_a_lake_and_needs_nothing_from_the_environment() -> None:
    found = find_location("some/folder", {"AWS_REGION": "x"})
    assert found.is_local
    assert found.root == str(Path.cwd() / "some/folder")
    assert found.options == {}
    assert found.path("a/b") == Path.cwd() / "some/folder/a/b"


def test_a_bucket_is_reached_with_what_the_environment_says_and_shows_no_secret() -> None:
    found = find_location("s3://bucket/place/", {"AWS_SECRET_ACCESS_KEY": "very-secret", "HOME": "/", "AWS_REGION": ""})
    assert not found.is_local
    assert found.uri("a/b") == "s3://bucket/place/a/b"
    assert found.options == {"AWS_SECRET_ACCESS_KEY": "very-secret"}
    assert "very-secret" not in repr(found)


@pytest.mark.parametrize(("url", "allowed"), [("http://127.0.0.1:1", "true"), ("https://127.0.0.1:1", None)])
def test_plain_http_is_spoken_only_where_the_endpoint_says_so(url: str, allowed: str | None) -> None:
    assert find_location("s3://bucket", {"AWS_ENDPOINT_URL": url}).options.get("AWS_ALLOW_HTTP") == allowed


@pytest.mark.parametrize("place", ["gs://bucket/x", "s3://", "s3://B", "s3://bucket//x", "s3://bucket/a b", "http://x"])
def test_other_places_are_refused(place: str) -> None:
    with pytest.raises(Misuse, match="expected a folder, or s3://"):
        find_location(place, {})


@pytest.mark.parametrize("variable", ["AWS_S3_ALLOW_UNSAFE_RENAME", "AWS_CONDITIONAL_PUT"])
def test_a_bucket_where_commits_may_overwrite_each_other_is_refused(variable: str) -> None:
    with pytest.raises(Misuse, match="never overwrite one another"):
        find_location("s3://bucket/x", {variable: "true"})


@pytest.mark.parametrize("name", ["a", "decisions/late-arrival", "a/b/c/d", "0_x-y/1"])
def test_a_name_has_up_to_four_parts(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "A", "a//b", "/a", "a/", "a/b/c/d/e", "..", "a/../b", "a b", "a\n", "_a", "x" * 129]
)
def test_what_could_lead_elsewhere_is_no_name(name: str) -> None:
    with pytest.raises(Misuse, match="one to four parts"):
        check_name(name)
