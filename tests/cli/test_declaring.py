"""What cannot work is refused when the project file is loaded, by each command, before anything is trained."""

from pathlib import Path

import pytest

from tests.cli.test_commands import holdtrue
from tests.cli.toys import edited, succeed, toy_folder


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A folder with a project and an empty data folder."""
    return toy_folder(tmp_path)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('time="asked_at",\n    contract', 'time="asked_at",\n    window="day",\n    contract', "by the day"),
        ("holdout_days=7", 'slices=["colour"]', "slice “colour”"),
        ("holdout_days=7", 'metric="auc"', "metric “auc”"),
        ("holdout_days=7", 'baseline="last"', "baseline “last”"),
        ("holdout_days=7", "holdout_days=0", "holds out 0 days"),
        ('entity="id"', 'entity="colour"', "its entity is “colour”"),
        ('key="id",\n    entity', 'key="happened",\n    entity', "its key is “happened”"),
        ('"amount": "FP64"', '"amount": "FLOAT"', "no datatype"),
        ('"amount": "FP64"', '"amount": "BYTES"', "numeric feature"),
        (', "amount": "FP64"', "", "does not take “amount”"),
        ('"asked_at": "INT64", ', "", "the moment of prediction is “asked_at”"),
        ('ht.numeric("amount")', 'ht.numeric("amuont")', "“amuont”"),
        ('outcome="happened", time="asked_at"', 'outcome="happened", time="askd_at"', "the time “askd_at”"),
    ],
)
def test_what_cannot_work_is_refused_at_once(toy: Path, before: str, after: str, said: str) -> None:
    """Prevent a traceback, or a refusal, after minutes of training."""
    edited(toy, (before, after))
    done = holdtrue("run", "--window", "2024-01", cwd=toy)
    assert done.returncode == 2
    assert said in done.stderr
    assert "To mend it" in done.stderr
    assert "Traceback" not in done.stderr


def test_windows_are_months_and_held_out_days_leave_some(toy: Path) -> None:
    """The name of a window is checked before it is read; holding out all there is says so."""
    done = holdtrue("run", "--window", "2024-1", cwd=toy)
    assert done.returncode == 1
    assert "Windows are months" in done.stderr
    edited(toy, ("holdout_days=7", "holdout_days=40"))
    done = holdtrue("run", "--window", "2024-01", cwd=toy)
    assert done.returncode == 1
    assert "Nothing is left to train “happens” on: its data span 25 days" in done.stderr
    assert "40 days are held out" in done.stderr


def test_without_data_the_mend_works(toy: Path) -> None:
    """The command that is named takes data in, once it is given a month."""
    done = holdtrue("run", cwd=toy)
    mend = done.stderr.split("To mend it: ")[1].split(": ")[1].strip()
    assert mend == "holdtrue run --ingest rows --window YYYY-MM"
    succeed(*mend.replace("YYYY-MM", "2024-01").split()[1:], cwd=toy)


def test_a_service_may_have_another_name_than_its_model(toy: Path) -> None:
    """Monitor and retraining follow the service; a second service of the same model is refused."""
    edited(toy, ('key="id",\n    entity', 'name="answers",\n    key="id",\n    entity'))
    shown = succeed("apply", cwd=toy)
    assert "add     service answers" in shown
    assert "add     monitor answers-roc_auc" in shown
    assert "add     retrain happens" in shown
    succeed("run", "--window", "2024-01", cwd=toy)
    text = (toy / "project.py").read_text()
    service = text[text.index("project.service(") : text.index("project.monitor(")]
    (toy / "project.py").write_text(text + service.replace("answers", "others"))
    done = holdtrue("plan", cwd=toy)
    assert done.returncode == 2
    assert "has a service already: “answers”" in done.stderr
