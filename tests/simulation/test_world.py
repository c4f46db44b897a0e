import time
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from fedmkt.learn.identifiers import normalise, normalise_ids
from fedmkt.party.table import Column, TableSchema, read_table
from fedmkt.simulation.world import BANK, LABEL, PARTNERS, World, generate, write_world

KEYS = {"phone": "+86", "email": ""}


@pytest.fixture(scope="module")
def world() -> World:
    return generate(seed=1)


def ids_of(table: pd.DataFrame, kind: str) -> set[str]:
    return set(normalise_ids(kind, table[kind].tolist(), "86").ids)


@pytest.mark.parametrize("kind", KEYS)
def test_exactly_the_promised_number_of_people_is_common(world: World, kind: str) -> None:
    assert len(world.bank) == 20_000 and len(world.partners[0]) == 25_000
    assert len(ids_of(world.bank, kind) & ids_of(world.partners[0], kind)) == 12_000


def test_phone_and_email_of_a_person_are_the_same_at_both_sides(world: World) -> None:
    pairs = []
    for table in (world.bank, world.partners[0]):
        phones = normalise("phone", table["phone"].tolist(), "86")
        emails = normalise("email", table["email"].tolist(), "86")
        pairs.append({(p, e) for p, e in zip(phones, emails, strict=True) if p and e})
    assert len(pairs[0] & pairs[1]) == 12_000


@pytest.mark.parametrize(("kind", "distinct"), [("phone", 11), ("email", 6)])
def test_ids_are_written_carelessly(world: World, kind: str, distinct: int) -> None:
    written = world.bank[kind]
    report = normalise_ids(kind, written.tolist(), "86").report
    assert report.rewritten > 8_000 and report.duplicates == 100
    assert report.empty > 5 and report.invalid > 5 and report.empty + report.invalid == 80
    shapes = written.str.replace(r"[0-9]", "9", regex=True).str.replace(r"[a-z]+", "a", regex=True)
    assert shapes.nunique() >= distinct


def test_some_people_stand_in_a_file_twice_with_another_label(world: World) -> None:
    label = world.bank[LABEL].to_numpy(dtype=np.float64, na_value=np.nan)
    report = normalise_ids("phone", world.bank["phone"].tolist(), "86", label).report
    assert 20 < report.label_conflicts < 80


def test_columns_are_mixed_and_have_gaps(world: World) -> None:
    for party, table in zip((BANK, PARTNERS[0]), (world.bank, world.partners[0]), strict=True):
        names = [*party.numbers, *party.categories]
        assert list(table.columns) == ["phone", "email", *names, *([LABEL] if party is BANK else [])]
        assert len(names) == 8 and len(party.numbers) >= 3 and len(party.categories) >= 3
        assert table[names].isna().any().sum() >= 2
        assert all(pd.api.types.is_numeric_dtype(table[name]) for name in party.numbers)
        assert (table[list(party.numbers)].nunique() > 5).all()


def test_about_85_percent_are_labelled_and_8_to_12_percent_of_them_responded(world: World) -> None:
    label = world.bank[LABEL]
    assert 0.83 < label.notna().mean() < 0.87
    assert 0.08 < label.mean() < 0.12
    assert set(label.dropna().unique()) == {0, 1}


def matrix(table: pd.DataFrame, numbers: tuple[str, ...], categories: tuple[str, ...]) -> NDArray[np.float64]:
    """Plain pandas and scikit-learn, independent of the project's preparation."""
    filled = table[list(numbers)].fillna(table[list(numbers)].median())
    dummies = pd.get_dummies(table[list(categories)], dummy_na=True).astype(float)
    return np.asarray(StandardScaler().fit_transform(np.hstack([filled, dummies])))


def aucs(world: World) -> list[float]:
    """Bank alone, then with each further partner, on a held-out third of the people common to all."""
    tables = []
    for table in (world.bank, *world.partners):
        keyed = normalise_ids("phone", table["phone"].tolist(), "86")
        tables.append(table.iloc[keyed.rows].set_index(pd.Index(keyed.ids)))
    common = tables[0].index
    for table in tables[1:]:
        common = common.intersection(table.index)
    joined = [table.loc[common] for table in tables]
    label = joined[0][LABEL].to_numpy(dtype=np.float64, na_value=np.nan)
    parties = (BANK, *PARTNERS)
    parts = [matrix(t, p.numbers, p.categories) for t, p in zip(joined, parties, strict=False)]
    is_train = np.random.default_rng(0).random(len(label)) < 2 / 3
    train, test = is_train & ~np.isnan(label), ~is_train & ~np.isnan(label)
    found = []
    for width in range(1, len(parts) + 1):
        x = np.hstack(parts[:width])
        model = LogisticRegression(max_iter=300).fit(x[train], label[train])
        found.append(float(roc_auc_score(label[test], model.decision_function(x[test]))))
    return found


def test_the_partner_matters_as_much_as_promised() -> None:
    # In a world large enough that chance and overfitting hardly move the figures.
    bank, joint = aucs(generate(0, 70_000, 70_000, 60_000))
    assert bank == pytest.approx(0.68, abs=0.015)
    assert joint == pytest.approx(0.80, abs=0.015)


@pytest.mark.parametrize("seed", range(3))
def test_the_partner_matters_in_every_world_of_default_size(seed: int) -> None:
    bank, joint = aucs(generate(seed))
    assert joint > bank + 0.07


def test_a_second_partner_shares_people_and_adds_a_little() -> None:
    world = generate(3, partners=2)
    tables = (world.bank, *world.partners)
    bank, shop, telecom = (ids_of(table, "phone") for table in tables)
    assert len(bank & shop) == len(bank & telecom) == 12_000
    assert len(bank & shop & telecom) == 10_000
    assert shop & telecom <= bank
    alone, joint, all_three = aucs(world)
    assert alone + 0.05 < joint < all_three


def test_equal_seeds_make_equal_worlds_and_others_do_not(world: World) -> None:
    again, other = generate(seed=1), generate(seed=2)
    pd.testing.assert_frame_equal(again.bank, world.bank)
    pd.testing.assert_frame_equal(again.partners[0], world.partners[0])
    assert not other.bank["phone"].equals(world.bank["phone"])


@pytest.mark.parametrize(
    ("bank_rows", "partner_rows", "common"), [(500, 600, 400), (1, 1, 1), (300, 300, 300), (10, 500, 3)]
)
@pytest.mark.parametrize("partners", [1, 2])
def test_small_and_tight_worlds_keep_the_promise_too(
    bank_rows: int, partner_rows: int, common: int, partners: int
) -> None:
    world = generate(7, bank_rows, partner_rows, common, partners)
    for table in world.partners:
        assert len(table) == partner_rows
        assert len(ids_of(world.bank, "phone") & ids_of(table, "phone")) == common


@pytest.mark.parametrize(
    "arguments",
    [(1, 100, 100, 101), (1, 100, 50, 60), (1, 100, 100, 0), (1, 100, 100, 50, 3), (1, 100, 100, 50, 0)],
)
def test_worlds_that_cannot_be_are_refused(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"partners can be made|common must lie"):
        generate(*arguments)


def test_a_world_of_default_size_takes_little_time() -> None:
    start = time.process_time()
    generate(seed=5)
    assert time.process_time() - start < 1.5


@pytest.mark.parametrize("partners", [1, 2])
def test_written_files_fit_their_job(tmp_path: Path, partners: int) -> None:
    world = generate(1, 2_000, 2_500, 1_200, partners)
    job = write_world(world, tmp_path / "new" / "folder", minimum=200)
    assert sorted(p.name for p in job.parent.iterdir()) == sorted(
        ["bank.csv", "job.toml", "partner.csv", "partner2.csv"][: 2 + partners]
    )
    text = tomllib.loads(job.read_text(encoding="utf-8"))
    assert (text["name"], text["purpose"]) == ("spring-campaign", "marketing-response")
    assert text["limits"] == {"min_list": 200, "min_common": 200, "min_events": 0} and text["model"] == {
        "penalty": 1.0
    }
    ids = []
    for party, frame in zip((text["bank"], *text["partners"]), (world.bank, *world.partners), strict=True):
        columns = [Column(n, "number") for n in party["numbers"]]
        columns += [Column(n, "category") for n in party["categories"]]
        schema = TableSchema(
            party["id"], party["id_kind"], party["country"], tuple(columns), party.get("label")
        )
        table = read_table(job.parent / party["file"], schema)
        rows = table.rows - 2
        for name, values in table.numbers.items():
            np.testing.assert_array_equal(values, frame[name].to_numpy(dtype=np.float64)[rows])
        for name, levels in table.categories.items():
            kept = frame[name].iloc[rows]
            assert levels.tolist() == kept.astype(object).where(kept.notna(), None).tolist()
        if table.label is not None:
            expected = frame[LABEL].to_numpy(dtype=np.float64, na_value=np.nan)[rows]
            np.testing.assert_array_equal(table.label, expected)
        ids.append(set(table.ids))
    assert all(len(ids[0] & other) == 1_200 for other in ids[1:])
