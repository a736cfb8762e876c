"""The offline stage: from labelled pictures to a model bundle."""
