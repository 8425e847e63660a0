"""The policy file: validated when read, named by its digest, with draws that never change."""

from __future__ import annotations

from pathlib import Path

import pytest

from review_workflow import policy
from review_workflow.errors import PolicyError
from review_workflow.policy import Order, Policy
from review_workflow.settings import ReviewSettings


def written(folder: Path, text: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(f"format = 1\n{text}")
    return path


def test_the_shipped_policy_is_the_default_one() -> None:
    assert policy.read() == Policy()


def test_a_policy_is_read_from_its_file(tmp_path: Path) -> None:
    read = policy.read(written(tmp_path, "seed = 7\n[queue]\norder = 'fifo'\n[readers]\nshare_with_second = 1\n"))
    assert (read.seed, read.queue.order, read.readers.share_with_second) == (7, Order.FIFO, 1.0)
    assert read.digest != Policy().digest


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[readers]\nshare_with_second = 1.5", "readers.share_with_second"),
        ("[readers]\nshare_with_seconds = 0.5", "share_with_seconds"),
        ("[qa]\nmalignant = 'yes'", "malignant"),
        ("[training]\nafter_approved = -1", "training"),
        ("[training]\nafter_approved = true", "after_approved"),
        ("[queue]\norder = 'random'", "order"),
        ("[unknown]\nx = 1", "unknown"),
        ("gold = 3", "gold"),
        ("[gold]\nshare = 2", "gold.share"),
        ("[gold]\ntiers = [3]", "gold.tiers"),
        ("[gold]\ntiers = 1", "a list"),
        ("[gold]\ntiers = ['one']", "of type int"),
        ("[gold]\nlevel = 'model'", "dermatologist, qa, consensus"),
        ("[readers]\ntogether = 1", "readers.together"),
        ("[merge]\ndiagnosis = 'average'", "majority, dawid-skene"),
        ("[assignment]\nexpertise = ['age']", "site, diagnosis"),
        ("seed = 'x'", "seed"),
        ("seed = ", "TOML"),
    ],
)
def test_a_mistake_in_the_policy_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(PolicyError, match=named):
        policy.read(written(tmp_path, text))


def test_a_policy_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("format = 2\n")
    with pytest.raises(PolicyError, match="format 1"):
        policy.read(path)


def test_draws_are_even_and_always_the_same() -> None:
    draws = [Policy().draw(f"image-{number}", "purpose") for number in range(2000)]
    assert draws == [Policy().draw(f"image-{number}", "purpose") for number in range(2000)]
    assert 0.47 < sum(draws) / len(draws) < 0.53
    assert all(0.0 <= draw < 1.0 for draw in draws)
    assert Policy(seed=1).draw("image-1", "purpose") != draws[1]


def test_a_policy_in_the_home_folder_is_the_house_s_own(tmp_path: Path) -> None:
    assert ReviewSettings(home=tmp_path).policy_file is None
    (tmp_path / "policy.toml").write_text("format = 1\n", encoding="utf-8")
    assert ReviewSettings(home=tmp_path).policy_file == tmp_path / "policy.toml"
    named = tmp_path / "other.toml"
    assert ReviewSettings(home=tmp_path, policy=named).policy_file == named
