"""What a command that refuses its input does, and what it leaves alone."""


def assert_refused(manyeyes, arguments, *words):
    """One sentence with all these words, exit code 78, and nothing else happened."""
    before = manyeyes.files()
    code, _, err = manyeyes(*arguments)
    assert code == 78, err
    assert err.count("\n") == 1, err
    assert err.startswith("manyeyes: ")
    for word in words:
        assert word in err
    assert manyeyes.files() == before
    manyeyes.assert_nothing_left()
    return err
