"""Files that are whole or absent."""

from ctflow_fed.files import write_private


def test_a_private_file_replaces_what_a_kill_left_open_to_all(tmp_path):
    left = tmp_path / ".partial-key"
    left.write_text("old")
    left.chmod(0o644)

    write_private(tmp_path / "key", b"new")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
