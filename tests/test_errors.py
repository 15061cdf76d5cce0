from __future__ import annotations

import pytest

from dps_local.errors import DpsError, ModelError, RegistryError, Remedy
from dps_local.prompting.profile import Profile


def test_an_error_is_one_line_whatever_it_speaks_of() -> None:
    assert str(ModelError("cannot load a\nb.gguf:\r\n\n  line 1\u2028x  y")) == "cannot load a b.gguf: line 1 x  y"
    with pytest.raises(DpsError, match=r"^no profile 'a.*b': give a JSON file") as info:
        Profile.load("a\nb")
    assert len(str(info.value).splitlines()) == 1


def test_a_remedy_is_no_part_of_the_message() -> None:
    error = RegistryError("model 'tiny' is not downloaded yet", Remedy.DOWNLOAD, "tiny")
    assert (str(error), error.remedy, error.model) == (
        "model 'tiny' is not downloaded yet",
        Remedy.DOWNLOAD,
        "tiny",
    )
    assert DpsError("a").remedy is None
