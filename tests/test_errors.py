from __future__ import annotations

import pytest

from dps_local.errors import DpsError, ModelError
from dps_local.prompting.profile import load_profile


def test_an_error_is_one_line_whatever_it_speaks_of() -> None:
    assert str(ModelError("cannot load a\nb.gguf:\r\n\n  line 1\u2028x  y")) == "cannot load a b.gguf: line 1 x  y"
    with pytest.raises(DpsError, match=r"^no profile 'a.*b': give a JSON file") as info:
        load_profile("a\nb")
    assert len(str(info.value).splitlines()) == 1
